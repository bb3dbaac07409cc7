/* virtio-net, the control queue (virtio 1.2, 5.1.6.5): what the driver wants to receive, and how. */
#include "dev/virtio_net_internal.h"

#include <string.h>

/* The longest command: two tables of the addresses that we keep, and as much again of those that we do
 * not. */
#define COMMAND_MAX 4096u

/* The rest of a command, behind its header. */
struct command {
    const uint8_t *at;
    size_t length;
};

static bool take(struct command *command, void *to, size_t length)
{
    if (length > command->length)
        return false;
    memcpy(to, command->at, length);
    command->at += length;
    command->length -= length;
    return true;
}

static bool set_rx_mode(struct virtio_net *net, unsigned which, struct command *command)
{
    struct net_control *control = &net->control;
    uint8_t *const modes[] = {
        &control->promiscuous,  &control->all_multicast, NULL /* ALLUNI: as promiscuous */,
        &control->no_multicast, &control->no_unicast,    &control->no_broadcast};
    uint8_t on;
    if (which >= ARRAY_SIZE(modes) || !modes[which] || !take(command, &on, 1))
        return false;
    *modes[which] = on != 0;
    control->filtering = 1;
    net_apply_filter(net);
    return true;
}

/* One of the two tables of MAC_TABLE_SET: a count and so many addresses. */
static bool take_table(struct net_control *control, struct command *command, uint32_t *count)
{
    uint32_t wanted;
    if (!take(command, &wanted, sizeof(wanted)) || wanted > command->length / ETH_ALEN)
        return false;
    uint32_t have = control->unicast + control->multicast;
    if (wanted > NET_MAC_TABLE_MAX - have) {
        control->table_overflow = 1;
        command->at += (size_t)wanted * ETH_ALEN;
        command->length -= (size_t)wanted * ETH_ALEN;
        return true;
    }
    *count = wanted;
    return take(command, control->table[have], (size_t)wanted * ETH_ALEN);
}

static bool set_mac(struct virtio_net *net, unsigned which, struct command *command)
{
    struct net_control *control = &net->control;
    uint8_t mac[ETH_ALEN];
    if (which == VIRTIO_NET_CTRL_MAC_ADDR_SET) {
        if (!take(command, mac, sizeof(mac)) || (mac[0] & 1))
            return false;
        memcpy(control->mac, mac, sizeof(mac));
        net_show_config(net);
    } else if (which == VIRTIO_NET_CTRL_MAC_TABLE_SET) {
        struct net_control before = *control;
        control->unicast = control->multicast = 0;
        control->table_overflow = 0;
        if (!take_table(control, command, &control->unicast) ||
            !take_table(control, command, &control->multicast)) {
            *control = before;
            return false;
        }
        control->filtering = 1;
    } else {
        return false;
    }
    net_apply_filter(net);
    return true;
}

static bool set_pairs(struct virtio_net *net, struct command *command)
{
    uint16_t pairs;
    if (!net_has(net, VIRTIO_NET_F_MQ) || !take(command, &pairs, sizeof(pairs)) || pairs == 0 ||
        pairs > net->max_pairs)
        return false;
    uint32_t before = net->control.pairs;
    net->control.pairs = pairs;
    if (net_apply_control(net) < 0) {
        net->control.pairs = before;
        return false;
    }
    for (unsigned i = 0; i < pairs; i++)
        net_rx_go(&net->rx[i]);
    return true;
}

static bool set_offloads(struct virtio_net *net, struct command *command)
{
    uint64_t wanted, before = net->control.guest_offloads;
    if (!net_has(net, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !take(command, &wanted, sizeof(wanted)) ||
        (wanted & ~(net->device.features & NET_GUEST_OFFLOADS)))
        return false;
    net->control.guest_offloads = wanted;
    if (net_apply_control(net) == 0)
        return true;
    net->control.guest_offloads = before;
    return false;
}

static bool run(struct virtio_net *net, const struct virtio_net_ctrl_hdr *header, struct command *command)
{
    switch (header->class) {
    case VIRTIO_NET_CTRL_RX: return set_rx_mode(net, header->cmd, command);
    case VIRTIO_NET_CTRL_MAC: return set_mac(net, header->cmd, command);
    case VIRTIO_NET_CTRL_MQ: return header->cmd == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && set_pairs(net, command);
    case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return header->cmd == VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET && set_offloads(net, command);
    case VIRTIO_NET_CTRL_ANNOUNCE:
        if (header->cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK)
            return false;
        net->announcing = false;
        net_show_config(net);
        return true;
    default: return false;
    }
}

int net_control_take(struct virtio_net *net, unsigned q, struct virtq_chain *chain)
{
    struct virtio_net_ctrl_hdr header;
    uint8_t copy[COMMAND_MAX];
    if (chain->readable_bytes < sizeof(header) || chain->writable_bytes < 1)
        return fail(-EPROTO, "a command of %llu readable and %llu writable bytes",
                    (unsigned long long)chain->readable_bytes, (unsigned long long)chain->writable_bytes);
    size_t length = 0;
    for (unsigned i = 0; i < chain->readable; i++) {
        size_t part = MIN(chain->iov[i].iov_len, sizeof(copy) - length);
        memcpy(copy + length, chain->iov[i].iov_base, part);
        length += part;
    }
    struct command command = {.at = copy, .length = length};
    bool done = take(&command, &header, sizeof(header)) && chain->readable_bytes <= sizeof(copy) &&
                run(net, &header, &command);
    *(uint8_t *)chain->iov[chain->readable].iov_base = done ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    virtio_push(&net->device, q, chain->head, 1);
    return 0;
}
