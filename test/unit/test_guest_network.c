/* volt-init's reading of the command line's words about the network. Compiled from its own sources. */
#include "../../guest/init/networds.c"

#include <criterion/criterion.h>

TestSuite(networds, .timeout = 10);

/* A word as one line: what is empty is left out. */
static const char *told(const struct net_word *word)
{
    static char text[512];
    char address[INET6_ADDRSTRLEN];
    size_t at = 0;
    text[0] = '\0';
#define ADD(...) at += (size_t)snprintf(text + at, sizeof(text) - at, __VA_ARGS__)
    if (word->client.family)
        ADD("%s/%u", net_address_text(&word->client, address), word->prefix);
    if (word->gateway.family)
        ADD(" gw=%s", net_address_text(&word->gateway, address));
    for (size_t i = 0; i < ARRAY_SIZE(word->dns); i++)
        if (word->dns[i].family)
            ADD(" dns=%s", net_address_text(&word->dns[i], address));
    if (word->host[0])
        ADD(" host=%s", word->host);
    if (word->domain[0])
        ADD(" domain=%s", word->domain);
    if (word->device[0])
        ADD(" dev=%s", word->device);
    if (word->mtu)
        ADD(" mtu=%u", word->mtu);
    ADD("%s%s", word->dhcp ? " dhcp" : "", word->autoconf ? " auto6" : "");
#undef ADD
    return text[0] == ' ' ? text + 1 : text;
}

Test(networds, reads_every_form)
{
    static const struct {
        const char *word, *expected;
    } rows[] = {
        {"", ""},
        {"off", ""},
        {"none", ""},
        {"on", "dhcp"},
        {"any", "dhcp"},
        {"dhcp", "dhcp"},
        {"auto6", "auto6"},
        {"link6", ""},
        {":::::eth0", "dev=eth0 dhcp"},
        {"::::::dhcp", "dhcp"},
        {"::::vm::dhcp", "host=vm dhcp"},
        {"::::vm.lan.example::off", "host=vm domain=lan.example"},
        {":::::eth1:off", "dev=eth1"},
        {"10.9.0.2", "10.9.0.2/8"},
        {"172.16.0.2:", "172.16.0.2/16"},
        {"192.168.1.2::192.168.1.1", "192.168.1.2/24 gw=192.168.1.1"},
        {"10.9.0.2::10.9.0.1:255.255.255.0", "10.9.0.2/24 gw=10.9.0.1"},
        {"10.9.0.2::10.9.0.1:255.255.255.0::eth0:off", "10.9.0.2/24 gw=10.9.0.1 dev=eth0"},
        {"10.9.0.2::10.9.0.1:24::eth0:dhcp", "10.9.0.2/24 gw=10.9.0.1 dev=eth0"},
        {"10.9.0.2:10.9.0.9:10.9.0.1:255.255.255.0:vm:eth0:off:1.1.1.1:9.9.9.9:10.0.0.3",
         "10.9.0.2/24 gw=10.9.0.1 dns=1.1.1.1 dns=9.9.9.9 host=vm dev=eth0"},
        {"10.0.0.1:::255.255.255.255", "10.0.0.1/32"},
        {"10.0.0.1:::0.0.0.0", "10.0.0.1/0"},
        {"::::::dhcp:1.1.1.1", "dns=1.1.1.1 dhcp"},
        {"[fd09::2]", "fd09::2/64"},
        {"[fd09::2]::[fd09::1]:48:vm:eth0:none", "fd09::2/48 gw=fd09::1 host=vm dev=eth0"},
        {"[fd09::2]::[fe80::1]:64::eth0:off:[fd09::53]:1.1.1.1",
         "fd09::2/64 gw=fe80::1 dns=fd09::53 dns=1.1.1.1 dev=eth0"},
        {"eth0:dhcp", "dev=eth0 dhcp"},
        {"eth0:auto6", "dev=eth0 auto6"},
        {"eth0:on:9000", "dev=eth0 mtu=9000 dhcp"},
        {"eth0:off:1280", "dev=eth0 mtu=1280"},
        {"eth0:dhcp:", "dev=eth0 dhcp"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_word word;
        cr_expect_eq(net_word_parse(rows[i].word, &word), 0, "'%s': %s", rows[i].word, fail_text());
        cr_expect_str_eq(told(&word), rows[i].expected, "'%s' became '%s'", rows[i].word, told(&word));
    }
}

Test(networds, refuses_what_lies)
{
    static const char *const rows[] = {
        "dhpc",
        "eth0",
        "rarp",
        "bootp",
        "both",
        "dhcp6",
        "eth0:rarp",
        "10.9.0",
        "10.9.0.256",
        "10.9.0.2.3:::",
        "0.0.0.0:::24",
        "224.0.0.1:::24",
        "255.255.255.255:::24",
        "[::]:::64",
        "[ff02::1]:::64",
        "10.9.0.2:::255.0.255.0",
        "10.9.0.2:::33",
        "10.9.0.2:::-1",
        "10.9.0.2:::4294967320",
        "10.9.0.2:::2 4",
        "[fd09::2]:::129",
        "[fd09::2]:::255.255.255.0",
        "10.9.0.2::[fd09::1]:24",
        "[fd09::2]::10.9.0.1:64",
        "10.9.0.2::gateway:24",
        "10.9.0.2:nfs::24",
        "10.9.0.2:::24:-vm",
        "10.9.0.2:::24:v m",
        "10.9.0.2:::24:vm\n",
        "10.9.0.2:::24::../eth0",
        "10.9.0.2:::24::a-name-of-16-char",
        "10.9.0.2:::24::..",
        "10.9.0.2:::24::eth0:maybe",
        "10.9.0.2:::24::eth0:off:resolver",
        "10.9.0.2:::24::eth0:off:1.1.1.1:9.9.9.9:ntp",
        "10.9.0.2:::24::eth0:off:::::::",
        "[fd09::2",
        "[fd09::2]x:::64",
        "fd09::2:::64",
        "[]",
        "[",
        "eth0:dhcp:67",
        "eth0:dhcp:65536",
        "eth0:dhcp:9000x",
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_word word = {.prefix = 77};
        cr_expect_eq(net_word_parse(rows[i], &word), -EINVAL, "'%s' was taken: %s", rows[i], told(&word));
        cr_expect_eq(word.prefix, 77, "'%s' changed the result", rows[i]);
    }
}

Test(networds, refuses_what_is_too_long)
{
    static const char *const heads[] = {
        "", "10.9.0.2:::24:", "10.9.0.2:::24::", "[", "::::::", "eth0:dhcp:1"};
    char text[2 * NET_WORD_LENGTH];
    struct net_word word;
    for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
        for (size_t length = 70; length < sizeof(text) - 20; length += 37) {
            size_t head = (size_t)snprintf(text, sizeof(text), "%s", heads[i]);
            memset(text + head, 'a', length);
            text[head + length] = '\0';
            cr_expect_eq(net_word_parse(text, &word), -EINVAL, "%zu behind '%s'", length, heads[i]);
        }
}

/* No text of a few characters of the grammar leads astray (under a sanitizer that counts). */
Test(networds, survives_any_text, .timeout = 60)
{
    static const char letters[] = ":[]/.1f,d ";
    struct net_word word;
    struct net_route route;
    char text[8];
    for (unsigned long number = 0; number < 10000000; number += 7) {
        unsigned long rest = number;
        for (int i = 0; i < 7; i++, rest /= 10)
            text[i] = letters[rest % 10];
        text[7] = '\0';
        (void)net_word_parse(text, &word);
        (void)net_route_parse(text, &route);
    }
}

Test(networds, reads_routes)
{
    static const struct {
        const char *word, *network, *gateway, *device;
        unsigned prefix;
    } rows[] = {
        {"192.168.7.0/24:10.9.0.1", "192.168.7.0", "10.9.0.1", "", 24},
        {"192.168.7.0/255.255.255.0:10.9.0.1:eth1", "192.168.7.0", "10.9.0.1", "eth1", 24},
        {"192.168.7.7:10.9.0.1", "192.168.7.7", "10.9.0.1", "", 32},
        {"default:10.9.0.1:eth0", "0.0.0.0", "10.9.0.1", "eth0", 0},
        {"[fd0a::]/48:[fd09::1]", "fd0a::", "fd09::1", "", 48},
        {"[fd0a::/48]:[fd09::1]:eth0", "fd0a::", "fd09::1", "eth0", 48},
        {"default:[fe80::1]:eth0", "::", "fe80::1", "eth0", 0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_route route = {0};
        char text[INET6_ADDRSTRLEN];
        cr_assert_eq(net_route_parse(rows[i].word, &route), 0, "'%s': %s", rows[i].word, fail_text());
        cr_expect_str_eq(net_address_text(&route.network, text), rows[i].network, "'%s'", rows[i].word);
        cr_expect_str_eq(net_address_text(&route.gateway, text), rows[i].gateway, "'%s'", rows[i].word);
        cr_expect_str_eq(route.device, rows[i].device, "'%s'", rows[i].word);
        cr_expect_eq(route.prefix, rows[i].prefix, "'%s': /%u", rows[i].word, route.prefix);
    }
}

Test(networds, refuses_routes_that_lie)
{
    static const char *const rows[] = {
        "",
        "default",
        "default:",
        "default:eth0",
        "192.168.7.0/33:10.9.0.1",
        "192.168.7.0/:10.9.0.1",
        "192.168.7.0/24:[fd09::1]",
        "[fd0a::]/129:[fd09::1]",
        "192.168.7.0/24:10.9.0.1:",
        "192.168.7.0/24:10.9.0.1:eth0:more",
        "nowhere/24:10.9.0.1",
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_route route;
        cr_expect_eq(net_route_parse(rows[i], &route), -EINVAL, "'%s' was taken", rows[i]);
    }
}
