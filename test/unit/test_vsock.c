/* vsock: both ways of connecting, data, credit, and ends of all kinds. */
#include "vsock_cases.h"

static void set_up(void)
{
    vs_new();
}
static void tear_down(void)
{
    vs_free();
}

TestSuite(vsock, .timeout = 60, .init = set_up, .fini = tear_down);

/* ---- Both ways ---- */

Test(vsock, tells_the_guest_its_address)
{
    cr_assert_eq(rig_read(VIRTIO_MMIO_CONFIG), CID, "guest_cid");
    cr_assert_eq(rig_read(VIRTIO_MMIO_CONFIG + 4), 0, "its upper half");
    cr_assert_eq(rig_read(VIRTIO_MMIO_DEVICE_ID), 19, "the kind of device");
}

Test(vsock, a_host_program_connects)
{
    uint32_t port;
    vs_start(8);
    int fd = open_from_host(52, &port);
    cr_assert(port >= 1u << 30, "port %u", port);
    cr_assert(got.header.buf_alloc == CREDIT && got.header.fwd_cnt == 0, "its credit");
    write_text(fd, "hello guest");
    expect_data("hello guest", port, 52);
    vs_send_data(52, port, "hello host", 10);
    expect_host_reads(fd, "hello host");
    close(fd);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, port, 52);
    cr_assert(got.header.flags == SHUTDOWN_BOTH, "flags %u", got.header.flags);
    vs_send(VIRTIO_VSOCK_OP_RST, 52, port, 0);
    expect_no_connections();
    expect_nothing();
}

Test(vsock, the_guest_connects)
{
    vs_start(8);
    int listener = vs_host_listen("_1234"), fd = open_from_guest(listener, 99, 1234);
    vs_send_data(99, 1234, "hello host", 10);
    expect_host_reads(fd, "hello host");
    write_text(fd, "hello guest");
    expect_data("hello guest", 1234, 99);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 1234, SHUTDOWN_BOTH);
    expect_packet(VIRTIO_VSOCK_OP_RST, 1234, 99);
    expect_host_end(fd);
    expect_no_connections();
}

Test(vsock, nobody_listens)
{
    vs_start(8);
    vs_send(VIRTIO_VSOCK_OP_REQUEST, 99, 1234, 0);
    expect_packet(VIRTIO_VSOCK_OP_RST, 1234, 99);
    cr_assert_eq(counter("refused"), 1, "counted");
    int fd = vs_host_connect("CONNECT 52\n");
    cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST, "no request");
    vs_send(VIRTIO_VSOCK_OP_RST, 52, got.header.src_port, 0);
    expect_host_end(fd);
    expect_no_connections();
}

Test(vsock, lines_that_are_no_connect)
{
    static const char *const lines[] = {
        "\n",           "CONNECT\n",        "CONNECT \n",
        "CONNECT x\n",  "CONNECT -1\n",     "CONNECT 4294967296\n",
        "CONNECT 5x\n", "GET / HTTP/1.1\n", "CONNECT 1                                           \n",
        "CONNECT52\n",
    };
    vs_start(8);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        int fd = vs_host_connect(lines[i]);
        char more;
        ssize_t n = vs_host_read(fd, &more, 1); /* an error if bytes were left unread */
        cr_assert(n == 0 || (n < 0 && errno == ECONNRESET), "'%s' was taken", lines[i]);
        close(fd);
    }
    expect_nothing();
    expect_no_connections();
}

Test(vsock, lines_that_are)
{
    static const char *const lines[] = {"connect 52\n", "CONNECT 52\r\n", "CONNECT  52 \n", " Connect 052\n"};
    vs_start(8);
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        int fd = vs_host_connect(lines[i]);
        cr_assert(vs_receive(&got) && got.header.dst_port == 52, "'%s' was not taken", lines[i]);
        vs_send(VIRTIO_VSOCK_OP_RST, 52, got.header.src_port, 0);
        close(fd);
    }
}

Test(vsock, a_line_in_pieces_with_data_behind_it)
{
    vs_start(8);
    int fd = vs_host_connect("CONN");
    rig_run(2000);
    write_text(fd, "ECT 5");
    rig_run(2000);
    write_text(fd, "2\nearly");
    cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST, "no request");
    uint32_t port = got.header.src_port;
    expect_nothing();
    vs_send(VIRTIO_VSOCK_OP_RESPONSE, 52, port, 0);
    expect_data("early", port, 52);
    close(fd);
}

Test(vsock, a_guest_that_does_not_answer)
{
    vs_start(8);
    int fd = vs_host_connect("CONNECT 52\n");
    cr_assert(vs_receive(&got) && got.header.op == VIRTIO_VSOCK_OP_REQUEST, "no request");
    expect_packet(VIRTIO_VSOCK_OP_RST, got.header.src_port, 52);
    expect_host_end(fd);
    expect_no_connections();
}

/* ---- Ends ---- */

Test(vsock, the_host_ends_its_side_first)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    write_text(fd, "last words");
    shutdown(fd, SHUT_WR);
    expect_data("last words", 7, 99);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, 99);
    cr_assert(got.header.flags == SHUTDOWN_SEND, "flags %u", got.header.flags);
    vs_send_data(99, 7, "answer", 6);
    expect_host_reads(fd, "answer");
    close(fd);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, 99);
    cr_assert(got.header.flags == SHUTDOWN_BOTH, "flags %u", got.header.flags);
    vs_send(VIRTIO_VSOCK_OP_RST, 99, 7, 0);
    expect_no_connections();
}

Test(vsock, the_guest_ends_its_side_first)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    vs_send_data(99, 7, "last words", 10);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_SEND);
    expect_host_reads(fd, "last words");
    expect_host_end(fd);
    write_text(fd, "answer");
    expect_data("answer", 7, 99);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_RCV);
    expect_packet(VIRTIO_VSOCK_OP_RST, 7, 99);
    expect_no_connections();
}

Test(vsock, the_guest_reads_no_more)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_RCV);
    rig_run(1000);
    cr_assert(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "a write");
    vs_send_data(99, 7, "still here", 10);
    expect_host_reads(fd, "still here");
    close(fd);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, 99);
}

Test(vsock, bytes_before_the_end_are_read_first)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    char text[6001];
    memset(text, 'a', sizeof(text));
    cr_assert(write(fd, text, sizeof(text)) == sizeof(text), "write");
    close(fd);
    uint32_t bytes = 0;
    while (bytes < sizeof(text)) {
        expect_packet(VIRTIO_VSOCK_OP_RW, 7, 99);
        bytes += got.header.len;
    }
    cr_assert(bytes == sizeof(text), "%u bytes", bytes);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, 99);
    /* No answer: a guest program that has not read it all yet. Then it is over all the same. */
    expect_packet(VIRTIO_VSOCK_OP_RST, 7, 99);
    expect_no_connections();
}

Test(vsock, the_host_goes_while_the_guest_sends)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    close(fd);
    vs_send_data(99, 7, "into the void", 13);
    expect_packet(VIRTIO_VSOCK_OP_SHUTDOWN, 7, 99);
    vs_send_data(99, 7, "into the void", 13);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_BOTH);
    do {
        cr_assert(vs_receive(&got), "no reset");
    } while (got.header.op != VIRTIO_VSOCK_OP_RST);
    expect_no_connections();
}

Test(vsock, what_the_guest_sent_last_arrives)
{
    static uint8_t data[CREDIT], read_back[CREDIT];
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7), small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 251);
    for (unsigned i = 0; i < 4; i++)
        vs_send_data(99, 7, data + i * 65536, 65536);
    vs_send(VIRTIO_VSOCK_OP_SHUTDOWN, 99, 7, SHUTDOWN_BOTH);
    do {
        cr_assert(vs_receive(&got), "no reset");
    } while (got.header.op != VIRTIO_VSOCK_OP_RST);
    cr_assert(vs_host_read(fd, read_back, sizeof(read_back)) == sizeof(read_back), "not all");
    cr_assert(memcmp(data, read_back, sizeof(data)) == 0, "other bytes");
    expect_host_end(fd);
    expect_no_connections();
}

Test(vsock, a_port_that_is_used_again)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), first = open_from_guest(listener, 99, 7),
        second = open_from_guest(listener, 99, 7);
    expect_host_end(first);
    vs_send_data(99, 7, "second", 6);
    expect_host_reads(second, "second");
}

/* ---- Credit ---- */

Test(vsock, a_host_program_that_reads_slowly)
{
    static uint8_t data[65536], read_back[CREDIT];
    vs_start(8);
    int listener = vs_host_listen("_7"), slow = open_from_guest(listener, 99, 7),
        other = open_from_guest(listener, 98, 7);
    uint64_t sent = 0;
    uint32_t forwarded = 0;
    /* As much as the credit allows: the socket holds some of it, the device the rest. */
    while (sent - forwarded + sizeof(data) <= CREDIT) {
        vs_send_data(99, 7, data, sizeof(data));
        sent += sizeof(data);
        while (vs_receive_in(&got, 1))
            forwarded = got.header.fwd_cnt;
    }
    cr_assert(sent > CREDIT, "the socket took nothing");
    vs_send_data(98, 7, "not held up", 11);
    expect_host_reads(other, "not held up");
    /* One byte more than it may. */
    uint32_t left = (uint32_t)(CREDIT - (sent - forwarded));
    if (left)
        vs_send_data(99, 7, data, left);
    cr_assert_eq(counter("credit_exceeded"), 0, "too early");
    while (vs_receive_in(&got, 1))
        cr_assert(got.header.fwd_cnt == forwarded, "it took more");
    cr_assert(vs_host_read(slow, read_back, sizeof(read_back)) == sizeof(read_back), "read");
    expect_packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 7, 99);
    cr_assert(got.header.fwd_cnt > forwarded, "no credit");
}

Test(vsock, a_guest_that_lies_about_its_credit)
{
    static uint8_t data[65536];
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    for (unsigned i = 0; i < 20 && !counter("credit_exceeded"); i++)
        vs_send_data(99, 7, data, sizeof(data));
    cr_assert_eq(counter("credit_exceeded"), 1, "never");
    do {
        cr_assert(vs_receive(&got), "no reset");
    } while (got.header.op != VIRTIO_VSOCK_OP_RST);
    expect_no_connections();
    close(fd);
}

Test(vsock, a_guest_program_that_reads_slowly)
{
    vs_start(8);
    int listener = vs_host_listen("_7");
    struct virtio_vsock_hdr header = vs_header(VIRTIO_VSOCK_OP_REQUEST, 99, 7);
    header.buf_alloc = 10;
    vs_send_raw(&header, sizeof(header), NULL, 0);
    expect_packet(VIRTIO_VSOCK_OP_RESPONSE, 7, 99);
    int slow = accept4(listener, NULL, NULL, SOCK_CLOEXEC), other = open_from_guest(listener, 98, 7);
    write_text(slow, "ten bytes.and the rest");
    expect_data("ten bytes.", 7, 99);
    expect_packet(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 7, 99);
    expect_nothing();
    write_text(other, "not held up");
    expect_data("not held up", 7, 98);
    header.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    header.fwd_cnt = 10;
    vs_send_raw(&header, sizeof(header), NULL, 0);
    expect_data("and the re", 7, 99);
    expect_packet(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 7, 99);
    /* A lie: more than was sent. It gets nothing for it, and is not asked again and again. */
    header.fwd_cnt = 1000;
    vs_send_raw(&header, sizeof(header), NULL, 0);
    expect_nothing();
    header.fwd_cnt = 20;
    header.buf_alloc = UINT32_MAX;
    vs_send_raw(&header, sizeof(header), NULL, 0);
    expect_data("st", 7, 99);
}

/* Bytes do not go in packets that get ever smaller. If there is never more room, they go all the same. */
Test(vsock, a_guest_program_that_reads_little_by_little)
{
    char text[2000] = {0};
    vs_start(8);
    int listener = vs_host_listen("_7");
    struct virtio_vsock_hdr header = vs_header(VIRTIO_VSOCK_OP_REQUEST, 99, 7);
    header.buf_alloc = 1000;
    vs_send_raw(&header, sizeof(header), NULL, 0);
    expect_packet(VIRTIO_VSOCK_OP_RESPONSE, 7, 99);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(write(fd, text, sizeof(text)) == sizeof(text), "write");
    static const struct {
        uint32_t forwarded, bytes;
    } steps[] = {{0, 1000}, {100, 0}, {249, 0}, {250, 250}, {300, 50}};
    header.op = VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        header.fwd_cnt = steps[i].forwarded;
        if (i)
            vs_send_raw(&header, sizeof(header), NULL, 0);
        if (!steps[i].bytes) {
            expect_nothing();
            continue;
        }
        expect_packet(VIRTIO_VSOCK_OP_RW, 7, 99);
        cr_assert_eq(got.header.len, steps[i].bytes, "step %zu: %u bytes", i, got.header.len);
        expect_packet(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 7, 99);
    }
}

Test(vsock, credit_is_told_when_it_is_asked_for)
{
    vs_start(8);
    int listener = vs_host_listen("_7"), fd = open_from_guest(listener, 99, 7);
    vs_send_data(99, 7, "12345", 5);
    expect_host_reads(fd, "12345");
    vs_send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 99, 7, 0);
    expect_packet(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 7, 99);
    cr_assert(got.header.fwd_cnt == 5 && got.header.buf_alloc == CREDIT, "forwarded %u", got.header.fwd_cnt);
}
