/* A vsock device, its driver and the host's programs in one process, for its tests and its fuzzer: on top of
 * device_rig.h. */
#pragma once

#include "dev/virtio_vsock.h"
#include "device_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/virtio_vsock.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { RX, TX, EVENTS, QUEUES };

#define CID   3u
#define CARD  FEATURE(VIRTIO_F_VERSION_1)
#define ENTRY 16u /* of each queue */
#define RX_AT RIG_DATA_AT
#define TX_AT (2 * MIB)
#define EV_AT (RIG_DATA_AT + 0x80000)

/* Bytes of the device's credit (virtio_vsock_internal.h). */
#define CREDIT (256 * KIB)

static struct vsock_rig {
    char folder[64], path[96];
    struct rings queues[QUEUES];
    uint32_t rx_bytes; /* of a buffer */
    bool keep_buffers; /* the driver does not give them back */
} vs;

/* What came to the guest. */
struct vs_packet {
    struct virtio_vsock_hdr header;
    uint8_t data[0x1000];
};

/* ---- Life ---- */

static inline void vs_new_device(void)
{
    struct unix_listener listener = {.fd = -1};
    struct virtio_device *device;
    CHECK(unix_listener_open(vs.path, true, &listener) == 0);
    int mode = fcntl(listener.fd, F_GETFL);
    CHECK(fcntl(listener.fd, F_SETFL, mode & ~O_NONBLOCK) == 0);
    const struct virtio_vsock_options options = {.guest_cid = CID, .listener = &listener, .path = vs.path};
    CHECK(virtio_vsock_new(rig.loop, &options, &device) == 0);
    rig_attach(device);
}

static inline void vs_new(void)
{
    vs = (struct vsock_rig){.rx_bytes = 0x1000};
    signal(SIGPIPE, SIG_IGN);
    snprintf(vs.folder, sizeof(vs.folder), "/tmp/vsock.XXXXXX");
    CHECK(mkdtemp(vs.folder));
    snprintf(vs.path, sizeof(vs.path), "%s/v", vs.folder);
    rig_new(16 * MIB);
    vs_new_device();
}

/* Closes the device, and removes what the host's programs left. */
static inline void vs_free(void)
{
    char name[400];
    rig_free();
    DIR *folder = opendir(vs.folder);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        snprintf(name, sizeof(name), "%s/%s", vs.folder, entry->d_name);
        unlink(name);
    }
    if (folder)
        closedir(folder);
    rmdir(vs.folder);
}

/* ---- The driver ---- */

static inline void vs_set_queue(unsigned q)
{
    rings_init(&vs.queues[q], &rig.mem, RIG_RINGS_AT + q * RINGS_BYTES, ENTRY);
    rig_write(VIRTIO_MMIO_QUEUE_SEL, q);
    rig_write(VIRTIO_MMIO_QUEUE_NUM, ENTRY);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_DESC_LOW, vs.queues[q].desc);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_AVAIL_LOW, vs.queues[q].avail);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_USED_LOW, vs.queues[q].used);
    rig_write(VIRTIO_MMIO_QUEUE_READY, 1);
}

/* Gives buffers to the device. */
static inline void vs_add_buffers(unsigned q, uint64_t at, uint32_t bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t buffer = at + vs.queues[q].next_desc * UINT64_C(0x1000);
        rings_add(&vs.queues[q], &(struct part){buffer, bytes, true}, 1);
    }
    rig_kick(q);
}

static inline void vs_start(unsigned buffers)
{
    rig_negotiate(CARD);
    for (unsigned q = 0; q < QUEUES; q++)
        vs_set_queue(q);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
    vs_add_buffers(RX, RX_AT, vs.rx_bytes, buffers);
    vs_add_buffers(EVENTS, EV_AT, 64, 4);
    rig_run(500);
}

/* The next packet, or false after `milliseconds`. */
static inline bool vs_receive_in(struct vs_packet *packet, unsigned milliseconds)
{
    struct rings *rx = &vs.queues[RX];
    for (unsigned i = 0; rings_used_idx(rx) == rx->used_seen; i++) {
        if (i >= milliseconds * 2)
            return false;
        rig_run(500);
    }
    struct vring_used_elem used = rings_used_elem(rx, rx->used_seen++);
    const uint8_t *bytes = guest_mem_at(&rig.mem, gpa(RX_AT + used.id * UINT64_C(0x1000)), 0x1000);
    memset(packet, 0, sizeof(*packet));
    memcpy(&packet->header, bytes, sizeof(packet->header));
    CHECK(used.len == sizeof(packet->header) + packet->header.len && used.len <= vs.rx_bytes);
    memcpy(packet->data, bytes + sizeof(packet->header), packet->header.len);
    if (!vs.keep_buffers) {
        rings_offer(rx, (uint16_t)used.id);
        rig_kick(RX);
    }
    return true;
}

static inline bool vs_receive(struct vs_packet *packet)
{
    return vs_receive_in(packet, 5000);
}

/* Sends a packet as it is, with `bytes` of its data there, and waits until the device has taken it. */
static inline void vs_send_raw(const void *header, uint32_t header_bytes, const void *data, uint32_t bytes)
{
    struct rings *tx = &vs.queues[TX];
    uint64_t at = TX_AT;
    guest_mem_write(&rig.mem, gpa(at), header, header_bytes);
    if (bytes)
        guest_mem_write(&rig.mem, gpa(at + 0x1000), data, bytes);
    const struct part parts[] = {{at, header_bytes, false}, {at + 0x1000, bytes, false}};
    rings_add(tx, parts, bytes ? 2 : 1);
    rig_kick(TX);
    for (unsigned i = 0; i < 5000 && rings_used_idx(tx) != tx->avail_idx; i++)
        rig_run(100);
    CHECK(rings_used_idx(tx) == tx->avail_idx);
}

/* A packet's header, from the guest to the host, with room for 64 KiB. */
static inline struct virtio_vsock_hdr vs_header(uint16_t op, uint32_t guest_port, uint32_t host_port)
{
    return (struct virtio_vsock_hdr){.src_cid = CID,
                                     .dst_cid = 2,
                                     .src_port = guest_port,
                                     .dst_port = host_port,
                                     .type = VIRTIO_VSOCK_TYPE_STREAM,
                                     .op = op,
                                     .buf_alloc = 65536};
}

static inline void vs_send(uint16_t op, uint32_t guest_port, uint32_t host_port, uint32_t flags)
{
    struct virtio_vsock_hdr header = vs_header(op, guest_port, host_port);
    header.flags = flags;
    vs_send_raw(&header, sizeof(header), NULL, 0);
}

static inline void vs_send_data(uint32_t guest_port, uint32_t host_port, const void *data, uint32_t bytes)
{
    struct virtio_vsock_hdr header = vs_header(VIRTIO_VSOCK_OP_RW, guest_port, host_port);
    header.len = bytes;
    vs_send_raw(&header, sizeof(header), data, bytes);
}

/* ---- Programs of the host ---- */

static inline struct sockaddr_un vs_address(const char *suffix)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", vs.path, suffix);
    return address;
}

static inline int vs_host_connect(const char *line)
{
    struct sockaddr_un address = vs_address("");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    rig_run(500);
    return fd;
}

static inline int vs_host_listen(const char *port)
{
    struct sockaddr_un address = vs_address(port);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 512) == 0);
    return fd;
}

/* Reads `bytes`, or to the end; how many came. -1: an error, or nothing came for five seconds. */
static inline ssize_t vs_host_read(int fd, void *to, size_t bytes)
{
    size_t got = 0;
    for (unsigned i = 0; i < 10000 && got < bytes; i++) {
        ssize_t n = recv(fd, (uint8_t *)to + got, bytes - got, MSG_DONTWAIT);
        if (n == 0)
            return (ssize_t)got;
        if (n < 0 && errno != EAGAIN)
            return -1;
        if (n < 0)
            rig_run(500);
        else
            got += (size_t)n;
    }
    return got == bytes ? (ssize_t)got : -1;
}
