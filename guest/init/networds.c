#include "networds.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum field {
    FIELD_CLIENT,
    FIELD_SERVER,
    FIELD_GATEWAY,
    FIELD_MASK,
    FIELD_HOST,
    FIELD_DEVICE,
    FIELD_METHOD,
    FIELD_DNS,
    FIELD_DNS_2,
    FIELD_NTP,
    FIELD_NTP_2,
    FIELDS,
};

/* --- pieces --- */

bool net_address_parse(const char *text, struct net_address *ret_address)
{
    struct net_address address = {.family = strchr(text, ':') == NULL ? AF_INET : AF_INET6};
    if (inet_pton(address.family, text, address.bytes) != 1)
        return false;
    *ret_address = address;
    return true;
}

char *net_address_text(const struct net_address *address, char buffer[INET6_ADDRSTRLEN])
{
    buffer[0] = '\0';
    (void)inet_ntop(address->family, address->bytes, buffer, INET6_ADDRSTRLEN);
    return buffer;
}

bool net_name_valid(const char *name)
{
    size_t length = strlen(name);
    if (length == 0 || length > NET_NAME_MAX || !isalnum((unsigned char)name[0]))
        return false;
    for (; *name != '\0'; name++)
        if (!isalnum((unsigned char)*name) && strchr(".-_", *name) == NULL)
            return false;
    return true;
}

static bool number_parse(const char *text, unsigned most, unsigned *ret_number)
{
    unsigned value = 0;
    if (*text == '\0' || strlen(text) > 5)
        return false;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        value = 10 * value + (unsigned)(*text - '0');
    }
    if (value > most)
        return false;
    *ret_number = value;
    return true;
}

bool net_mask_parse(const char *text, unsigned most, unsigned *ret_prefix)
{
    struct in_addr mask;
    if (strchr(text, '.') == NULL)
        return number_parse(text, most, ret_prefix);
    if (most != 32 || inet_pton(AF_INET, text, &mask) != 1)
        return false;
    uint32_t holes = ~ntohl(mask.s_addr);
    if ((holes & (holes + 1)) != 0)
        return false;
    *ret_prefix = 32 - (unsigned)__builtin_popcount(holes);
    return true;
}

/* The name of a link, as the kernel has it (dev_valid_name()). */
static bool device_valid(const char *name)
{
    if (*name == '\0' || strlen(name) >= IFNAMSIZ || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return false;
    for (; *name != '\0'; name++)
        if (!isgraph((unsigned char)*name) || *name == '/' || *name == ':')
            return false;
    return true;
}

/* Splits at colons that are outside of brackets, and takes a field's brackets off. The number of fields, or
 * -1: there are more than `most`, or the brackets are wrong. */
static int split(char *text, char **fields, int most)
{
    int count = 0;
    for (char *at = text; at != NULL; count++) {
        if (count == most)
            return -1;
        fields[count] = at;
        if (*at == '[') {
            fields[count] = at + 1;
            at = strchr(at, ']');
            if (at == NULL || (at[1] != ':' && at[1] != '\0' && at[1] != '/'))
                return -1;
            *at++ = '\0';
            if (*at == '/') /* [NETWORK]/LENGTH: the length moves to where the bracket was */
                at = memmove(at - 1, at, strlen(at) + 1);
        }
        at = strchr(at, ':');
        if (at != NULL)
            *at++ = '\0';
    }
    return count;
}

/* --- ip= --- */

/* What a method means where no address is given. */
static const struct method {
    const char *name;
    bool dhcp, autoconf, unknown;
} methods[] = {
    {"off", false, false, false},  {"none", false, false, false},   {"static", false, false, false},
    {"on", true, false, false},    {"any", true, false, false},     {"dhcp", true, false, false},
    {"auto6", false, true, false}, {"either6", false, true, false}, {"link6", false, false, false},
    {"bootp", false, false, true}, {"rarp", false, false, true},    {"both", false, false, true},
    {"dhcp6", false, false, true}, {"ibft", false, false, true},
};

static const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

static int take_method(const char *name, struct net_word *word)
{
    const struct method *method = method_find(name);
    if (method == NULL || method->unknown)
        return fail(-EINVAL, "'%.32s' is not a way to an address (dhcp, on, any, auto6, off, none)", name);
    word->dhcp = method->dhcp;
    word->autoconf = method->autoconf;
    return 0;
}

static int take_device(const char *name, struct net_word *word)
{
    if (!device_valid(name))
        return fail(-EINVAL, "'%.32s' is no name of a network card", name);
    snprintf(word->device, sizeof(word->device), "%s", name);
    return 0;
}

/* What stands before the first dot is the machine's name, what is behind it its NIS domain. */
static int take_host(const char *name, struct net_word *word)
{
    const char *dot = strchr(name, '.');
    if (!net_name_valid(name))
        return fail(-EINVAL, "'%.80s' is no host name", name);
    snprintf(word->host, sizeof(word->host), "%.*s", (int)strcspn(name, "."), name);
    snprintf(word->domain, sizeof(word->domain), "%s", dot == NULL ? "" : dot + 1);
    return 0;
}

static int take_address(const char *what, const char *text, struct net_address *address)
{
    if (*text == '\0')
        return 0;
    if (!net_address_parse(text, address))
        return fail(-EINVAL, "%s '%.46s' is no address", what, text);
    return 0;
}

static bool can_be_a_host(const struct net_address *address)
{
    static const uint8_t zero[sizeof(address->bytes)];
    if (memcmp(address->bytes, zero, sizeof(zero)) == 0)
        return false;
    return address->family == AF_INET ? address->bytes[0] < 224 : address->bytes[0] != 0xff;
}

/* Without a mask the old classes of networks count, as in the kernel. */
static int take_mask(const char *text, struct net_word *word)
{
    unsigned first = word->client.bytes[0], most = word->client.family == AF_INET ? 32 : 128;
    if (*text == '\0') {
        word->prefix = most == 128 ? 64 : first < 128 ? 8 : first < 192 ? 16 : 24;
        return 0;
    }
    if (!net_mask_parse(text, most, &word->prefix))
        return fail(-EINVAL, "'%.46s' is no network mask", text);
    return 0;
}

static int take_client(char *const *fields, struct net_word *word)
{
    int r = take_address("the client", fields[FIELD_CLIENT], &word->client);
    if (r == 0)
        r = take_address("the gateway", fields[FIELD_GATEWAY], &word->gateway);
    if (r < 0 || word->client.family == AF_UNSPEC)
        return r;
    if (!can_be_a_host(&word->client))
        return fail(-EINVAL, "the client '%.46s' is no address of a machine", fields[FIELD_CLIENT]);
    if (word->gateway.family != AF_UNSPEC && word->gateway.family != word->client.family)
        return fail(-EINVAL, "the gateway is not of the client's kind (IPv4 or IPv6)");
    return take_mask(fields[FIELD_MASK], word);
}

static int take_fields(char *const *fields, struct net_word *word)
{
    struct net_address unused; /* the servers of NFS and of the time: for others */
    int r = take_client(fields, word);
    if (r == 0)
        r = take_address("the server", fields[FIELD_SERVER], &unused);
    if (r == 0 && *fields[FIELD_HOST] != '\0')
        r = take_host(fields[FIELD_HOST], word);
    if (r == 0 && *fields[FIELD_DEVICE] != '\0')
        r = take_device(fields[FIELD_DEVICE], word);
    if (r == 0)
        r = take_method(*fields[FIELD_METHOD] == '\0' ? "any" : fields[FIELD_METHOD], word);
    for (int i = 0; r == 0 && i < 2; i++) {
        r = take_address("the name server", fields[FIELD_DNS + i], &word->dns[i]);
        if (r == 0)
            r = take_address("the time server", fields[FIELD_NTP + i], &unused);
    }
    if (word->client.family != AF_UNSPEC)
        word->dhcp = false;
    return r;
}

/* DEVICE:METHOD[:MTU], dracut's form. */
static int take_short(char *const *fields, int count, struct net_word *word)
{
    int r = take_device(fields[0], word);
    if (r == 0)
        r = take_method(fields[1], word);
    if (r == 0 && count == 3 && *fields[2] != '\0' &&
        (!number_parse(fields[2], 65535, &word->mtu) || word->mtu < 68))
        r = fail(-EINVAL, "'%.32s' is no MTU (68 to 65535)", fields[2]);
    return r;
}

int net_word_parse(const char *text, struct net_word *ret_word)
{
    static char empty[] = "";
    char copy[NET_WORD_LENGTH], *fields[FIELDS];
    struct net_word word = {0};
    int r;
    for (int i = 0; i < FIELDS; i++)
        fields[i] = empty;
    if (strlen(text) >= sizeof(copy))
        return fail(-EINVAL, "longer than %d characters", NET_WORD_LENGTH - 1);
    memcpy(copy, text, strlen(text) + 1);
    int count = split(copy, fields, FIELDS);
    if (count < 0)
        return fail(-EINVAL, "'%.80s' has too many fields, or brackets that are wrong", text);
    if (*text == '\0')
        r = take_method("off", &word);
    else if (count == 1 && !net_address_parse(fields[0], &word.client))
        r = take_method(fields[0], &word);
    else if ((count == 2 || count == 3) && method_find(fields[1]) != NULL)
        r = take_short(fields, count, &word);
    else
        r = take_fields(fields, &word);
    if (r == 0)
        *ret_word = word;
    return r;
}

/* --- rd.route= --- */

static int take_network(char *text, struct net_route *route)
{
    char *slash = strchr(text, '/');
    route->network.family = route->gateway.family;
    if (strcmp(text, "default") == 0)
        return 0;
    if (slash != NULL)
        *slash++ = '\0';
    if (!net_address_parse(text, &route->network) || route->network.family != route->gateway.family)
        return fail(-EINVAL, "'%.46s' is no network of the gateway's kind", text);
    unsigned most = route->network.family == AF_INET ? 32 : 128;
    route->prefix = most;
    if (slash != NULL && !net_mask_parse(slash, most, &route->prefix))
        return fail(-EINVAL, "'%.46s' is no network mask", slash);
    return 0;
}

int net_route_parse(const char *text, struct net_route *ret_route)
{
    char copy[NET_WORD_LENGTH], *fields[3];
    struct net_route route = {0};
    if (strlen(text) >= sizeof(copy))
        return fail(-EINVAL, "longer than %d characters", NET_WORD_LENGTH - 1);
    memcpy(copy, text, strlen(text) + 1);
    int count = split(copy, fields, ARRAY_SIZE(fields));
    if (count < 2)
        return fail(-EINVAL, "'%.80s' is not NETWORK/LENGTH:GATEWAY[:DEVICE]", text);
    if (!net_address_parse(fields[1], &route.gateway))
        return fail(-EINVAL, "the gateway '%.46s' is no address", fields[1]);
    int r = take_network(fields[0], &route);
    if (r == 0 && count == 3 && !device_valid(fields[2]))
        r = fail(-EINVAL, "'%.32s' is no name of a network card", fields[2]);
    if (r < 0)
        return r;
    snprintf(route.device, sizeof(route.device), "%s", count == 3 ? fields[2] : "");
    *ret_route = route;
    return 0;
}
