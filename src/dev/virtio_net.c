/*
 * virtio-net (virtio 1.2, 5.1): the device's life, its configuration space, and what ends at the backend of
 * all that the driver may set.
 *
 *   transmit: a chain is a frame ──► header copied and checked ──► one write of the guest's own buffers
 *   receive:  one read waits in the ring, into the guest's own buffers, for 64 KiB of them (virtio_net_rx.c)
 *
 * All reads and writes of a turn reach the kernel with one submission.
 */
#include "dev/virtio_net_internal.h"

#include "base/log.h"

#include <linux/if_tun.h>
#include <linux/virtio_ids.h>
#include <string.h>

#ifndef TUN_F_USO4 /* since Linux 6.2 */
#define TUN_F_USO4 0x20u
#define TUN_F_USO6 0x40u
#endif

/* What the backend may leave to the other side of it, feature by feature, in both directions. */
static const struct {
    net_offloads offload;
    uint8_t guest, host; /* features; 0xff: none of its own */
} offload_features[] = {
    {TUN_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_CSUM},
    {TUN_F_TSO4, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4},
    {TUN_F_TSO6, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO6},
    {TUN_F_TSO_ECN, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_HOST_ECN},
    {TUN_F_USO4, NET_F_GUEST_USO4, NET_F_HOST_USO},
    {TUN_F_USO6, NET_F_GUEST_USO6, NET_F_HOST_USO},
};

/* --- configuration space --- */

static struct virtio_net_config config_of(const struct virtio_net *net)
{
    struct virtio_net_config config = {
        .status = (uint16_t)((net->link_up ? VIRTIO_NET_S_LINK_UP : 0) |
                             (net->announcing ? VIRTIO_NET_S_ANNOUNCE : 0)),
        .max_virtqueue_pairs = (uint16_t)net->max_pairs,
        .mtu = (uint16_t)net->backend->mtu,
    };
    memcpy(config.mac, net->control.mac, ETH_ALEN);
    return config;
}

/* Shows the address and the status, which are what may change. */
void net_show_config(struct virtio_net *net)
{
    const struct virtio_net_config config = config_of(net);
    uint32_t words[2], shown;
    memcpy(words, &config, sizeof(words));
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
        shown = atomic_load(&net->device.reg_page->config[i]);
        if (shown != words[i])
            virtio_set_config_word(&net->device, i * 4, words[i]);
    }
}

void virtio_net_set_link(struct virtio_device *device, bool up)
{
    struct virtio_net *net = net_of(device);
    if (net->link_up == up)
        return;
    net->link_up = up;
    log_warn("%s: the link is %s", device->label, up ? "up" : "down");
    net_show_config(net);
    for (unsigned i = 0; up && i < net->max_pairs; i++)
        net_rx_go(&net->rx[i]);
}

void virtio_net_announce(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    if (!net_has(net, VIRTIO_NET_F_GUEST_ANNOUNCE) || !net->link_up)
        return;
    net->announcing = true;
    net_show_config(net);
}

/* --- what the driver has set --- */

int net_apply_control(struct virtio_net *net)
{
    net_offloads offloads = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(offload_features); i++)
        if (net->control.guest_offloads & FEATURE(offload_features[i].guest))
            offloads |= offload_features[i].offload;
    int r = net->backend->ops->set_offloads(net->backend, offloads);
    if (r == 0 && net->max_pairs > 1)
        r = net->backend->ops->set_pairs(net->backend, net->control.pairs);
    return r;
}

void net_apply_filter(struct virtio_net *net)
{
    const struct net_control *control = &net->control;
    struct net_filter filter = {
        .all = !control->filtering || control->promiscuous || control->table_overflow,
        .all_multicast = control->all_multicast,
        .count = control->unicast + control->multicast,
        .addresses = control->table,
    };
    memcpy(filter.own, control->mac, ETH_ALEN);
    if (net->backend->ops->set_filter)
        net->backend->ops->set_filter(net->backend, &filter);
}

/* As it is before a driver has set anything; no pair is in use. */
static void reset_control(struct virtio_net *net)
{
    net->control = (struct net_control){0};
    memcpy(net->control.mac, net->mac, ETH_ALEN);
    net->announcing = false;
}

/* --- the backend is gone, and there again --- */

void net_backend_lost(struct virtio_net *net)
{
    if (net->lost)
        return;
    net->lost = true;
    virtio_net_set_link(&net->device, false);
    if (net->observer.lost)
        net->observer.lost(net->observer.context);
}

void virtio_net_observe(struct virtio_device *device, const struct virtio_net_observer *observer)
{
    net_of(device)->observer = *observer;
}

void virtio_net_retry(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    net->lost = false;
    for (unsigned i = 0; i < net->max_pairs; i++)
        net_rx_go(&net->rx[i]);
}

/* --- the core's calls --- */

static unsigned control_queue(const struct virtio_net *net)
{
    return net_has(net, VIRTIO_NET_F_MQ) ? 2 * net->max_pairs : 2;
}

static void net_start(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    if (net->control.pairs == 0) { /* the driver has just begun */
        net->control.pairs = 1;
        net->control.guest_offloads = device->features & NET_GUEST_OFFLOADS;
    }
    if (net_apply_control(net) < 0) {
        log_warn("%s: %s", device->label, fail_text());
        net_backend_lost(net);
    }
    net_apply_filter(net);
    if (net->announce_at_start)
        virtio_net_announce(device);
    net->announce_at_start = false;
    for (unsigned i = 0; i < net->max_pairs; i++)
        net_rx_go(&net->rx[i]);
}

static int net_take(struct virtio_device *device, unsigned q, struct virtq_chain *chain)
{
    struct virtio_net *net = net_of(device);
    if (q == control_queue(net))
        return net_control_take(net, q, chain);
    return net_tx_take(&net->tx[q / 2], chain);
}

static void net_kicked(struct virtio_device *device, unsigned q)
{
    struct virtio_net *net = net_of(device);
    if (q == control_queue(net) || q % 2)
        virtio_take_chains(device, q);
    else
        net_rx_go(&net->rx[q / 2]);
}

static bool is_busy(const struct virtio_net *net)
{
    for (unsigned i = 0; i < net->max_pairs; i++)
        if (net->rx[i].io.busy || net->rx[i].limiter.timer.op.in_flight || net->tx[i].in_flight ||
            net->tx[i].limiter.timer.op.in_flight)
            return true;
    return false;
}

void net_end_quiesce(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    if (device->state != VIRTIO_QUIESCING || is_busy(net))
        return;
    for (unsigned i = 0; i < net->max_pairs; i++)
        net_rx_settle(&net->rx[i]);
    if (device->forget) {
        reset_control(net);
        net_show_config(net);
    }
    virtio_quiesced(device);
}

/* Frames that come meanwhile stay in the kernel. */
static void net_quiesce(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    for (unsigned i = 0; i < net->max_pairs; i++) {
        net_rx_stop(&net->rx[i]);
        virtio_limiter_stop(&net->tx[i].limiter);
    }
    if (net->backend->ops->settle)
        net->backend->ops->settle(net->backend);
    net_end_quiesce(device);
}

static void net_free(struct virtio_net *net)
{
    for (unsigned i = 0; i < net->max_pairs; i++) {
        if (net->rx)
            net_rx_free(&net->rx[i]);
        if (net->tx)
            net_tx_free(&net->tx[i]);
    }
    free(net->rx);
    free(net->tx);
    free(net);
}

static void net_destroy(struct virtio_device *device)
{
    struct virtio_net *net = net_of(device);
    if (net->observer.closed)
        net->observer.closed(net->observer.context);
    net->backend->ops->close(net->backend);
    net_free(net);
}

/* --- saved and loaded --- */

_Static_assert(sizeof(struct net_control) == 8 + 4 + 6 + 6 + 8 + NET_MAC_TABLE_MAX * ETH_ALEN + 4 + 4,
               "no padding");

static int save_control(const void *owner, struct state_writer *to)
{
    const struct virtio_net *net = container_of(owner, struct virtio_net, device);
    state_put(to, &net->control, sizeof(net->control));
    return 0;
}

static int load_control(void *owner, struct state_reader *from, uint16_t version)
{
    struct virtio_net *net = net_of(owner);
    struct net_control control;
    (void)version; /* there is one */
    int r = state_get(from, &control, sizeof(control));
    if (r < 0)
        return r;
    if (control.pairs > net->max_pairs || control.unicast > NET_MAC_TABLE_MAX ||
        control.multicast > NET_MAC_TABLE_MAX - control.unicast || (control.mac[0] & 1) ||
        (control.guest_offloads & ~net->device.features))
        return fail(-EBADMSG, "%s: the saved state is damaged", net->device.label);
    net->control = control;
    net_show_config(net);
    net->announce_at_start = true;
    return 0;
}

/* --- making one --- */

static uint64_t features_of(const struct net_backend *backend)
{
    uint64_t features = FEATURE(VIRTIO_NET_F_MAC) | FEATURE(VIRTIO_NET_F_STATUS) |
                        FEATURE(VIRTIO_NET_F_MRG_RXBUF) | FEATURE(VIRTIO_NET_F_CTRL_VQ) |
                        FEATURE(VIRTIO_NET_F_CTRL_RX) | FEATURE(VIRTIO_NET_F_CTRL_MAC_ADDR) |
                        FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE);
    for (unsigned i = 0; i < ARRAY_SIZE(offload_features); i++)
        if (backend->offloads & offload_features[i].offload)
            features |= FEATURE(offload_features[i].guest) | FEATURE(offload_features[i].host);
    if (backend->offloads)
        features |= FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
    if (backend->pairs > 1)
        features |= FEATURE(VIRTIO_NET_F_MQ);
    if (backend->mtu)
        features |= FEATURE(VIRTIO_NET_F_MTU);
    return features;
}

static int make_pairs(struct virtio_net *net, const struct virtio_net_options *options)
{
    const unsigned count = net->backend->pairs;
    net->rx = calloc(count, sizeof(*net->rx));
    net->tx = calloc(count, sizeof(*net->tx));
    if (!net->rx || !net->tx)
        return fail(-ENOMEM, "no memory for a network card");
    net->max_pairs = count;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = net_rx_init(&net->rx[i], net, i);
        if (r == 0)
            r = net_tx_init(&net->tx[i], net, i);
    }
    if (r == 0)
        virtio_net_limit(&net->device, &options->rx, &options->tx);
    return r;
}

int virtio_net_new(struct loop *loop, struct net_backend *backend, const struct virtio_net_options *options,
                   const char *label, struct virtio_device **ret_device)
{
    static const struct state_part parts[] = {{"CTRL", 1, STATE_REQUIRED, save_control, load_control}};
    static const struct virtio_ops ops = {
        .name = "virtio-net",
        .device_id = VIRTIO_ID_NET,
        .queue_count = 2 * NET_PAIRS_MAX + 1,
        .iov_max = NET_IOV_MAX,
        .start = net_start,
        .take = net_take,
        .kicked = net_kicked,
        .quiesce = net_quiesce,
        .parts = parts,
        .part_count = ARRAY_SIZE(parts),
        .destroy = net_destroy,
    };
    if (options->mtu)
        backend->mtu = options->mtu;
    struct virtio_net *net = calloc(1, sizeof(*net));
    if (!net)
        return fail(-ENOMEM, "no memory for a network card");
    net->backend = backend;
    net->link_up = true;
    memcpy(net->mac, options->mac, ETH_ALEN);
    memcpy(net->control.mac, options->mac, ETH_ALEN);
    net->device.loop = backend->loop = loop;
    int r = make_pairs(net, options);
    if (r == 0)
        r = virtio_init(&net->device, &ops, loop, label, features_of(backend));
    if (r < 0) {
        net_free(net);
        return r;
    }
    net->device.queue_count = 2 * backend->pairs + 1;
    const struct virtio_net_config config = config_of(net);
    virtio_set_config(&net->device, &config, offsetof(struct virtio_net_config, speed));
    *ret_device = &net->device;
    return 0;
}

void virtio_net_mac(const struct virtio_device *device, uint8_t ret_mac[ETH_ALEN])
{
    memcpy(ret_mac, container_of(device, struct virtio_net, device)->mac, ETH_ALEN);
}

/* --- limits and counters --- */

void virtio_net_limit(struct virtio_device *device, const struct rate_limiter_config *rx,
                      const struct rate_limiter_config *tx)
{
    struct virtio_net *net = net_of(device);
    for (unsigned i = 0; i < net->max_pairs; i++) {
        if (rx)
            virtio_limiter_set(&net->rx[i].limiter, rx);
        if (tx)
            virtio_limiter_set(&net->tx[i].limiter, tx);
    }
}

void virtio_net_counters(const struct virtio_device *device, struct virtio_net_counters *ret_counters)
{
    *ret_counters = container_of(device, struct virtio_net, device)->counters;
}

const struct rate_limiter *virtio_net_limiter(const struct virtio_device *device, bool rx)
{
    const struct virtio_net *net = container_of(device, struct virtio_net, device);
    return rx ? &net->rx_rate : &net->tx_rate;
}
