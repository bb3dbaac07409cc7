/* virtio-net, transmitting: each chain is a frame, sent with the guest's own buffers behind a header of
 * ours. */
#include "dev/virtio_net_internal.h"

#include <string.h>

static struct net_tx_slot *slot_new(struct net_tx *tx)
{
    struct net_tx_slot *slot = tx->free;
    if (slot) {
        tx->free = slot->next_free;
    } else {
        CHECK(tx->fresh < VIRTQUEUE_SIZE_MAX); /* the walker lets no more be in flight */
        slot = &tx->slots[tx->fresh++];
        slot->tx = tx;
    }
    tx->in_flight++;
    return slot;
}

static unsigned queue_of(const struct net_tx *tx)
{
    return 2 * tx->pair + 1;
}

static void sent(struct net_io *io, int result)
{
    struct net_tx_slot *slot = container_of(io, struct net_tx_slot, io);
    struct net_tx *tx = slot->tx;
    struct virtio_net *net = tx->net;
    if (result < 0) {
        net->counters.tx_failed++;
        if (result == -EBADFD || result == -EPIPE)
            net_backend_lost(net);
    } else {
        net->counters.tx_frames++;
        net->counters.tx_bytes += slot->bytes;
    }
    virtio_push(&net->device, queue_of(tx), slot->head, 0);
    slot->next_free = tx->free;
    tx->free = slot;
    tx->in_flight--;
    net_end_quiesce(&net->device);
}

/* --- the header (5.1.6.2) --- */

/* The feature without which the driver must not ask for a kind of segmentation; -1: there is no such kind. */
static int feature_of(unsigned kind)
{
    switch (kind) {
    case VIRTIO_NET_HDR_GSO_TCPV4: return VIRTIO_NET_F_HOST_TSO4;
    case VIRTIO_NET_HDR_GSO_TCPV6: return VIRTIO_NET_F_HOST_TSO6;
    case NET_GSO_UDP_L4: return NET_F_HOST_USO;
    default: return -1;
    }
}

static bool segments_fit(const struct virtio_net *net, const struct virtio_net_hdr_v1 *header, uint32_t bytes)
{
    unsigned kind = header->gso_type & ~(unsigned)VIRTIO_NET_HDR_GSO_ECN;
    if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE)
        return true;
    int feature = feature_of(kind);
    if (feature < 0 || !net_has(net, (unsigned)feature))
        return false;
    if ((header->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !net_has(net, VIRTIO_NET_F_HOST_ECN))
        return false;
    return (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && header->gso_size > 0 && header->hdr_len <= bytes;
}

static bool checksum_fits(const struct virtio_net *net, const struct virtio_net_hdr_v1 *header,
                          uint32_t bytes)
{
    if (header->flags & ~(unsigned)VIRTIO_NET_HDR_F_NEEDS_CSUM)
        return false;
    if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return true;
    return net_has(net, VIRTIO_NET_F_CSUM) &&
           (uint32_t)header->csum_start + header->csum_offset + sizeof(uint16_t) <= bytes;
}

static bool frame_fits(const struct virtio_net *net, const struct virtio_net_hdr_v1 *header, uint64_t bytes)
{
    return bytes >= ETH_HLEN && bytes <= NET_FRAME_MAX && checksum_fits(net, header, (uint32_t)bytes) &&
           segments_fit(net, header, (uint32_t)bytes);
}

/* --- the queue --- */

/* Copies the header out, and sets the slot's parts: the copy, then what is behind the header in the chain. */
static unsigned set_parts(struct net_tx_slot *slot, const struct virtq_chain *chain)
{
    uint8_t *to = (uint8_t *)&slot->header;
    size_t missing = sizeof(slot->header);
    unsigned count = 0;
    slot->iov[count++] = (struct iovec){.iov_base = &slot->header, .iov_len = sizeof(slot->header)};
    for (unsigned i = 0; i < chain->readable; i++) {
        const struct iovec *part = &chain->iov[i];
        size_t taken = MIN(missing, part->iov_len);
        memcpy(to, part->iov_base, taken);
        to += taken;
        missing -= taken;
        if (taken < part->iov_len)
            slot->iov[count++] = (struct iovec){.iov_base = (uint8_t *)part->iov_base + taken,
                                                .iov_len = part->iov_len - taken};
    }
    return count;
}

int net_tx_take(struct net_tx *tx, struct virtq_chain *chain)
{
    struct virtio_net *net = tx->net;
    if (chain->writable || chain->readable_bytes < NET_HEADER)
        return fail(-EPROTO, "a frame of %llu readable and %llu writable bytes",
                    (unsigned long long)chain->readable_bytes, (unsigned long long)chain->writable_bytes);
    uint64_t bytes = chain->readable_bytes - NET_HEADER;
    if (virtio_limiter_take(&tx->limiter, bytes) < 0)
        return -EAGAIN;
    struct net_tx_slot *slot = slot_new(tx);
    unsigned count = set_parts(slot, chain);
    slot->io.done = sent;
    slot->head = chain->head;
    if (net->lost || !frame_fits(net, &slot->header, bytes)) {
        if (!net->lost)
            net->counters.tx_malformed++;
        sent(&slot->io, -EINVAL);
        return 0;
    }
    slot->bytes = (uint32_t)bytes;
    net->backend->ops->send(net->backend, tx->pair, &slot->io, slot->iov, count);
    return 0;
}

/* --- life --- */

int net_tx_init(struct net_tx *tx, struct virtio_net *net, unsigned pair)
{
    *tx = (struct net_tx){.net = net, .pair = pair};
    tx->slots = calloc(VIRTQUEUE_SIZE_MAX, sizeof(*tx->slots));
    if (!tx->slots)
        return fail(-ENOMEM, "no memory for a network card");
    virtio_limiter_init(&tx->limiter, &net->device, queue_of(tx), net_end_quiesce);
    tx->limiter.rate = &net->tx_rate;
    return 0;
}

void net_tx_free(struct net_tx *tx)
{
    free(tx->slots);
}
