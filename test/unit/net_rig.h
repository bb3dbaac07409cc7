/* A network card without a host: the test plays the driver (device_rig.h, three queues) and the backend. For
 * one source file of a program. */
#pragma once

#include "dev/virtio_net.h"
#include "device_rig.h"

#include <linux/if_tun.h>
#include <linux/virtio_net.h>

enum { NET_RX, NET_TX, NET_CONTROL };

/* The backend: what was sent is kept as bytes; a receive waits until the test has a frame for it. */
struct fake_backend {
    struct net_backend backend; /* first */
    uint8_t sent[64][256];      /* the first bytes of each frame, header included */
    size_t sent_length[64];
    unsigned sent_count;
    int send_result; /* 0: all of it */
    bool keep_sends;
    struct net_io *kept[64];
    unsigned kept_count;
    struct net_io *waiting;
    struct iovec iov[512];
    unsigned iov_count;
    net_offloads offloads;
    struct net_filter filter;
    unsigned closed, pairs;
};
static struct fake_backend fake;
static struct rings net_rings[3];

static inline size_t iov_bytes(const struct iovec *iov, unsigned count)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

static void fake_send(struct net_backend *backend, unsigned pair, struct net_io *io, const struct iovec *iov,
                      unsigned count)
{
    uint8_t *to = fake.sent[fake.sent_count % 64];
    size_t room = sizeof(fake.sent[0]), length = iov_bytes(iov, count);
    (void)backend, (void)pair;
    for (unsigned i = 0; i < count && room > 0; i++) {
        size_t part = MIN(room, iov[i].iov_len);
        memcpy(to, iov[i].iov_base, part);
        to += part;
        room -= part;
    }
    fake.sent_length[fake.sent_count++ % 64] = length;
    if (fake.keep_sends)
        fake.kept[fake.kept_count++ % 64] = io;
    else
        io->done(io, fake.send_result ? fake.send_result : (int)length);
}

static void fake_receive(struct net_backend *backend, unsigned pair, struct net_io *io,
                         const struct iovec *iov, unsigned count)
{
    (void)backend, (void)pair;
    CHECK(!fake.waiting && count <= ARRAY_SIZE(fake.iov));
    io->busy = true;
    fake.waiting = io;
    memcpy(fake.iov, iov, count * sizeof(*iov));
    fake.iov_count = count;
}

static inline void fake_complete(int result)
{
    struct net_io *io = fake.waiting;
    fake.waiting = NULL;
    io->busy = false;
    io->done(io, result);
}

static void fake_cancel(struct net_backend *backend, struct net_io *io)
{
    (void)backend;
    if (fake.waiting == io)
        fake_complete(-ECANCELED);
}

static int fake_set_offloads(struct net_backend *backend, net_offloads offloads)
{
    (void)backend;
    fake.offloads = offloads;
    return 0;
}

static int fake_set_pairs(struct net_backend *backend, unsigned pairs)
{
    (void)backend;
    fake.pairs = pairs;
    return 0;
}

static void fake_set_filter(struct net_backend *backend, const struct net_filter *filter)
{
    (void)backend;
    fake.filter = *filter;
}

static void fake_close(struct net_backend *backend)
{
    (void)backend;
    fake.closed++;
}

/* A frame from the network: `length` bytes with a header of zeros before them, byte i being i. As a backend
 * does it, it is cut where the iovecs end. False if nobody receives. */
static inline bool fake_frame(size_t length)
{
    size_t at = 0, total = length + NET_HEADER;
    if (!fake.waiting)
        return false;
    for (unsigned i = 0; i < fake.iov_count; i++)
        for (size_t k = 0; k < fake.iov[i].iov_len && at < total; k++, at++)
            ((uint8_t *)fake.iov[i].iov_base)[k] = at < NET_HEADER ? 0 : (uint8_t)(at - NET_HEADER);
    fake_complete((int)at);
    return true;
}

static inline struct virtio_device *net_rig_new(net_offloads offloads, unsigned pairs)
{
    static const struct net_backend_ops ops = {
        .send = fake_send,
        .receive = fake_receive,
        .cancel = fake_cancel,
        .set_offloads = fake_set_offloads,
        .set_pairs = fake_set_pairs,
        .set_filter = fake_set_filter,
        .close = fake_close,
    };
    static const struct virtio_net_options options = {.mac = {0x52, 1, 2, 3, 4, 5}, .mtu = 1500};
    struct virtio_device *device;
    fake = (struct fake_backend){.backend = {.ops = &ops, .pairs = pairs, .offloads = offloads}};
    rig_new(8 * MIB);
    CHECK(virtio_net_new(rig.loop, &fake.backend, &options, "net 0", &device) == 0);
    rig_attach(device);
    return device;
}

/* The driver's set-up, with three queues of `size` entries. */
static inline void net_rig_start(uint64_t features, uint16_t size)
{
    rig_negotiate(features);
    for (unsigned q = 0; q < 3; q++) {
        struct rings *rings = &net_rings[q];
        rings_init(rings, &rig.mem, RIG_RINGS_AT + q * RINGS_BYTES, size);
        rig_write(VIRTIO_MMIO_QUEUE_SEL, q);
        rig_write(VIRTIO_MMIO_QUEUE_NUM, size);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_DESC_LOW, rings->desc);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_AVAIL_LOW, rings->avail);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_USED_LOW, rings->used);
        rig_write(VIRTIO_MMIO_QUEUE_READY, 1);
    }
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
}

static inline uint8_t *net_at(uint64_t at)
{
    return rings_at(&rig.mem, gpa(at), 1);
}
