/* virtio-net, receiving: the backend reads a frame straight into the chains at the front of the window. */
#include "dev/virtio_net_internal.h"

#include <string.h>

static unsigned queue_of(const struct net_rx *rx)
{
    return 2 * rx->pair;
}

static struct virtqueue *vq_of(const struct net_rx *rx)
{
    return &rx->net->device.queues[queue_of(rx)].vq;
}

/* --- the window --- */

static struct net_rx_chain *chain_at(struct net_rx *rx, unsigned index)
{
    return &rx->chains[(rx->chain_first + index) % VIRTQUEUE_SIZE_MAX];
}

static bool merges(const struct net_rx *rx)
{
    return net_has(rx->net, VIRTIO_NET_F_MRG_RXBUF);
}

/* How many bytes the next frame can have. */
static uint64_t wanted(const struct net_rx *rx)
{
    const uint64_t large = FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO6) |
                           FEATURE(NET_F_GUEST_USO4) | FEATURE(NET_F_GUEST_USO6);
    if (rx->waiting)
        return rx->waiting;
    if (rx->net->control.guest_offloads & large)
        return NET_BYTES_MAX;
    unsigned mtu = rx->net->backend->mtu ? rx->net->backend->mtu : ETH_DATA_LEN;
    return NET_HEADER + ETH_HLEN + 4 + mtu; /* 4: a VLAN tag */
}

static bool is_full(const struct net_rx *rx)
{
    if (!merges(rx))
        return rx->chain_count > 0; /* a frame is in one chain */
    return rx->bytes >= wanted(rx) || rx->part_count >= NET_RX_PARTS;
}

/* Its parts to the front of the array, when those behind have no room for another chain and the overflow. */
static void make_room(struct net_rx *rx)
{
    if (rx->part_first + rx->part_count + NET_IOV_MAX < ARRAY_SIZE(rx->iov))
        return;
    memmove(rx->iov, &rx->iov[rx->part_first], rx->part_count * sizeof(*rx->iov));
    rx->part_first = 0;
}

/* 1: a chain was added; 0: there is none; -EPROTO with a message. */
static int add_chain(struct net_rx *rx)
{
    struct virtq_chain chain;
    make_room(rx);
    int r = virtqueue_pop(vq_of(rx), &rx->iov[rx->part_first + rx->part_count], NET_IOV_MAX, &chain);
    if (r != 1)
        return r;
    if (chain.readable || chain.writable_bytes < NET_HEADER) {
        virtqueue_unpop(vq_of(rx), 1);
        return fail(-EPROTO, "a buffer to receive into of %llu readable and %llu writable bytes",
                    (unsigned long long)chain.readable_bytes, (unsigned long long)chain.writable_bytes);
    }
    *chain_at(rx, rx->chain_count++) = (struct net_rx_chain){
        .head = chain.head, .parts = (uint16_t)chain.writable, .bytes = (uint32_t)chain.writable_bytes};
    rx->part_count += chain.writable;
    rx->bytes += chain.writable_bytes;
    return 1;
}

/* Kicks are on only while the driver has not offered enough. */
static int fill_window(struct net_rx *rx)
{
    do {
        virtqueue_disable_kicks(vq_of(rx));
        int r = 1;
        while (r == 1 && !is_full(rx))
            r = add_chain(rx);
        if (r != 0)
            return r < 0 ? r : 0;
    } while (virtqueue_enable_kicks(vq_of(rx)));
    return 0;
}

/* The chain at the front is used up. */
static void drop_first(struct net_rx *rx)
{
    const struct net_rx_chain *chain = chain_at(rx, 0);
    rx->part_first += chain->parts;
    rx->part_count -= chain->parts;
    rx->bytes -= chain->bytes;
    rx->chain_first = (rx->chain_first + 1) % VIRTQUEUE_SIZE_MAX;
    rx->chain_count--;
}

/* --- a frame --- */

/* Copies to `offset` bytes behind the window's begin, where there is room for it. */
static void put(const struct net_rx *rx, uint64_t offset, const uint8_t *bytes, size_t length)
{
    for (unsigned i = rx->part_first; length > 0; i++) {
        const struct iovec *part = &rx->iov[i];
        if (offset >= part->iov_len) {
            offset -= part->iov_len;
            continue;
        }
        size_t fits = MIN(length, part->iov_len - offset);
        memcpy((uint8_t *)part->iov_base + offset, bytes, fits);
        bytes += fits;
        length -= fits;
        offset = 0;
    }
}

/* Gives the chains that the frame of `bytes` lies in to the driver, all at once. */
static void deliver(struct net_rx *rx, uint32_t bytes)
{
    struct virtio_net *net = rx->net;
    uint16_t count = 0;
    for (uint64_t reached = 0; reached < bytes; count++)
        reached += chain_at(rx, count)->bytes;
    put(rx, offsetof(struct virtio_net_hdr_v1, num_buffers), (const uint8_t *)&count, sizeof(count));
    uint32_t left = bytes;
    for (unsigned i = 0; i < count; i++) {
        const struct net_rx_chain *chain = chain_at(rx, 0);
        uint32_t written = MIN(left, chain->bytes);
        virtio_fill(&net->device, queue_of(rx), chain->head, written);
        left -= written;
        drop_first(rx);
    }
    virtio_publish(&net->device, queue_of(rx));
    net->counters.rx_frames++;
    net->counters.rx_bytes += bytes - NET_HEADER;
}

static void drop(struct net_rx *rx)
{
    rx->waiting = 0;
    rx->net->counters.rx_dropped++;
}

/* A frame was longer than the window. It gets the rest of its room now, or waits for the driver; not for
 * ever: if all that the queue can hold is too little, it is dropped. */
static int deliver_waiting(struct net_rx *rx)
{
    uint64_t had = rx->bytes; /* where the read went on in the overflow */
    int r = merges(rx) ? fill_window(rx) : 0;
    if (r < 0)
        return r;
    if (rx->bytes > had)
        put(rx, had, rx->overflow, MIN(rx->bytes, rx->waiting) - had);
    if (rx->bytes >= rx->waiting) {
        deliver(rx, rx->waiting);
        rx->waiting = 0;
    } else if (!merges(rx) || rx->part_count >= NET_RX_PARTS || vq_of(rx)->in_flight == vq_of(rx)->size) {
        drop(rx);
    } else {
        memmove(rx->overflow, rx->overflow + (rx->bytes - had), rx->waiting - rx->bytes);
    }
    return 0;
}

static void received(struct net_io *io, int result)
{
    struct net_rx *rx = container_of(io, struct net_rx, io);
    struct virtio_net *net = rx->net;
    if (result >= (int)(NET_HEADER + ETH_HLEN)) {
        rx->unpaid = (uint32_t)result - NET_HEADER;
        if ((uint64_t)result > rx->bytes)
            rx->waiting = (uint32_t)result;
        else
            deliver(rx, (uint32_t)result);
    } else if (result >= 0) {
        net->counters.rx_dropped++;
    } else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
        net->counters.rx_dropped += result == -EBADMSG; /* the other side speaks nonsense */
        net_backend_lost(net);
    }
    if (net->device.state == VIRTIO_RUNNING)
        net_rx_go(rx);
    else
        net_end_quiesce(&net->device);
}

static int receive(struct net_rx *rx)
{
    struct virtio_net *net = rx->net;
    int r = rx->waiting ? deliver_waiting(rx) : 0;
    if (r < 0 || rx->waiting)
        return r;
    if (rx->unpaid) {
        if (virtio_limiter_take(&rx->limiter, rx->unpaid) < 0)
            return 0; /* the queue is kicked when it may */
        rx->unpaid = 0;
    }
    r = fill_window(rx);
    if (r < 0 || rx->chain_count == 0)
        return r;
    unsigned count = rx->part_count;
    if (rx->bytes < NET_BYTES_MAX) {
        rx->iov[rx->part_first + count] = (struct iovec){.iov_base = rx->overflow, .iov_len = NET_BYTES_MAX};
        count++;
    }
    rx->io.done = received;
    net->backend->ops->receive(net->backend, rx->pair, &rx->io, &rx->iov[rx->part_first], count);
    return 0;
}

void net_rx_go(struct net_rx *rx)
{
    struct virtio_net *net = rx->net;
    if (net->device.state != VIRTIO_RUNNING || rx->io.busy || net->lost || !net->link_up ||
        rx->pair >= net->control.pairs || !vq_of(rx)->ready)
        return;
    if (receive(rx) < 0)
        virtio_fail_device(&net->device);
}

/* --- life --- */

void net_rx_stop(struct net_rx *rx)
{
    if (rx->io.busy)
        rx->net->backend->ops->cancel(rx->net->backend, &rx->io);
    virtio_limiter_stop(&rx->limiter);
}

void net_rx_settle(struct net_rx *rx)
{
    if (rx->waiting)
        drop(rx);
    if (vq_of(rx)->ready)
        virtqueue_unpop(vq_of(rx), (uint16_t)rx->chain_count);
    rx->chain_first = rx->chain_count = rx->part_first = rx->part_count = 0;
    rx->bytes = 0;
}

int net_rx_init(struct net_rx *rx, struct virtio_net *net, unsigned pair)
{
    *rx = (struct net_rx){.net = net, .pair = pair};
    rx->overflow = malloc(NET_BYTES_MAX);
    if (!rx->overflow)
        return fail(-ENOMEM, "no memory for a network card");
    virtio_limiter_init(&rx->limiter, &net->device, queue_of(rx), net_end_quiesce);
    rx->limiter.rate = &net->rx_rate;
    return 0;
}

void net_rx_free(struct net_rx *rx)
{
    free(rx->overflow);
}
