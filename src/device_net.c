/* Network cards. What is behind one on the host: net/config.h. */
#include "devices.h"
#include "nic.h"

#include <stdio.h>
#include <string.h>

/* ---- The command line ---- */

enum { OPTION_NET = 0x240, OPTION_NET_BACKEND, OPTION_NET_BRIDGE };

static const struct argp_option options[] = {
    {"net", OPTION_NET, "tap=NAME|bridge=NAME|fd=N|passt=auto|none[,mac=MAC][,mtu=N][,queues=N][,ip=...]", 0,
     "a network card (may be given again): on a TAP; on a new TAP that is a port of a bridge; on a TAP's "
     "descriptor that was handed in; on passt, which needs no rights (tcp=8080:80 leads a port into the "
     "guest); none: plugged in nowhere. "
     "ip=ADDRESS/LENGTH (with gw=, dns=), dhcp or auto6 tell the guest its address. rx-bw, rx-ops, tx-bw and "
     "tx-ops limit it as bw and iops do a disk",
     2},
    {"net-backend", OPTION_NET_BACKEND, "virtio-net", 0, "a network card on --net-bridge", 2},
    {"net-bridge", OPTION_NET_BRIDGE, "NAME", 0, "the bridge of --net-backend (default volt0)", 2},
    {0},
};

/* --net-backend and --net-bridge together, as the first Volt had them. */
static int add_named(struct config *config)
{
    CLEANUP_FREE char *text = NULL;
    if (!config->net_backend && !config->net_bridge)
        return 0;
    if (config->net_backend && strcmp(config->net_backend, "virtio-net") != 0)
        return fail(-EINVAL, "--net-backend %s: give virtio-net", config->net_backend);
    if (asprintf(&text, "bridge=%s", config->net_bridge ? config->net_bridge : "volt0") < 0)
        return fail(-ENOMEM, "no memory for the configuration");
    return config_add_net(config, text);
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct config *config = state->input;
    int r;
    switch (key) {
    case OPTION_NET: r = config_add_net(config, argument); break;
    case OPTION_NET_BACKEND: r = config_set_text(&config->net_backend, argument); break;
    case OPTION_NET_BRIDGE: r = config_set_text(&config->net_bridge, argument); break;
    case ARGP_KEY_END: r = config ? add_named(config) : 0; break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return -r;
}

static const struct argp argp = {.options = options, .parser = parse_option};

/* ---- A configuration file ---- */

static int take_card(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"iface_id", JSON_STRING, NULL, NULL},        {"host_dev_name", JSON_STRING, NULL, NULL},
        {"guest_mac", JSON_STRING, NULL, NULL},       {"mtu", JSON_INTEGER, NULL, NULL},
        {"rx_rate_limiter", JSON_OBJECT, NULL, NULL}, {"tx_rate_limiter", JSON_OBJECT, NULL, NULL},
    };
    struct net_config net = {.kind = NET_KIND_TAP, .queues = 1};
    if (!json_is_object(value))
        return fail(-EINVAL, "network-interfaces: each must be an object");
    int r = config_take_members(config, value, "network-interfaces", keys, ARRAY_SIZE(keys));
    const char *name = json_string_value(json_object_get(value, "host_dev_name"));
    const char *mac = json_string_value(json_object_get(value, "guest_mac"));
    json_int_t mtu = json_integer_value(json_object_get(value, "mtu"));
    if (r == 0 && !name)
        r = fail(-EINVAL, "network-interfaces: one without host_dev_name");
    if (r == 0 && mtu && (mtu < 68 || mtu > 65535))
        r = fail(-EINVAL, "network-interfaces: mtu must be 68 to 65535");
    if (r == 0)
        r = net_config_set_target(&net, "host_dev_name", name);
    net.mtu = (unsigned)mtu;
    net.has_mac = mac;
    if (r == 0 && mac)
        r = net_mac_parse(mac, net.mac);
    if (r == 0)
        r = config_take_limiter(json_object_get(value, "rx_rate_limiter"), &net.rx);
    if (r == 0)
        r = config_take_limiter(json_object_get(value, "tx_rate_limiter"), &net.tx);
    return r < 0 ? r : config_put_net(config, &net);
}

static int take_cards(struct config *config, const json_t *value)
{
    size_t index;
    json_t *card;
    json_array_foreach(value, index, card)
    {
        int r = take_card(config, card);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- The devices ---- */

static unsigned count(const struct config *config)
{
    return config->net_count;
}

static int make(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device)
{
    /* A VM without a name has that of its first disk. */
    CLEANUP_FREE char *path =
        !config->name && config->drive_count ? realpath(config->drives[0].path, NULL) : NULL;
    return nic_new(loop, &config->nets[index], index, config->name ? config->name : path, ret_device);
}

const struct device_kind device_net = {
    .section = {"network-interfaces", JSON_ARRAY, take_cards, NULL},
    .argp = &argp,
    .count = count,
    .make = make,
};
