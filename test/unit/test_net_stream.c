/* Frames over a stream: the test is the card and the peer. */
#include "net/stream.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

TestSuite(net_stream, .timeout = 30);

#define SENDS 300

static struct loop *loop;
static struct loop_timer timer;
static struct net_backend *backend;
static int peer = -1;

static struct card {
    struct net_io in;
    uint8_t frame[NET_BYTES_MAX];
    struct iovec iov[3];
    int results[10000];
    unsigned received, again; /* receives that are started from done() */
    unsigned depth, deepest;
    bool close_in_done;

    struct net_io out[SENDS];
    struct iovec out_iov[SENDS][3];
    int sent[SENDS];
    unsigned sends_done;
} card;

static uint8_t payload[NET_BYTES_MAX];

static void timed(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    loop_stop(loop, 0);
}

static void spin(void)
{
    timer.op.done = timed;
    loop_timer_start(loop, &timer, 3000000);
    cr_assert_eq(loop_run(loop), 0, "%s", fail_text());
}

static void start_receive(void)
{
    /* In odd pieces: the header across two of them. */
    card.iov[0] = (struct iovec){card.frame, 5};
    card.iov[1] = (struct iovec){card.frame + 5, 0};
    card.iov[2] = (struct iovec){card.frame + 5, sizeof(card.frame) - 5};
    backend->ops->receive(backend, 0, &card.in, card.iov, 3);
}

static void received(struct net_io *io, int result)
{
    (void)io;
    cr_assert(!card.in.busy, "still busy");
    card.depth++;
    card.deepest = MAX(card.deepest, card.depth);
    card.results[card.received++] = result;
    if (card.close_in_done)
        backend->ops->close(backend);
    else if (card.again) {
        card.again--;
        start_receive();
    }
    card.depth--;
}

static void out_done(struct net_io *io, int result)
{
    card.sent[io - card.out] = result;
    card.sends_done++;
}

static void begin(void)
{
    int ends[2];
    memset(&card, 0, sizeof(card));
    card.in.done = received;
    for (size_t i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(i * 7 + i / 256);
    cr_assert_eq(loop_new(64, &loop), 0, "%s", fail_text());
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0, "socketpair");
    cr_assert_eq(stream_adopt(ends[0], &backend), 0, "%s", fail_text());
    backend->loop = loop;
    peer = ends[1];
    fcntl(peer, F_SETFL, O_NONBLOCK);
}

static void end(void)
{
    backend->ops->close(backend);
    spin();
    loop_free(loop);
    close(peer);
}

/* The peer's side: a frame with its length, in pieces of `piece` bytes. */
static void feed(uint32_t length, size_t piece)
{
    static uint8_t bytes[4 + NET_BYTES_MAX];
    uint32_t big = htonl(length);
    memcpy(bytes, &big, 4);
    memcpy(bytes + 4, payload, length);
    for (size_t at = 0; at < length + 4;) {
        ssize_t sent = write(peer, bytes + at, MIN(piece, length + 4 - at));
        if (sent > 0)
            at += (size_t)sent;
        if (sent < 0 || piece < length)
            spin();
    }
}

/* A frame in two pieces behind a header that is cut in two. */
static void send_frame(unsigned slot, size_t bytes)
{
    static uint8_t header[NET_HEADER];
    card.out_iov[slot][0] = (struct iovec){header, 5};
    card.out_iov[slot][1] = (struct iovec){header + 5, NET_HEADER - 5};
    card.out_iov[slot][2] = (struct iovec){payload, bytes};
    card.out[slot].done = out_done;
    backend->ops->send(backend, 0, &card.out[slot], card.out_iov[slot], 3);
}

/* Reads what is there at the peer's socket, and counts whole frames; each must be one of `payload`. */
static uint8_t stream_bytes[32 << 20];
static size_t stream_length;
static unsigned drain(void)
{
    for (int quiet = 0; quiet < 5;) {
        ssize_t got = read(peer, stream_bytes + stream_length, sizeof(stream_bytes) - stream_length);
        quiet = got > 0 ? 0 : quiet + 1;
        stream_length += got > 0 ? (size_t)got : 0;
        spin();
    }
    unsigned frames = 0;
    size_t at = 0;
    while (stream_length - at >= 4) {
        uint32_t length;
        memcpy(&length, stream_bytes + at, 4);
        length = ntohl(length);
        if (stream_length - at - 4 < length)
            break;
        cr_assert(memcmp(stream_bytes + at + 4, payload, length) == 0, "frame %u is damaged", frames);
        at += 4 + length;
        frames++;
    }
    cr_assert_eq(at, stream_length, "%zu bytes are no frame", stream_length - at);
    return frames;
}

Test(net_stream, receives_in_any_pieces)
{
    static const struct {
        uint32_t length;
        size_t piece;
    } rows[] = {{14, 1}, {14, 3}, {60, 7}, {1514, 100}, {65534, 5000}, {NET_FRAME_MAX, 100000}, {42, 1000}};
    begin();
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        static const uint8_t zero[NET_HEADER];
        start_receive();
        feed(rows[i].length, rows[i].piece);
        spin();
        cr_assert_eq(card.received, i + 1, "%u bytes in pieces of %zu did not come", rows[i].length,
                     rows[i].piece);
        cr_expect_eq(card.results[i], (int)(NET_HEADER + rows[i].length), "row %zu: %d", i, card.results[i]);
        cr_expect(memcmp(card.frame, zero, NET_HEADER) == 0, "the header is not empty");
        cr_expect(memcmp(card.frame + NET_HEADER, payload, rows[i].length) == 0, "row %zu is damaged", i);
    }
    end();
}

Test(net_stream, many_at_once_do_not_nest)
{
    static uint8_t frames[5000][4 + 14];
    begin();
    for (int i = 0; i < 5000; i++)
        frames[i][3] = 14;
    cr_assert_eq(write(peer, frames, sizeof(frames)), sizeof(frames), "write");
    card.again = 4999;
    start_receive();
    for (int i = 0; i < 20 && card.received < 5000; i++)
        spin();
    cr_expect_eq(card.received, 5000, "%u came", card.received);
    cr_expect_eq(card.deepest, 1, "done() ran inside of done(), %u deep", card.deepest);
    end();
}

Test(net_stream, cuts_off_who_lies)
{
    static const uint32_t lengths[] = {0,          1,          13,         NET_FRAME_MAX + 1,
                                       0x01000000, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        char byte;
        begin();
        feed(60, 1000);
        uint32_t big = htonl(lengths[i]);
        cr_assert_eq(write(peer, &big, 4), 4, "write");
        cr_assert_eq(write(peer, payload, 1000), 1000, "write");
        card.again = 1;
        start_receive();
        spin();
        cr_expect_eq(card.received, 2, "0x%x: %u ended", lengths[i], card.received);
        cr_expect_eq(card.results[1], -EBADMSG, "0x%x: %d", lengths[i], card.results[1]);
        start_receive();
        send_frame(0, 60);
        spin();
        cr_expect_eq(card.results[2], -EPIPE, "0x%x: afterwards %d", lengths[i], card.results[2]);
        cr_expect_eq(card.sent[0], -EPIPE, "0x%x: sent %d", lengths[i], card.sent[0]);
        ssize_t got = read(peer, &byte, 1);
        cr_expect(got == 0 || (got < 0 && errno == ECONNRESET), "0x%x: its socket is open", lengths[i]);
        end();
    }
}

Test(net_stream, sends_a_turn_s_frames_in_order)
{
    begin();
    for (unsigned i = 0; i < SENDS; i++)
        send_frame(i, 14 + i * 3);
    unsigned frames = drain();
    cr_expect_eq(frames, SENDS, "%u came", frames);
    for (unsigned i = 0; i < SENDS; i++)
        cr_expect_eq(card.sent[i], (int)(NET_HEADER + 14 + i * 3), "frame %u: %d", i, card.sent[i]);
    size_t at = 0;
    for (unsigned i = 0; i < SENDS; i++) {
        uint32_t length;
        memcpy(&length, stream_bytes + at, 4);
        cr_assert_eq(ntohl(length), 14 + i * 3, "frame %u is %u long", i, ntohl(length));
        at += 4 + ntohl(length);
    }
    end();
}

Test(net_stream, waits_for_a_slow_peer)
{
    begin();
    for (unsigned i = 0; i < 200; i++)
        send_frame(i, 60000);
    spin();
    cr_expect_lt(card.sends_done, 200, "12 MB found room in a socket");
    unsigned frames = drain();
    cr_expect_eq(frames, 200, "%u came", frames);
    cr_expect_eq(card.sends_done, 200, "%u ended", card.sends_done);
    end();
}

Test(net_stream, a_peer_that_does_not_read_holds_nothing_up)
{
    begin();
    for (unsigned i = 0; i < 200; i++)
        send_frame(i, 60000);
    spin();
    backend->ops->settle(backend);
    spin();
    cr_expect_eq(card.sends_done, 200, "%u ended", card.sends_done);
    unsigned gone = 0;
    for (unsigned i = 0; i < 200; i++)
        gone += card.sent[i] > 0;
    cr_expect(gone > 0 && gone < 200 && card.sent[gone] == -ECANCELED, "%u are called sent", gone);
    for (int round = 0; round < 3; round++) {
        send_frame(200 + (unsigned)round, 100);
        backend->ops->settle(backend);
        spin();
    }
    send_frame(210, 1000);
    spin();
    unsigned frames = drain();
    cr_expect_eq(frames, gone + 1, "%u came of %u and the next", frames, gone);
    end();
}

Test(net_stream, a_cancelled_receive_ends_and_loses_nothing)
{
    begin();
    start_receive();
    spin();
    backend->ops->cancel(backend, &card.in);
    spin();
    cr_assert_eq(card.received, 1, "it waits on");
    cr_expect_eq(card.results[0], -ECANCELED, "%d", card.results[0]);
    feed(100, 1000);
    start_receive();
    spin();
    cr_expect_eq(card.results[1], NET_HEADER + 100, "%d", card.results[1]);
    end();
}

Test(net_stream, a_peer_that_goes_is_told_of)
{
    begin();
    start_receive();
    spin();
    for (unsigned i = 0; i < 100; i++)
        send_frame(i, 60000);
    spin();
    close(peer);
    spin();
    spin();
    cr_expect_eq(card.results[0], -EPIPE, "%d", card.results[0]);
    cr_expect_eq(card.sends_done, 100, "%u ended", card.sends_done);
    cr_expect_eq(card.sent[99], -EPIPE, "%d", card.sent[99]);
    peer = -1;
    end();
}

Test(net_stream, may_be_closed_by_who_is_told)
{
    begin();
    card.close_in_done = true;
    feed(60, 1000);
    feed(60, 1000);
    start_receive();
    spin();
    cr_expect_eq(card.received, 1, "%u came", card.received);
    char byte;
    ssize_t got = read(peer, &byte, 1);
    cr_expect(got == 0 || errno == ECONNRESET, "the socket is open");
    loop_free(loop);
    close(peer);
}

Test(net_stream, refuses_what_is_no_frame)
{
    begin();
    send_frame(0, 13);
    send_frame(1, 0);
    cr_expect(card.sent[0] == -EINVAL && card.sent[1] == -EINVAL, "%d, %d", card.sent[0], card.sent[1]);
    cr_expect_eq(backend->ops->set_offloads(backend, 0), 0, "no offloads");
    cr_expect_lt(backend->ops->set_offloads(backend, TUN_F_CSUM), 0, "a checksum was left to nobody");
    end();
}

Test(net_stream, cuts_a_frame_that_is_too_long_for_its_room)
{
    begin();
    feed(1000, 2000);
    feed(60, 2000);
    card.iov[0] = (struct iovec){card.frame, 100};
    backend->ops->receive(backend, 0, &card.in, card.iov, 1);
    spin();
    cr_expect_eq(card.results[0], NET_HEADER + 1000, "%d", card.results[0]);
    cr_expect(card.frame[100] == 0 && card.frame[99] == payload[99 - NET_HEADER], "it is not cut there");
    start_receive();
    spin();
    cr_expect_eq(card.results[1], NET_HEADER + 60, "the next one: %d", card.results[1]);
    end();
}
