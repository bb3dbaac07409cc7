/* vsock: buffers of all shapes, drivers that break the rules, pauses, restores, and many connections. */
#include "vsock_cases.h"

#include <sys/resource.h>

static void set_up(void)
{
    vs_new();
}
static void tear_down(void)
{
    vs_free();
}

TestSuite(vsock_rules, .timeout = 60, .init = set_up, .fini = tear_down);

/* ---- Buffers ---- */

Test(vsock_rules, a_guest_without_buffers)
{
    vs_start(0);
    int listener = vs_host_listen("_7");
    vs_send(VIRTIO_VSOCK_OP_REQUEST, 99, 7, 0);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    write_text(fd, "waits");
    /* More answers than are kept. */
    for (unsigned i = 0; i < 1100; i++)
        vs_send(VIRTIO_VSOCK_OP_RW, 1000 + i, 8, 0);
    cr_assert_eq(counter("resets_lost"), 1100 - 1024, "lost");
    vs_add_buffers(RX, RX_AT, vs.rx_bytes, 8);
    for (unsigned i = 0; i < 1024; i++)
        expect_packet(VIRTIO_VSOCK_OP_RST, 8, 1000 + i);
    expect_packet(VIRTIO_VSOCK_OP_RESPONSE, 7, 99);
    expect_data("waits", 7, 99);
}

Test(vsock_rules, buffers_of_odd_shapes)
{
    uint32_t port;
    vs_start(0);
    for (unsigned i = 0; i < 3; i++) {
        const struct part parts[] = {{RX_AT + vs.queues[RX].next_desc * UINT64_C(0x1000), 44, true},
                                     {RX_AT + vs.queues[RX].next_desc * UINT64_C(0x1000) + 44, 3, true},
                                     {RX_AT + vs.queues[RX].next_desc * UINT64_C(0x1000) + 47, 100, true}};
        rings_add(&vs.queues[RX], parts, 3);
    }
    rig_kick(RX);
    int fd = open_from_host(52, &port);
    write_text(fd, "more than three bytes");
    expect_data("more than three bytes", port, 52);

    struct virtio_vsock_hdr header = vs_header(VIRTIO_VSOCK_OP_RW, 52, port);
    header.len = 4;
    guest_mem_write(&rig.mem, gpa(TX_AT), &header, sizeof(header));
    guest_mem_write(&rig.mem, gpa(TX_AT + sizeof(header)), "abcdef", 6);
    const struct part parts[] = {
        {TX_AT, 10, false}, {TX_AT + 10, 30, false}, {TX_AT + 40, 6, false}, {TX_AT + 46, 4, false}};
    rings_add(&vs.queues[TX], parts, 4);
    rig_kick(TX);
    expect_host_reads(fd, "abcd");
    close(fd);
}

Test(vsock_rules, a_buffer_that_holds_no_packet)
{
    vs_start(0);
    vs_add_buffers(RX, RX_AT, 44, 1);
    vs_send(VIRTIO_VSOCK_OP_RW, 99, 7, 0);
    rig_run(1000);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "status 0x%x", rig_status());
}

Test(vsock_rules, much_data_for_the_guest)
{
    static uint8_t data[1 << 20];
    uint32_t port, bytes = 0;
    vs_start(ENTRY);
    int fd = open_from_host(52, &port);
    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 13 + i / 255);
    size_t written = 0;
    while (bytes < sizeof(data)) {
        ssize_t n = write(fd, data + written, sizeof(data) - written);
        written += n > 0 ? (size_t)n : 0;
        while (vs_receive_in(&got, 1)) {
            cr_assert(got.header.op != VIRTIO_VSOCK_OP_RW ||
                          memcmp(got.data, data + bytes, got.header.len) == 0,
                      "other bytes at %u", bytes);
            bytes += got.header.len;
            if (bytes % 16384 < 4096) {
                struct virtio_vsock_hdr update = vs_header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 52, port);
                update.fwd_cnt = bytes;
                vs_send_raw(&update, sizeof(update), NULL, 0);
            }
        }
    }
    close(fd);
}

/* ---- Drivers that break the rules ---- */

Test(vsock_rules, packets_of_no_connection)
{
    static const struct {
        struct virtio_vsock_hdr header;
        int answered; /* 1 a reset, 0 nothing */
    } rows[] = {
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_RW, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_RESPONSE, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_SHUTDOWN, 3, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, 0, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, 0xffff, 0, 0, 0}, 1},
        {{CID, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_RST, 0, 0, 0}, 0},
        {{CID, 2, 99, 7, 0, 2, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, 1}, /* SEQPACKET */
        {{CID, 2, 99, 7, 0, 0, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, 1},
        {{CID, 7, 99, 7, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, 1}, /* another guest */
        {{CID, 7, 99, 7, 0, 1, VIRTIO_VSOCK_OP_RST, 0, 0, 0}, 0},
        {{9, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, 0}, /* in another's name */
        {{2, 2, 99, 7, 0, 1, VIRTIO_VSOCK_OP_REQUEST, 0, 0, 0}, 0},
        {{CID, 2, 99, 7, 1, 1, VIRTIO_VSOCK_OP_RW, 0, 0, 0}, 0}, /* a length and no bytes */
        {{CID, 2, 99, 7, UINT32_MAX, 1, VIRTIO_VSOCK_OP_RW, 0, 0, 0}, 0},
    };
    vs_start(8);
    (void)vs_host_listen("_7");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct virtio_vsock_hdr *sent = &rows[i].header;
        vs_send_raw(sent, sizeof(*sent), NULL, 0);
        if (!rows[i].answered) {
            expect_nothing();
            continue;
        }
        cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_RST, "row %zu: no reset", i);
        cr_assert(got.header.src_cid == sent->dst_cid && got.header.dst_cid == CID &&
                      got.header.src_port == 7 && got.header.dst_port == 99 && got.header.type == sent->type,
                  "row %zu: to another one", i);
    }
    vs_send_raw(&rows[0].header, 43, NULL, 0); /* cut off */
    expect_nothing();
    cr_assert_eq(counter("malformed"), 5, "%llu", (unsigned long long)counter("malformed"));
    cr_assert_eq(counter("opened"), 0, "something was opened");
    cr_assert(!(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET), "the device gave up");
}

/* On a connection that is open, and on one that was asked for: it ends. */
Test(vsock_rules, packets_out_of_state)
{
    static const uint16_t when_open[] = {0, VIRTIO_VSOCK_OP_RESPONSE, 8, 0xffff};
    static const uint16_t when_asked[] = {VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN, 0, 99};
    vs_start(8);
    int listener = vs_host_listen("_7");
    for (size_t i = 0; i < ARRAY_SIZE(when_open); i++) {
        int fd = open_from_guest(listener, 99, 7);
        vs_send(when_open[i], 99, 7, 0);
        expect_packet(VIRTIO_VSOCK_OP_RST, 7, 99);
        expect_host_end(fd);
    }
    for (size_t i = 0; i < ARRAY_SIZE(when_asked); i++) {
        int fd = vs_host_connect("CONNECT 52\n");
        cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST, "no request");
        uint32_t port = got.header.src_port;
        vs_send(when_asked[i], 52, port, 0);
        expect_packet(VIRTIO_VSOCK_OP_RST, port, 52);
        expect_host_end(fd);
    }
    int fd = open_from_guest(listener, 99, 7);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_SEND);
    vs_send_data(99, 7, "x", 1);
    expect_packet(VIRTIO_VSOCK_OP_RST, 7, 99);
    expect_host_end(fd);
    expect_no_connections();
}

Test(vsock_rules, a_storm_of_connections)
{
    vs_start(8);
    (void)vs_host_listen("_7");
    uint32_t opened = 0, refused = 0;
    for (uint32_t i = 0; i < 800; i++) {
        vs_send(VIRTIO_VSOCK_OP_REQUEST, i, 7, 0);
        while (vs_receive_in(&got, 0)) {
            opened += got.header.op == VIRTIO_VSOCK_OP_RESPONSE;
            refused += got.header.op == VIRTIO_VSOCK_OP_RST;
        }
    }
    while (opened + refused < 800) {
        cr_assert(vs_receive(&got), "%u opened, %u refused", opened, refused);
        opened += got.header.op == VIRTIO_VSOCK_OP_RESPONSE;
        refused += got.header.op == VIRTIO_VSOCK_OP_RST;
    }
    /* The listener takes 513 before its program accepts any. More fail, and nobody waits. */
    cr_assert(opened >= 512 && opened <= 514, "%u opened", opened);
    rig_write(VIRTIO_MMIO_STATUS, 0);
    expect_no_connections();
}

/* ---- Quiet times ---- */

Test(vsock_rules, an_idle_connection_costs_nothing)
{
    uint32_t port;
    vs_start(8);
    int fd = open_from_host(52, &port);
    shutdown(fd, SHUT_WR);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, port, 52);
    rig_run(5000);
    uint64_t turns = loop_counts(rig.loop).turns;
    rig_run(100000);
    cr_assert(loop_counts(rig.loop).turns - turns <= 2, "%llu turns",
              (unsigned long long)(loop_counts(rig.loop).turns - turns));
    close(fd);
}

static void set_flag(void *flag)
{
    *(bool *)flag = true;
}

static void hold(void)
{
    bool quiet = false;
    cr_assert(virtio_quiesce(rig.device, set_flag, &quiet) == 0, "%s", fail_text());
    for (unsigned i = 0; i < 1000 && !quiet; i++)
        rig_run(200);
    cr_assert(quiet, "not quiet");
}

Test(vsock_rules, a_pause_loses_nothing)
{
    static uint8_t data[65536], read_back[CREDIT];
    uint32_t port;
    vs_start(8);
    int fd = open_from_host(52, &port);
    for (unsigned i = 0; i < 4; i++)
        vs_send_data(52, port, data, sizeof(data));
    hold();
    write_text(fd, "meanwhile");
    int second = vs_host_connect("CONNECT 53\n");
    struct virtio_vsock_hdr header = vs_header(VIRTIO_VSOCK_OP_RW, 99, 7);
    guest_mem_write(&rig.mem, gpa(TX_AT), &header, sizeof(header));
    rings_add(&vs.queues[TX], &(struct part){TX_AT, sizeof(header), false}, 1); /* its kick is lost */
    rig_run(5000);
    cr_assert(counter("buffered_bytes") > 0, "nothing is kept");
    while (vs_receive_in(&got, 5))
        cr_assert(got.header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE, "op %u during the pause", got.header.op);
    virtio_resume(rig.device);
    bool data_came = false, asked = false, answered = false;
    while (!data_came || !asked || !answered) {
        cr_assert(vs_receive(&got), "nothing came after the pause");
        data_came |= got.header.op == VIRTIO_VSOCK_OP_RW && got.header.dst_port == 52;
        asked |= got.header.op == VIRTIO_VSOCK_OP_REQUEST && got.header.dst_port == 53;
        answered |= got.header.op == VIRTIO_VSOCK_OP_RST && got.header.dst_port == 99;
    }
    cr_assert(vs_host_read(fd, read_back, sizeof(read_back)) == sizeof(read_back),
              "what the guest sent before");
    rig_run(1000);
    cr_assert_eq(counter("buffered_bytes"), 0, "it is still kept");
    close(fd);
    close(second);
}

Test(vsock_rules, a_reset_of_the_driver_ends_all)
{
    uint32_t port;
    vs_start(8);
    int fd = open_from_host(52, &port), waiting = vs_host_connect("CONN");
    rig_write(VIRTIO_MMIO_STATUS, 0);
    expect_host_end(fd);
    expect_host_end(waiting);
    expect_no_connections();
    vs_start(8);
    fd = open_from_host(52, &port);
    close(fd);
}

/* The connections are gone, and the guest hears so before anything else. */
Test(vsock_rules, saved_and_loaded)
{
    struct state_writer saved = {0};
    uint32_t port;
    vs_start(8);
    int fd = open_from_host(52, &port);
    hold();
    cr_assert(virtio_save(rig.device, &saved) == 0, "%s", fail_text());
    virtio_forget(rig.device);
    cr_assert(virtio_load(rig.device, (struct state_reader){saved.bytes, saved.length}) == 0, "%s",
              fail_text());
    expect_host_end(fd);
    virtio_resume(rig.device);
    int second = vs_host_connect("CONNECT 53\n");
    expect_nothing(); /* kicks follow a resume: they are no answer to the event */
    struct rings *events = &vs.queues[EVENTS];
    cr_assert_eq(rings_used_idx(events), 1, "no event");
    struct vring_used_elem used = rings_used_elem(events, 0);
    const uint32_t *id = guest_mem_at(&rig.mem, gpa(EV_AT + used.id * UINT64_C(0x1000)), 4);
    cr_assert(used.len == 4 && *id == VIRTIO_VSOCK_EVENT_TRANSPORT_RESET, "event %u", *id);
    rig_kick(EVENTS); /* nothing new is there */
    expect_nothing();
    rings_offer(events, (uint16_t)used.id);
    rig_kick(EVENTS);
    cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST && got.header.dst_port == 53,
              "no request");
    vs_send_data(52, port, "x", 1);
    expect_packet(VIRTIO_VSOCK_OP_RST, port, 52);

    /* A pause is no restore. */
    hold();
    virtio_resume(rig.device);
    rig_run(2000);
    cr_assert_eq(rings_used_idx(events), 1, "another event");
    close(second);
    state_writer_free(&saved);
}

Test(vsock_rules, the_socket_goes_with_the_machine)
{
    struct stat status;
    cr_assert(stat(vs.path, &status) == 0 && (status.st_mode & 07777) == 0600, "mode");
    virtio_write_back(rig.device);
    cr_assert(stat(vs.path, &status) < 0, "it is still there");
}

/* ---- Many ---- */

/* More than there is memory for large buffers: the first get much credit, the others little, and all work. */
Test(vsock_rules, two_thousand_connections)
{
    enum { MANY = 2000, LARGE = 256 };
    static int fds[MANY];
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 2 * MANY + 100)
        cr_skip_test("ulimit -n is too small");
    vs_start(8);
    int listener = vs_host_listen("_7");
    for (uint32_t i = 0; i < MANY; i++) {
        fds[i] = open_from_guest(listener, i, 7);
        cr_assert_eq(got.header.buf_alloc, i < LARGE ? CREDIT : 16 * KIB, "the credit of number %u", i);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        vs_send_data(i, 7, &i, sizeof(i));
        cr_assert(write(fds[i], &i, sizeof(i)) == sizeof(i), "write");
        expect_packet(VIRTIO_VSOCK_OP_RW, 7, i);
        cr_assert_eq(*(uint32_t *)(void *)got.data, i, "another one's bytes");
        uint32_t said = 0;
        cr_assert(vs_host_read(fds[i], &said, sizeof(said)) == sizeof(said) && said == i, "said %u", said);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        close(fds[i]);
        expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, i);
        vs_send(VIRTIO_VSOCK_OP_RST, i, 7, 0);
    }
    expect_no_connections();
    close(open_from_guest(listener, 1, 7));
    cr_assert_eq(got.header.buf_alloc, CREDIT, "the memory of the first ones is free again");
}
