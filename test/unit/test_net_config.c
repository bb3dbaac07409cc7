/* --net, MAC addresses, and TAPs where this machine has /dev/net/tun and lets us have a network of our
 * own. */
#include "net/config.h"
#include "net/link.h"
#include "net/tap.h"
#include "net/watch.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

TestSuite(net_config, .timeout = 20);

Test(net_config, everything_at_once)
{
    struct net_config config;
    cr_assert(
        net_config_parse("bridge=volt0,mac=52:54:00:12:34:56,mtu=9000,queues=4,rx-bw=10M,tx-ops=100:5:10",
                         &config) == 0,
        "%s", fail_text());
    cr_assert(config.kind == NET_KIND_BRIDGE && strcmp(config.target, "volt0") == 0, "bridge");
    cr_assert(config.has_mac && memcmp(config.mac, "\x52\x54\x00\x12\x34\x56", 6) == 0, "address");
    cr_assert(config.mtu == 9000 && config.queues == 4, "MTU and queues");
    cr_assert(config.rx.bandwidth.size == 10 * MIB && config.tx.ops.one_time_burst == 5, "limits");
    cr_assert(net_config_parse("fd=7:8:9", &config) == 0, "%s", fail_text());
    struct net_config nowhere;
    cr_assert(net_config_parse("none,mac=52:54:00:12:34:57", &nowhere) == 0 &&
                  nowhere.kind == NET_KIND_NONE && nowhere.mac[5] == 0x57,
              "plugged in nowhere");
    cr_assert(config.kind == NET_KIND_FD && config.queues == 3 && config.fds[2] == 9, "descriptors");
}

Test(net_config, what_the_guest_is_told)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"tap=a", ""},
        {"tap=a,ip=dhcp", "ip=:::::eth1:dhcp"},
        {"tap=a,ip=auto6,dns=fd09::53", "ip=:::::eth1:auto6:[fd09::53]"},
        {"tap=a,ip=10.9.0.2/24", "ip=10.9.0.2:::255.255.255.0::eth1:off"},
        {"tap=a,ip=10.9.0.2/32,gw=10.9.0.1,dns=1.1.1.1",
         "ip=10.9.0.2::10.9.0.1:255.255.255.255::eth1:off:1.1.1.1"},
        {"tap=a,ip=10.9.0.2/1", "ip=10.9.0.2:::128.0.0.0::eth1:off"},
        {"tap=a,dns=1.1.1.1,gw=fd09::1,ip=fd09:0::2/64", "ip=[fd09::2]::[fd09::1]:64::eth1:off:1.1.1.1"},
        {"tap=a,ip=fd09::2/128", "ip=[fd09::2]:::128::eth1:off"},
        {"tap=a,ip=1111:2222:3333:4444:5555:6666:7777:8888/"
         "128,gw=1111:2222:3333:4444:5555:6666:7777:9999,dns=1111:2222:"
         "3333:4444:5555:6666:7777:aaaa",
         "ip=[1111:2222:3333:4444:5555:6666:7777:8888]::[1111:2222:3333:4444:5555:6666:7777:9999]:128::eth1:"
         "off:[1111:"
         "2222:3333:4444:5555:6666:7777:aaaa]"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_config config;
        char word[NET_WORD_MAX];
        cr_assert_eq(net_config_parse(rows[i].text, &config), 0, "%s: %s", rows[i].text, fail_text());
        cr_expect_str_eq(net_config_word(&config, 1, word), rows[i].word, "%s became %s", rows[i].text, word);
    }
}

Test(net_config, passt)
{
    struct net_config config;
    cr_assert_eq(net_config_parse("passt=auto,tcp=8080:80,udp=53,tcp=127.0.0.1/2222:22,mtu=1500", &config), 0,
                 "%s", fail_text());
    cr_assert(config.kind == NET_KIND_PASST && !config.socket[0] && config.mtu == 1500, "auto");
    cr_assert_eq(config.forward_count, 3, "%u forwards", config.forward_count);
    cr_assert(!config.forwards[0].udp && config.forwards[1].udp, "kinds");
    cr_assert_str_eq(config.forwards[2].ports, "127.0.0.1/2222:22", "ports");
    cr_assert_eq(net_config_parse("passt=/run/user/1000/passt.sock", &config), 0, "%s", fail_text());
    cr_assert_str_eq(config.socket, "/run/user/1000/passt.sock", "socket");
    char many[1024] = "passt=auto";
    for (unsigned i = 0; i < NET_FORWARDS_MAX; i++)
        strcat(many, ",tcp=80");
    cr_assert_eq(net_config_parse(many, &config), 0, "%s", fail_text());
    strcat(many, ",tcp=80");
    cr_assert_lt(net_config_parse(many, &config), 0, "one too many was taken");
}

Test(net_config, no_passt_is_told_of)
{
    struct net_config config;
    struct net_port port;
    cr_assert_eq(net_config_parse("passt=/nowhere/passt.sock", &config), 0, "%s", fail_text());
    cr_expect_eq(net_port_open(&config, &port), -ENOENT, "it is connected to nothing");
    cr_expect_not_null(strstr(fail_text(), "nobody listens there"), "%s", fail_text());
    cr_assert_eq(net_config_parse("passt=auto", &config), 0, "%s", fail_text());
    setenv("PATH", "/nowhere", 1);
    cr_expect_eq(net_port_open(&config, &port), -ENOENT, "it was started from nowhere");
    cr_expect_not_null(strstr(fail_text(), "apt-get install passt"), "%s", fail_text());
}

Test(net_config, refusals_say_what_and_why)
{
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"", "has no value"},
        {"tap", "has no value"},
        {"tap=a,none", "has no value"},
        {"none=1", "begin with"},
        {"tap=", "name of a link"},
        {"tap=sixteencharacters", "name of a link"},
        {"tap=a/b", "name of a link"},
        {"bridge=volt%d", "name of a link"},
        {"card=x", "begin with"},
        {"mac=52:54:00:12:34:56", "begin with"},
        {"tap=a,mac=1", "MAC address"},
        {"tap=a,mac=01:00:5e:00:00:01", "multicast"},
        {"tap=a,mtu=67", "68"},
        {"tap=a,mtu=x", "68"},
        {"tap=a,queues=0", "1 to 7"},
        {"tap=a,queues=8", "1 to 7"},
        {"fd=x", "number"},
        {"fd=1:2:3:4:5:6:7:8", "more than 7"},
        {"fd=3,queues=2", "fd=3:4"},
        {"tap=a,colour=red", "there is no 'colour'"},
        {"tap=a,rx-bw=0", "SIZE"},
        {"tap=a,ip=10.9.0.2", "ADDRESS/LENGTH"},
        {"tap=a,ip=10.9.0.2/0", "1 to 32"},
        {"tap=a,ip=10.9.0.2/33", "1 to 32"},
        {"tap=a,ip=fd09::2/129", "1 to 128"},
        {"tap=a,ip=10.9.0/24", "no address"},
        {"tap=a,ip=10.9.0.2 root=/24", "no address"},
        {"tap=a,gw=10.9.0.1", "need ip="},
        {"tap=a,ip=dhcp,gw=10.9.0.1", "of its own kind"},
        {"tap=a,ip=10.9.0.2/24,gw=fd09::1", "of its own kind"},
        {"tap=a,ip=10.9.0.2/24,dns=resolver", "no address"},
        {"passt=", "auto"},
        {"passt=/a/very/long/name/of/a/socket/that/no/address/of/a/socket/has/room/for/because/it/takes/one/"
         "hundred/and/"
         "seven",
         "107 characters"},
        {"passt=auto,queues=2", "one queue"},
        {"passt=auto,tcp=", "passt(1)"},
        {"passt=auto,tcp=--help", "passt(1)"},
        {"passt=auto,tcp=80;81", "passt(1)"},
        {"passt=auto,udp=1111111111222222222233333333334444444444555555555566666666667777", "passt(1)"},
        {"passt=/run/p,tcp=80", "only passt=auto"},
        {"tap=a,tcp=80", "only passt=auto"},
        {"tap=a,map-gw=on", "only passt=auto"},
        {"passt=auto,map-gw=yes", "on or off"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct net_config config;
        cr_assert_lt(net_config_parse(rows[i].text, &config), 0, "'%s' was taken", rows[i].text);
        cr_assert_not_null(strstr(fail_text(), rows[i].word), "'%s': %s", rows[i].text, fail_text());
    }
}

Test(net_config, an_address_is_a_name_s_own)
{
    uint8_t a[ETH_ALEN], again[ETH_ALEN], b[ETH_ALEN], second[ETH_ALEN];
    net_mac_derive("vm-a", 0, a);
    net_mac_derive("vm-a", 0, again);
    net_mac_derive("vm-b", 0, b);
    net_mac_derive("vm-a", 1, second);
    cr_assert(memcmp(a, again, ETH_ALEN) == 0, "not stable");
    cr_assert(memcmp(a, b, ETH_ALEN) != 0 && memcmp(a, second, ETH_ALEN) != 0, "not its own");
    cr_assert((a[0] & 3) == 2 && (b[0] & 3) == 2, "not locally administered, or a group's");
    net_mac_derive(NULL, 0, a);
    net_mac_derive(NULL, 0, b);
    cr_assert(memcmp(a, b, ETH_ALEN) != 0 && (a[0] & 3) == 2, "without a name it is not random");
}

Test(net_config, no_descriptor_but_a_tap_s)
{
    struct net_backend *backend;
    int fds[2];
    cr_assert(pipe(fds) == 0, "pipe");
    cr_assert_eq(tap_adopt(fds, 1, &backend), -EINVAL, "a pipe was taken");
    cr_assert_not_null(strstr(fail_text(), "no TAP"), "%s", fail_text());
}

/* --- with a network of our own, in a child --- */

static bool skip;

/* Runs `body` in a child with a user and a network namespace of its own, if this machine lets it have
 * them. */
static void in_a_network(void (*body)(void))
{
    pid_t child = fork();
    if (child == 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 || access("/dev/net/tun", R_OK | W_OK) < 0)
            _exit(77);
        body();
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    skip = WIFEXITED(status) && WEXITSTATUS(status) == 77;
    if (skip)
        cr_log_warn("skipped: no network namespace here");
    cr_assert(skip || status == 0, "status 0x%x", status);
}

static void expect(bool truth, const char *what)
{
    if (truth)
        return;
    fprintf(stderr, "%s (%s)\n", what, fail_text());
    _exit(1);
}

static void tap_made_and_gone(void)
{
    struct net_backend *backend, *second;
    struct link_info info;
    char name[IF_NAMESIZE];
    if (tap_open("tap%d", 1, name, &backend) == -EPERM)
        _exit(77);
    expect(strcmp(name, "tap0") == 0 && backend->mtu == 1500 && (backend->offloads & TUN_F_TSO4), "a TAP");
    expect(link_by_name(name, &info) == 0 && info.index > 0 && !info.up && !info.is_bridge, "its link");
    expect(tap_open(name, 1, name, &second) == -EBUSY && strstr(fail_text(), "in use"), "opened twice");
    expect(link_join(info.index, 0, 2000, name) == 0, "set up");
    expect(link_by_index(info.index, &info) == 0 && info.up && info.mtu == 2000, "up, with its MTU");
    backend->ops->close(backend);
    expect(link_by_name(name, &info) == -ENODEV, "it is left");
    expect(tap_open("tap7", 4, name, &backend) == 0 && backend->pairs == 4, "four queues");
    expect(backend->ops->set_pairs(backend, 1) == 0 && backend->ops->set_pairs(backend, 3) == 0, "pairs");
    backend->ops->close(backend);
}
Test(net_config, a_tap_ends_with_its_descriptors)
{
    in_a_network(tap_made_and_gone);
}

static struct loop *loop;
static struct net_port port;
static bool shown_carrier;
static void show_carrier(void *context, bool up)
{
    (void)context;
    shown_carrier = up;
    loop_stop(loop, 0);
}

static void watched(void)
{
    static const struct net_watch_ops ops = {.carrier = show_carrier};
    struct net_config config = {0};
    struct net_watch *watch;
    snprintf(config.target, sizeof(config.target), "tap0");
    config.queues = 1;
    expect(loop_new(8, &loop) == 0, "a loop");
    if (net_port_open(&config, &port) < 0)
        _exit(77);
    shown_carrier = true;
    expect(net_watch_new(loop, &config, &port, &ops, NULL, &watch) == 0, "watched");
    expect(!shown_carrier, "up before somebody sets it up");
    (void)loop_run(loop);
    expect(link_join(port.index, 0, 0, "tap0") == 0, "set up");
    (void)loop_run(loop);
    expect(shown_carrier, "the carrier does not follow");
    struct net_config bridge = {.kind = NET_KIND_BRIDGE, .target = "nobridge", .queues = 1};
    struct net_port unused;
    expect(net_port_open(&bridge, &unused) == -ENODEV &&
               strstr(fail_text(), "ip link add nobridge type bridge"),
           "the remedy");
    struct link_info info;
    expect(link_by_name("volt0", &info) == -ENODEV, "a TAP is left");
}
Test(net_config, the_carrier_follows_the_link)
{
    in_a_network(watched);
}
