#include "net/config.h"

#include "net/link.h"
#include "net/none.h"
#include "net/passt.h"
#include "net/tap.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

/* --- addresses --- */

int net_mac_parse(const char *text, uint8_t ret_mac[ETH_ALEN])
{
    uint8_t mac[ETH_ALEN];
    const char *at = text;
    bool valid = strlen(text) == 3 * ETH_ALEN - 1;
    for (unsigned i = 0; valid && i < ETH_ALEN; i++, at += 3) {
        char digits[3] = {at[0], at[1], '\0'};
        valid = isxdigit((unsigned char)at[0]) && isxdigit((unsigned char)at[1]) &&
                (i == ETH_ALEN - 1 || at[2] == ':');
        mac[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    if (!valid)
        return fail(-EINVAL, "'%s' is no MAC address (give one as 52:54:00:12:34:56)", text);
    if (mac[0] & 1)
        return fail(-EINVAL, "%s is a multicast address: a card's first byte is even", text);
    memcpy(ret_mac, mac, sizeof(mac));
    return 0;
}

void net_mac_derive(const char *name, unsigned index, uint8_t ret_mac[ETH_ALEN])
{
    uint64_t hash = 0;
    if (name)
        hash = XXH3_64bits_withSeed(name, strlen(name), index);
    else if (getrandom(&hash, sizeof(hash), GRND_NONBLOCK) < (ssize_t)sizeof(hash))
        hash = (uint64_t)getpid() << 32 | index;
    memcpy(ret_mac, &hash, ETH_ALEN);
    ret_mac[0] = (uint8_t)((ret_mac[0] & 0xfc) | 2); /* one card's, locally administered */
}

/* --- --net --- */

static int number(const char *option, const char *text, unsigned least, unsigned most, unsigned *ret_number)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || !isdigit((unsigned char)text[0]) || value < least || value > most)
        return fail(-EINVAL, "--net %s=%s: give a number from %u to %u", option, text, least, most);
    *ret_number = (unsigned)value;
    return 0;
}

int net_config_set_target(struct net_config *config, const char *option, const char *name)
{
    if (name[0] == '\0' || strlen(name) >= IF_NAMESIZE || strpbrk(name, "/ %"))
        return fail(-EINVAL, "%s=%s: no name of a link (1 to %u characters)", option, name, IF_NAMESIZE - 1);
    snprintf(config->target, sizeof(config->target), "%s", name);
    return 0;
}

static int take_fds(struct net_config *config, char *list)
{
    unsigned count = 0;
    const char *word;
    while ((word = strsep(&list, ":"))) {
        unsigned fd;
        if (count == NET_PAIRS_MAX)
            return fail(-EINVAL, "--net fd=: more than %u descriptors", NET_PAIRS_MAX);
        int r = number("fd", word, 0, INT16_MAX, &fd);
        if (r < 0)
            return r;
        config->fds[count++] = (int)fd;
    }
    config->queues = count;
    return 0;
}

static int take_passt(struct net_config *config, const char *socket)
{
    config->kind = NET_KIND_PASST;
    if (strcmp(socket, "auto") == 0)
        return 0;
    if (!socket[0] || strlen(socket) >= sizeof(config->socket))
        return fail(-EINVAL, "--net passt=%s: give auto, or the path of passt's socket (1 to %u characters)",
                    socket, NET_SOCKET_MAX - 1);
    snprintf(config->socket, sizeof(config->socket), "%s", socket);
    return 0;
}

/* What the ports mean is passt's to say. Commas divide our own words: give the option again instead. */
static int take_forward(struct net_config *config, const char *key, const char *ports)
{
    if (config->kind != NET_KIND_PASST || config->socket[0])
        return fail(-EINVAL, "--net %s=%s: only passt=auto forwards ports", key, ports);
    if (config->forward_count == NET_FORWARDS_MAX)
        return fail(-EINVAL, "--net: more than %u forwards", NET_FORWARDS_MAX);
    struct net_forward *forward = &config->forwards[config->forward_count];
    if (!isalnum((unsigned char)ports[0]) || strlen(ports) >= sizeof(forward->ports) ||
        ports[strspn(ports, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:/%-~_")])
        return fail(-EINVAL, "--net %s=%s: give ports as passt(1) does, as in 8080:80", key, ports);
    forward->udp = key[0] == 'u';
    snprintf(forward->ports, sizeof(forward->ports), "%s", ports);
    config->forward_count++;
    return 0;
}

static int take_map_gw(struct net_config *config, const char *value)
{
    config->map_gw = strcmp(value, "on") == 0;
    if (!config->map_gw && strcmp(value, "off") != 0)
        return fail(-EINVAL, "--net map-gw=%s: give on or off", value);
    return config->kind == NET_KIND_PASST && !config->socket[0]
               ? 0
               : fail(-EINVAL, "--net map-gw=: only passt=auto has it");
}

static int family_of(const char *address)
{
    return strchr(address, ':') ? AF_INET6 : AF_INET;
}

static int take_address(const char *key, const char *value, char address[INET6_ADDRSTRLEN])
{
    uint8_t bytes[sizeof(struct in6_addr)];
    if (inet_pton(family_of(value), value, bytes) != 1)
        return fail(-EINVAL, "--net %s=%s: no address", key, value);
    inet_ntop(family_of(value), bytes, address, INET6_ADDRSTRLEN);
    return 0;
}

static int take_guest(struct net_config *config, const char *value)
{
    struct net_guest *guest = &config->guest;
    if (strcmp(value, "dhcp") == 0 || strcmp(value, "auto6") == 0) {
        snprintf(guest->address, sizeof(guest->address), "%s", value);
        return 0;
    }
    CLEANUP_FREE char *address = strdup(value);
    char *slash = address ? strchr(address, '/') : NULL;
    if (!slash)
        return fail(-EINVAL, "--net ip=%s: give ADDRESS/LENGTH, as in 10.9.0.2/24, or dhcp or auto6", value);
    *slash++ = '\0';
    int r = take_address("ip", address, guest->address);
    return r < 0 ? r : number("ip", slash, 1, family_of(address) == AF_INET ? 32 : 128, &guest->prefix);
}

/* An address that fits what else the guest is told. */
static int check_guest(const struct net_config *config)
{
    const struct net_guest *guest = &config->guest;
    if (!guest->gateway[0] && !guest->dns[0])
        return 0;
    if (!guest->address[0])
        return fail(-EINVAL, "--net gw= and dns=: they need ip=");
    if (guest->gateway[0] && (!guest->prefix || family_of(guest->gateway) != family_of(guest->address)))
        return fail(-EINVAL, "--net gw=%s: it needs an ip= of its own kind", guest->gateway);
    return 0;
}

char *net_config_word(const struct net_config *config, unsigned index, char word[NET_WORD_MAX])
{
    const struct net_guest *guest = &config->guest;
    bool six = guest->prefix && family_of(guest->address) == AF_INET6,
         dns6 = family_of(guest->dns) == AF_INET6;
    uint32_t bits = guest->prefix < 32 ? ~(UINT32_MAX >> guest->prefix) : UINT32_MAX;
    const struct in_addr dotted = {.s_addr = htonl(bits)};
    char mask[INET_ADDRSTRLEN];
    word[0] = '\0';
    if (!guest->address[0])
        return word;
    if (six || !guest->prefix)
        snprintf(mask, sizeof(mask), "%u", guest->prefix);
    else /* the kernel itself knows no other form */
        inet_ntop(AF_INET, &dotted, mask, sizeof(mask));
    const char *open = six ? "[" : "", *close = six ? "]" : "", *dns_open = dns6 ? "[" : "",
               *dns_close = dns6 ? "]" : "";
    if (guest->prefix)
        snprintf(word, NET_WORD_MAX, "ip=%s%s%s::%s%s%s:%s::eth%u:off", open, guest->address, close,
                 guest->gateway[0] ? open : "", guest->gateway, guest->gateway[0] ? close : "", mask, index);
    else
        snprintf(word, NET_WORD_MAX, "ip=:::::eth%u:%s", index, guest->address);
    if (guest->dns[0])
        snprintf(word + strlen(word), NET_WORD_MAX - strlen(word), ":%s%s%s", dns_open, guest->dns,
                 dns_close);
    return word;
}

static int take_kind(struct net_config *config, const char *key, char *value)
{
    if (strcmp(key, "tap") == 0) {
        config->kind = NET_KIND_TAP;
        return net_config_set_target(config, key, value);
    }
    if (strcmp(key, "bridge") == 0) {
        config->kind = NET_KIND_BRIDGE;
        return net_config_set_target(config, key, value);
    }
    if (strcmp(key, "fd") == 0) {
        config->kind = NET_KIND_FD;
        return take_fds(config, value);
    }
    if (strcmp(key, "passt") == 0)
        return take_passt(config, value);
    return fail(-EINVAL, "--net %s: begin with tap=NAME, fd=N, bridge=NAME, passt=auto or none", key);
}

static int take_setting(struct net_config *config, const char *key, const char *value)
{
    if (strcmp(key, "mac") == 0) {
        config->has_mac = true;
        return net_mac_parse(value, config->mac);
    }
    if (strcmp(key, "mtu") == 0)
        return number(key, value, 68, 65535, &config->mtu);
    if (strcmp(key, "ip") == 0)
        return take_guest(config, value);
    if (strcmp(key, "gw") == 0)
        return take_address(key, value, config->guest.gateway);
    if (strcmp(key, "dns") == 0)
        return take_address(key, value, config->guest.dns);
    if (strcmp(key, "tcp") == 0 || strcmp(key, "udp") == 0)
        return take_forward(config, key, value);
    if (strcmp(key, "map-gw") == 0)
        return take_map_gw(config, value);
    if (strcmp(key, "queues") == 0 && config->kind == NET_KIND_PASST)
        return fail(-EINVAL, "--net passt=: it has one queue");
    if (strcmp(key, "queues") == 0)
        return config->kind == NET_KIND_FD
                   ? fail(-EINVAL, "--net fd=: give a descriptor for each queue, as in fd=3:4")
                   : number(key, value, 1, NET_PAIRS_MAX, &config->queues);
    struct {
        const char *key;
        struct token_bucket_config *bucket;
    } const limits[] = {{"rx-bw", &config->rx.bandwidth},
                        {"rx-ops", &config->rx.ops},
                        {"tx-bw", &config->tx.bandwidth},
                        {"tx-ops", &config->tx.ops}};
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
        if (strcmp(key, limits[i].key) == 0)
            return token_bucket_parse(key, value, limits[i].bucket);
    return fail(-EINVAL,
                "--net: there is no '%s' (mac, mtu, queues, ip, gw, dns, tcp, udp, map-gw, rx-bw, rx-ops, "
                "tx-bw, tx-ops)",
                key);
}

int net_config_parse(const char *text, struct net_config *ret_config)
{
    struct net_config config = {.queues = 1};
    CLEANUP_FREE char *copy = strdup(text);
    char *rest = copy, *word;
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    for (unsigned i = 0; (word = strsep(&rest, ",")); i++) {
        char *value = strchr(word, '=');
        if (i == 0 && strcmp(word, "none") == 0) {
            config.kind = NET_KIND_NONE;
            continue;
        }
        if (!value)
            return fail(-EINVAL, "--net %s: '%s' has no value", text, word);
        *value++ = '\0';
        int r = i == 0 ? take_kind(&config, word, value) : take_setting(&config, word, value);
        if (r < 0)
            return r;
    }
    int r = check_guest(&config);
    if (r == 0)
        *ret_config = config;
    return r;
}

/* --- opening --- */

static int join_bridge(const struct net_config *config, struct net_port *port)
{
    struct link_info bridge = {0}, tap = {0};
    int r = link_by_name(config->target, &bridge);
    if (r == -ENODEV || (r == 0 && !bridge.is_bridge))
        return fail(-ENODEV,
                    r == 0
                        ? "%s is no bridge (make one: ip link add volt0 type bridge && ip link set volt0 up)"
                        : "there is no bridge %s (make it: ip link add %s type bridge && ip link set %s up)",
                    config->target, config->target, config->target);
    if (r == 0)
        r = link_by_name(port->name, &tap);
    if (r == 0)
        r = link_join(tap.index, bridge.index, config->mtu ? config->mtu : bridge.mtu, port->name);
    if (r < 0)
        return r;
    port->index = tap.index;
    port->bridge_index = bridge.index;
    port->mtu = config->mtu ? config->mtu : bridge.mtu;
    memcpy(port->bridge, config->target, sizeof(port->bridge));
    return 0;
}

static int find_tap(struct net_port *port)
{
    struct link_info tap = {0};
    int r = link_by_name(port->name, &tap);
    if (r == -ENODEV)
        return 0; /* of another namespace: nothing is known of it */
    if (r < 0)
        return r;
    port->index = tap.index;
    port->mtu = tap.mtu;
    return 0;
}

int net_port_open(const struct net_config *config, struct net_port *ret_port)
{
    struct net_port port = {0};
    int r;
    switch (config->kind) {
    case NET_KIND_NONE:
        r = none_open(MAX(config->queues, 1u), &port.backend);
        port.mtu = ETH_DATA_LEN; /* a guest that was told of another one keeps that */
        break;
    case NET_KIND_FD: r = tap_adopt(config->fds, config->queues, &port.backend); break;
    case NET_KIND_PASST:
        r = passt_open(config, &port.backend);
        port.mtu = NET_PASST_MTU;
        break;
    case NET_KIND_BRIDGE:
        r = tap_open("volt%d", config->queues, port.name, &port.backend);
        if (r == 0) {
            r = join_bridge(config, &port);
            if (r < 0)
                port.backend->ops->close(port.backend);
        }
        break;
    default:
        r = tap_open(config->target, config->queues, port.name, &port.backend);
        if (r == 0) {
            r = find_tap(&port);
            if (r < 0)
                port.backend->ops->close(port.backend);
        }
        break;
    }
    if (r < 0)
        return r;
    if (config->mtu)
        port.mtu = config->mtu;
    if (port.mtu && port.mtu <= 65535)
        port.backend->mtu = port.mtu;
    *ret_port = port;
    return 0;
}
