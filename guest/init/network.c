/*
 * What the command line says of the network, done: addresses, routes, name servers. What cannot be done is
 * one line on the console, and the boot goes on.
 *
 * A kernel with CONFIG_IP_PNP has done the last ip= already: what is there stays, and is no failure. This
 * program is busybox's udhcpc's script as well (network_lease()), so that an image needs no shell.
 */
#include "init.h"
#include "netlink.h"
#include "resolv.h"

#include <fcntl.h>
#include <linux/if_addr.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define CARDS_MAX 32u

/* A driver that is built in, or was loaded in the initramfs, has its card long before. */
#define CARD_PATIENCE_MS 1000
/* A router advertises when it is asked to, at the latest after half a second (RFC 4861). The kernel asks
 * three times, four seconds apart. */
#define ROUTER_PATIENCE_MS 5000
#define POLL_MS            5

/* What the kernel has found out by its own ip=; only there if it can do that. */
#define KERNELS_RESOLVER "/proc/net/pnp"

struct card {
    char name[IFNAMSIZ];
    unsigned index;
    bool named, used; /* by an ip= */
};

struct network {
    int fd; /* rtnetlink */
    struct card cards[CARDS_MAX];
    unsigned card_count;
    struct resolver resolver;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* --- cards --- */

static bool is_ethernet(int fd, const char *name)
{
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    return ioctl(fd, SIOCGIFHWADDR, &request) == 0 && request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
}

static void find_cards(struct network *network)
{
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct if_nameindex *links = if_nameindex(); /* by number */
    network->card_count = 0;
    for (const struct if_nameindex *link = links; links != NULL && link->if_index != 0; link++) {
        if (network->card_count == CARDS_MAX || !is_ethernet(fd, link->if_name))
            continue;
        struct card *card = &network->cards[network->card_count++];
        *card = (struct card){.index = link->if_index};
        snprintf(card->name, sizeof(card->name), "%s", link->if_name);
    }
    if (links != NULL)
        if_freenameindex(links);
}

static struct card *card_named(struct network *network, const char *name)
{
    for (unsigned i = 0; i < network->card_count; i++)
        if (strcmp(network->cards[i].name, name) == 0)
            return &network->cards[i];
    return NULL;
}

/* The card that a word is for: the one that it names, or the next that none names. */
static struct card *card_of(struct network *network, const struct net_word *word)
{
    if (word->device[0] != '\0')
        return card_named(network, word->device);
    for (unsigned i = 0; i < network->card_count; i++)
        if (!network->cards[i].named && !network->cards[i].used)
            return &network->cards[i];
    return NULL;
}

/* The first card is the one of the default route, unless it has none. */
static unsigned metric_of(const struct network *network, const struct card *card)
{
    unsigned position = (unsigned)(card - network->cards);
    return position == 0 ? 0 : 1024 + position; /* 1024: what the kernel takes for IPv6 */
}

/* --- asking for an address --- */

/* The kernel's ip=dhcp, or an initramfs, was there before. */
static bool has_address(const char *name)
{
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_addr.sa_family = AF_INET};
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    return fd >= 0 && ioctl(fd, SIOCGIFADDR, &request) == 0;
}

static _Noreturn void become_client(const char *name, const char *host)
{
    char option[sizeof("hostname:") + NET_NAME_MAX];
    /* Five questions, one second apart; after the answer it stays in the background and renews the lease. */
    const char *arguments[] = {"udhcpc", "-n", "-t", "5", "-T", "1", "-i", name, "-s", NETWORK_LEASE_PROGRAM,
                               NULL,     NULL, NULL};
    snprintf(option, sizeof(option), "hostname:%s", host);
    if (host[0] != '\0') {
        arguments[ARRAY_SIZE(arguments) - 3] = "-x";
        arguments[ARRAY_SIZE(arguments) - 2] = option;
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd); /* its words are many; network_lease() has the console */
    execvp("udhcpc", (char *const *)arguments);
    execvp("busybox", (char *const *)arguments);
    _exit(127);
}

static void ask_by_dhcp(const struct card *card, const struct net_word *word)
{
    int status = -1;
    if (has_address(card->name))
        return;
    pid_t pid = fork();
    if (pid == 0)
        become_client(card->name, word->host);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        say("%s: this image has no udhcpc (busybox) to ask for an address with", card->name);
    else if (status != 0)
        say("%s: no answer by DHCP", card->name);
}

/* Whether it has an address that the world knows and no other machine has. */
static bool has_global_address(const char *name)
{
    CLEANUP_FREE char *text = NULL;
    if (file_text("/proc/net/if_inet6", &text) < 0)
        return false;
    char *cursor = text, *line;
    while ((line = file_line(&cursor)) != NULL) {
        unsigned long numbers[4]; /* index, prefix, scope, flags */
        char *at = line + strcspn(line, " ");
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
            numbers[i] = strtoul(at, &at, 16);
        if (numbers[2] == 0 && !(numbers[3] & IFA_F_TENTATIVE) && strcmp(at + strspn(at, " "), name) == 0)
            return true;
    }
    return false;
}

static void await_router(const struct card *card)
{
    for (int waited = 0; waited < ROUTER_PATIENCE_MS; waited += POLL_MS) {
        if (has_global_address(card->name))
            return;
        sleep_ms(POLL_MS);
    }
    say("%s: no router has advertised an IPv6 network", card->name);
}

/* --- one ip= --- */

/* A kernel that takes the last of several ip= may have given its address to the first card. */
static void take_from_others(struct network *network, const struct card *card, const struct net_word *word)
{
    if (access(KERNELS_RESOLVER, F_OK) != 0)
        return;
    for (unsigned i = 0; i < network->card_count; i++)
        if (&network->cards[i] != card)
            (void)netlink_remove_address(network->fd, network->cards[i].index, &word->client, word->prefix);
}

static void set_up(struct network *network, const struct card *card, const struct net_word *word)
{
    static const struct net_address everything;
    char text[INET6_ADDRSTRLEN];
    int r = netlink_set_up(network->fd, card->index, word->mtu);
    if (r < 0 && word->mtu != 0) {
        say("%s: MTU %u: %s", card->name, word->mtu, strerror(-r));
        r = netlink_set_up(network->fd, card->index, 0);
    }
    if (r < 0)
        say("%s: cannot set it up: %s", card->name, strerror(-r));
    if (word->client.family != AF_UNSPEC) {
        take_from_others(network, card, word);
        r = netlink_add_address(network->fd, card->index, &word->client, word->prefix);
        if (r < 0)
            say("%s: address %s: %s", card->name, net_address_text(&word->client, text), strerror(-r));
    }
    if (word->gateway.family != AF_UNSPEC && word->client.family != AF_UNSPEC) {
        r = netlink_set_route(network->fd, card->index, &everything, 0, &word->gateway,
                              metric_of(network, card));
        if (r < 0)
            say("%s: gateway %s: %s", card->name, net_address_text(&word->gateway, text), strerror(-r));
    }
}

static void set_name(const struct net_word *word)
{
    if (word->host[0] != '\0' && sethostname(word->host, strlen(word->host)) != 0)
        say("host name %s: %s", word->host, strerror(errno));
    if (word->domain[0] != '\0')
        (void)setdomainname(word->domain, strlen(word->domain));
}

static void do_word(struct network *network, const struct net_word *word)
{
    struct card *card = card_of(network, word);
    if (card == NULL) {
        say("ip=: there is no network card %s", word->device[0] == '\0' ? "for it" : word->device);
        return;
    }
    card->used = true;
    set_up(network, card, word);
    if (word->dhcp)
        ask_by_dhcp(card, word);
    if (word->autoconf)
        await_router(card);
}

static void do_route(struct network *network, const char *text)
{
    struct net_route route;
    if (net_route_parse(text, &route) < 0) {
        say("rd.route=: %s", fail_text());
        return;
    }
    const struct card *card = route.device[0] != '\0'   ? card_named(network, route.device)
                              : network->card_count > 0 ? network->cards
                                                        : NULL;
    int r = card == NULL ? -ENODEV
                         : netlink_set_route(network->fd, card->index, &route.network, route.prefix,
                                             &route.gateway, 0);
    if (r < 0)
        say("rd.route=%.80s: %s", text, strerror(-r));
}

/* --- name servers --- */

static void take_server(const char *text, struct resolver *resolver, bool say_why)
{
    char copy[INET6_ADDRSTRLEN + 2];
    struct net_address server;
    size_t length = strlen(text);
    if (length > 2 && length < sizeof(copy) && text[0] == '[' && text[length - 1] == ']') {
        snprintf(copy, sizeof(copy), "%.*s", (int)length - 2, text + 1);
        text = copy;
    }
    if (net_address_parse(text, &server))
        resolver_add(resolver, &server);
    else if (say_why)
        say("nameserver=%.80s: no address", text);
}

/* Those that the kernel has asked for, by its own ip=dhcp. */
static void take_kernels_servers(struct resolver *resolver)
{
    static const char before[] = "nameserver ";
    CLEANUP_FREE char *text = NULL;
    if (file_text(KERNELS_RESOLVER, &text) < 0)
        return;
    char *cursor = text, *line;
    while ((line = file_line(&cursor)) != NULL)
        if (strncmp(line, before, sizeof(before) - 1) == 0)
            take_server(line + sizeof(before) - 1, resolver, false);
}

/* Those that the command line names; `first` is false when it was read before, and what is wrong with it
 * said. */
static void take_servers(const struct boot_line *boot, struct resolver *resolver, bool first)
{
    struct net_word word;
    for (size_t i = 0; boot->ip[i] != NULL; i++) {
        if (net_word_parse(boot->ip[i], &word) < 0)
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(word.dns); k++)
            if (word.dns[k].family != AF_UNSPEC)
                resolver_add(resolver, &word.dns[k]);
    }
    for (size_t i = 0; boot->nameservers[i] != NULL; i++)
        take_server(boot->nameservers[i], resolver, first);
    if (first && boot->ip[0] != NULL)
        take_kernels_servers(resolver);
}

/* --- all of them --- */

/* Waits for the card of the last word that names none, and for those that are named. */
static void await_cards(struct network *network, const struct net_word *words, size_t count)
{
    for (int waited = 0;; waited += POLL_MS) {
        find_cards(network);
        bool missing = network->card_count < count;
        for (size_t i = 0; i < count; i++) {
            struct card *card = card_named(network, words[i].device);
            if (card != NULL)
                card->named = true;
            missing = missing || (words[i].device[0] != '\0' && card == NULL);
        }
        if (!missing || waited >= CARD_PATIENCE_MS)
            return;
        sleep_ms(POLL_MS);
    }
}

static bool wants_card(const struct net_word *word)
{
    return word->dhcp || word->autoconf || word->client.family != AF_UNSPEC || word->mtu != 0;
}

/* Reads the ip= words and says what is wrong with them; those that want a card are kept. */
static size_t read_words(const struct boot_line *boot, struct net_word *words)
{
    size_t count = 0;
    for (size_t i = 0; boot->ip[i] != NULL; i++) {
        if (net_word_parse(boot->ip[i], &words[count]) < 0) {
            say("ip=: %s", fail_text());
            continue;
        }
        if (boot->hostname == NULL)
            set_name(&words[count]);
        if (wants_card(&words[count]))
            count++;
    }
    return count;
}

void network_start(const struct boot_line *boot)
{
    struct net_word words[BOOT_WORDS];
    struct network network = {.fd = -1};
    size_t count = read_words(boot, words);
    take_servers(boot, &network.resolver, true);
    if (network.resolver.count > 0)
        (void)resolver_write(&network.resolver);
    if (count == 0 && boot->routes[0] == NULL)
        return;
    int r = netlink_open(&network.fd);
    if (r < 0) {
        say("ip=: this kernel has no network: %s", strerror(-r));
        return;
    }
    await_cards(&network, words, count);
    for (size_t i = 0; i < count; i++)
        do_word(&network, &words[i]);
    for (size_t i = 0; boot->routes[i] != NULL; i++)
        do_route(&network, boot->routes[i]);
    cleanup_fd(&network.fd);
}

/* --- what udhcpc calls --- */

static void give_address_back(const char *name)
{
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_addr.sa_family = AF_INET}; /* 0.0.0.0 */
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (has_address(name))
        (void)ioctl(fd, SIOCSIFADDR, &request);
}

/* The server's words, by way of udhcpc: an address, its network, a gateway. False if there is no address. */
static bool read_lease(struct net_word *word)
{
    const char *address = getenv("ip"), *mask = getenv("mask"), *mtu = getenv("mtu");
    const char *routers = getenv("router");
    char router[INET_ADDRSTRLEN];
    if (address == NULL || !net_address_parse(address, &word->client) || word->client.family != AF_INET)
        return false;
    word->prefix = 32;
    if (mask != NULL && !net_mask_parse(mask, 32, &word->prefix))
        return false;
    if (mtu != NULL && atoi(mtu) >= 576 && atoi(mtu) <= 65535)
        word->mtu = (unsigned)atoi(mtu);
    if (routers != NULL) { /* the first is the best */
        snprintf(router, sizeof(router), "%.*s", (int)MIN(strcspn(routers, " "), sizeof(router) - 1),
                 routers);
        if (!net_address_parse(router, &word->gateway) || word->gateway.family != AF_INET)
            word->gateway.family = AF_UNSPEC;
    }
    return true;
}

static void take_names(const struct boot_line *boot, struct resolver *resolver)
{
    const char *host = getenv("hostname"), *domain = getenv("domain"), *servers = getenv("dns");
    char now[NET_NAME_MAX + 1] = "";
    if (gethostname(now, sizeof(now)) == 0 && (now[0] == '\0' || strcmp(now, "(none)") == 0) &&
        host != NULL && net_name_valid(host))
        (void)sethostname(host, strlen(host));
    take_servers(boot, resolver, false);
    CLEANUP_FREE char *copy = servers == NULL ? NULL : strdup(servers);
    char *rest = copy, *text;
    while (rest != NULL && (text = strsep(&rest, " ")) != NULL)
        take_server(text, resolver, false);
    if (domain != NULL && net_name_valid(domain))
        resolver->domain = domain;
    if (resolver->count > 0)
        (void)resolver_write(resolver);
}

int network_lease(const char *event, const char *name, const struct boot_line *boot)
{
    struct network network = {.fd = -1};
    struct net_word word = {0};
    if (strcmp(event, "deconfig") == 0)
        give_address_back(name);
    if (strcmp(event, "bound") != 0 && strcmp(event, "renew") != 0)
        return 0;
    if (!read_lease(&word) || netlink_open(&network.fd) < 0) {
        say("%.15s: the lease has no address that could be used", name);
        return 1;
    }
    find_cards(&network);
    const struct card *card = card_named(&network, name);
    if (card != NULL)
        set_up(&network, card, &word);
    cleanup_fd(&network.fd);
    take_names(boot, &network.resolver);
    return 0;
}
