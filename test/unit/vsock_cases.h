/* What tests of vsock expect, and the connections that they begin with: on top of vsock_rig.h. */
#pragma once

#include "vsock_rig.h"

#include <criterion/criterion.h>

#define SHUTDOWN_RCV  VIRTIO_VSOCK_SHUTDOWN_RCV
#define SHUTDOWN_SEND VIRTIO_VSOCK_SHUTDOWN_SEND
#define SHUTDOWN_BOTH (SHUTDOWN_RCV | SHUTDOWN_SEND)

static struct vs_packet got;

static inline uint64_t counter(const char *name)
{
    const struct virtio_ops *ops = rig.device->ops;
    for (unsigned i = 0; i < ops->counter_count + ops->gauge_count; i++) {
        const struct virtio_counter *of =
            i < ops->counter_count ? &ops->counters[i] : &ops->gauges[i - ops->counter_count];
        if (strcmp(of->name, name) == 0)
            return *(const uint64_t *)(const void *)((const char *)rig.device + of->offset);
    }
    cr_assert_fail("no counter %s", name);
    return 0;
}

static inline void expect_packet(uint16_t op, uint32_t host_port, uint32_t guest_port)
{
    cr_assert(vs_receive(&got), "no packet of op %u", op);
    const struct virtio_vsock_hdr *header = &got.header;
    cr_assert(header->op == op, "op %u, not %u", header->op, op);
    cr_assert(header->src_cid == 2 && header->dst_cid == CID, "from CID %llu to %llu",
              (unsigned long long)header->src_cid, (unsigned long long)header->dst_cid);
    cr_assert(header->src_port == host_port && header->dst_port == guest_port, "ports %u, %u",
              header->src_port, header->dst_port);
    cr_assert(header->type == VIRTIO_VSOCK_TYPE_STREAM, "type %u", header->type);
}

static inline void expect_nothing(void)
{
    cr_assert(!vs_receive_in(&got, 10), "a packet of op %u", got.header.op);
}

static inline void expect_data(const char *text, uint32_t host_port, uint32_t guest_port)
{
    expect_packet(VIRTIO_VSOCK_OP_RW, host_port, guest_port);
    cr_assert(got.header.len == strlen(text) && memcmp(got.data, text, strlen(text)) == 0, "'%.*s', not '%s'",
              (int)got.header.len, got.data, text);
}

static inline void expect_host_reads(int fd, const char *text)
{
    char said[256] = "";
    cr_assert(vs_host_read(fd, said, strlen(text)) == (ssize_t)strlen(text), "nothing to read");
    cr_assert_str_eq(said, text, "another text");
}

static inline void expect_host_end(int fd)
{
    char more;
    cr_assert(vs_host_read(fd, &more, 1) == 0, "the socket is not at its end");
}

/* All connections are over, their memory is free. */
static inline void expect_no_connections(void)
{
    for (unsigned i = 0; i < 1000 && counter("opened") != counter("closed"); i++)
        rig_run(500);
    cr_assert(counter("opened") == counter("closed"), "%llu of %llu are over",
              (unsigned long long)counter("closed"), (unsigned long long)counter("opened"));
}

static inline void write_text(int fd, const char *text)
{
    cr_assert(write(fd, text, strlen(text)) == (ssize_t)strlen(text), "write");
}

/* A host program's connection to port `port` of the guest, which takes it: its socket and its port. */
static inline int open_from_host(uint32_t port, uint32_t *ret_host_port)
{
    char line[32], answer[32];
    snprintf(line, sizeof(line), "CONNECT %u\n", port);
    int fd = vs_host_connect(line);
    cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST, "no request");
    *ret_host_port = got.header.src_port;
    vs_send(VIRTIO_VSOCK_OP_RESPONSE, port, *ret_host_port, 0);
    snprintf(answer, sizeof(answer), "OK %u\n", *ret_host_port);
    expect_host_reads(fd, answer);
    return fd;
}

/* The guest's connection from its port to `port` of the host, where `listener` is. */
static inline int open_from_guest(int listener, uint32_t guest_port, uint32_t port)
{
    vs_send(VIRTIO_VSOCK_OP_REQUEST, guest_port, port, 0);
    expect_packet(VIRTIO_VSOCK_OP_RESPONSE, port, guest_port);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    cr_assert(fd >= 0, "nobody connected");
    return fd;
}
