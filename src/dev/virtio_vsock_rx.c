/*
 * Packets to the guest. Who has one is in a list, and each in its turn gets the buffers of one burst: a
 * connection with much to say does not hold up the others, and one whose guest program does not read is not
 * in the list. What is owed is bits of the connection, so that a guest without buffers costs no memory.
 */
#include "dev/virtio_vsock_internal.h"

#include <string.h>
#include <sys/uio.h>

/* Buffers that one read may fill, and parts of one. Linux gives buffers of 4 KiB, in one part or two. */
#define BURST_MAX 16u
#define PARTS_MAX 16u

/* Packets in one turn of the loop. */
#define PACKETS_MAX 256u

#define HEADER ((uint32_t)sizeof(struct virtio_vsock_hdr))

/* A buffer of the guest's, whose first bytes are for the header. */
struct buffer {
    uint16_t head;
    unsigned parts;
    struct iovec *iov;
    uint32_t room; /* behind the header */
};

static struct virtqueue *vq_of(struct virtio_vsock *vsock)
{
    return &vsock->device.queues[VSOCK_RX].vq;
}

/* 1 a buffer, 0 none, -EPROTO with a message. `iov` has PARTS_MAX. */
static int pop(struct virtio_vsock *vsock, struct iovec *iov, struct buffer *ret_buffer)
{
    struct virtq_chain chain;
    int r = virtqueue_pop(vq_of(vsock), iov, PARTS_MAX, &chain);
    if (r != 1)
        return r;
    if (chain.readable || chain.writable_bytes <= HEADER)
        return fail(-EPROTO, "a buffer for packets of %llu readable and %llu writable bytes",
                    (unsigned long long)chain.readable_bytes, (unsigned long long)chain.writable_bytes);
    *ret_buffer = (struct buffer){.head = chain.head,
                                  .parts = chain.writable,
                                  .iov = iov,
                                  .room = (uint32_t)chain.writable_bytes - HEADER};
    return 1;
}

/* Gives a buffer back with the packet; its data, if any, is in it. */
static void give(struct virtio_vsock *vsock, const struct buffer *buffer,
                 const struct virtio_vsock_hdr *header)
{
    const uint8_t *from = (const uint8_t *)header;
    size_t left = HEADER;
    for (unsigned i = 0; left; i++) {
        size_t fits = MIN(left, buffer->iov[i].iov_len);
        memcpy(buffer->iov[i].iov_base, from, fits);
        from += fits;
        left -= fits;
    }
    virtio_push(&vsock->device, VSOCK_RX, buffer->head, HEADER + header->len);
    vsock->counters.rx_packets++;
    vsock->counters.rx_bytes += header->len;
}

/* The header of a packet of the connection. Each has the credit in it. */
static void fill_header(struct vsock_conn *conn, uint16_t op, uint32_t length, uint32_t flags,
                        struct virtio_vsock_hdr *ret_header)
{
    *ret_header = (struct virtio_vsock_hdr){
        .src_cid = VSOCK_HOST_CID,
        .dst_cid = conn->vsock->cid,
        .src_port = conn->host_port,
        .dst_port = conn->guest_port,
        .len = length,
        .type = VIRTIO_VSOCK_TYPE_STREAM,
        .op = op,
        .flags = flags,
        .buf_alloc = conn->credit,
        .fwd_cnt = conn->forwarded,
    };
    conn->forwarded_told = conn->forwarded;
    conn->owes &= ~(unsigned)OWES_CREDIT_UPDATE;
}

static void send_op(struct vsock_conn *conn, const struct buffer *buffer, uint16_t op, uint32_t flags)
{
    struct virtio_vsock_hdr header;
    fill_header(conn, op, 0, flags, &header);
    give(conn->vsock, buffer, &header);
}

/* ---- Data ---- */

/* How much the guest program has room for, as the guest says. */
static uint32_t peer_room(const struct vsock_conn *conn)
{
    uint32_t used = conn->sent - conn->peer_forwarded;
    return conn->peer_credit > used ? conn->peer_credit - used : 0;
}

/*
 * Less room than this is no reason for a packet: else a guest program that reads little by little gets its
 * bytes in ever smaller ones, with a credit update for each. Linux tells of its credit when so much is left
 * of what it told last. A driver that does not is helped on after a while (stalled).
 */
#define ROOM_MIN (uint32_t)(64 * KIB)

static bool has_room(const struct vsock_conn *conn)
{
    uint32_t room = peer_room(conn);
    return room && (conn->forced || room >= MIN(ROOM_MIN, conn->peer_credit / 4));
}

/* Waits for credit: asks for it once if there is none at all. */
static void await_credit(struct vsock_conn *conn)
{
    if (peer_room(conn) == 0 && !conn->credit_asked) {
        conn->credit_asked = true;
        conn->owes |= OWES_CREDIT_REQUEST;
    } else if (peer_room(conn) && !conn->stalled) {
        conn->stalled = true;
        vsock_conn_wait(conn);
    }
}

static void forget_stall(struct vsock_conn *conn)
{
    if (conn->stalled)
        vsock_conn_go_on(conn);
    conn->stalled = conn->forced = conn->credit_asked = false;
}

static bool wants_to_read(const struct vsock_conn *conn)
{
    return conn->state == VSOCK_OPEN && conn->readable;
}

/* The buffers' parts without the headers' place, `limit` bytes at most; how many there are, and of how many
 * bytes. */
static unsigned gather(const struct buffer *buffers, unsigned count, uint32_t limit, struct iovec *to,
                       uint32_t *ret_bytes)
{
    unsigned parts = 0;
    uint32_t bytes = 0;
    for (unsigned b = 0; b < count; b++) {
        size_t skipped = HEADER;
        for (unsigned i = 0; i < buffers[b].parts && bytes < limit; i++) {
            const struct iovec *part = &buffers[b].iov[i];
            size_t skip = MIN(skipped, part->iov_len), length = MIN(part->iov_len - skip, limit - bytes);
            skipped -= skip;
            if (length == 0)
                continue;
            to[parts++] = (struct iovec){(uint8_t *)part->iov_base + skip, length};
            bytes += (uint32_t)length;
        }
    }
    *ret_bytes = bytes;
    return parts;
}

/* The read found nothing: the end, nothing yet, or an error. */
static void read_ended(struct vsock_conn *conn, ssize_t result)
{
    conn->readable = false;
    if (result < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (result < 0)
        vsock_conn_kill(conn);
    else
        vsock_conn_host_ends(conn, conn->hung_up ? VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV
                                                 : VIRTIO_VSOCK_SHUTDOWN_SEND);
}

/* `bytes` are in the buffers, one after the other: how many buffers that took. */
static unsigned give_data(struct vsock_conn *conn, const struct buffer *buffers, uint32_t bytes)
{
    unsigned used = 0;
    conn->sent += bytes;
    while (bytes) {
        const struct buffer *buffer = &buffers[used++];
        struct virtio_vsock_hdr header;
        uint32_t length = MIN(bytes, buffer->room);
        fill_header(conn, VIRTIO_VSOCK_OP_RW, length, 0, &header);
        give(conn->vsock, buffer, &header);
        bytes -= length;
    }
    return used;
}

/* Reads from the socket into the guest's own buffers, of which the first is there. The number of packets, or
 * -EPROTO with a message. */
static int send_data(struct vsock_conn *conn, struct iovec iov[BURST_MAX][PARTS_MAX], struct buffer *buffers)
{
    struct virtio_vsock *vsock = conn->vsock;
    struct iovec parts[BURST_MAX * PARTS_MAX];
    unsigned count = 1;
    uint32_t limit = peer_room(conn), room = buffers[0].room, asked;
    while (count < conn->burst && room < limit) {
        int r = pop(vsock, iov[count], &buffers[count]);
        if (r < 0)
            return r;
        if (r != 1)
            break;
        room += MIN(buffers[count].room, UINT32_MAX - room);
        count++;
    }
    unsigned part_count = gather(buffers, count, limit, parts, &asked);
    ssize_t got = readv(conn->fd, parts, (int)part_count);
    unsigned used = got > 0 ? give_data(conn, buffers, (uint32_t)got) : 0;
    virtqueue_unpop(vq_of(vsock), (uint16_t)(count - used));
    if (got <= 0) {
        read_ended(conn, got);
        return 0;
    }
    conn->burst = (uint32_t)got == asked ? MIN(2 * conn->burst, BURST_MAX) : MAX(used, 1);
    conn->readable = (uint32_t)got == asked || conn->end_seen; /* the end itself does not wake us again */
    return (int)used;
}

/* ---- Whose turn it is ---- */

void vsock_owe_reset(struct virtio_vsock *vsock, const struct vsock_reset *reset)
{
    if (vsock->resets_count == VSOCK_RESETS_MAX) {
        vsock->counters.resets_lost++;
        return;
    }
    vsock->resets[(vsock->resets_first + vsock->resets_count++) % VSOCK_RESETS_MAX] = *reset;
}

static void send_reset(struct virtio_vsock *vsock, const struct buffer *buffer)
{
    const struct vsock_reset *reset = &vsock->resets[vsock->resets_first];
    const struct virtio_vsock_hdr header = {
        .src_cid = reset->cid,
        .dst_cid = vsock->cid,
        .src_port = reset->host_port,
        .dst_port = reset->guest_port,
        .type = reset->type,
        .op = VIRTIO_VSOCK_OP_RST,
    };
    vsock->resets_first = (vsock->resets_first + 1) % VSOCK_RESETS_MAX;
    vsock->resets_count--;
    vsock->counters.resets_sent++;
    give(vsock, buffer, &header);
}

static void send_shutdown(struct vsock_conn *conn, const struct buffer *buffer)
{
    conn->owes &= ~(unsigned)OWES_SHUTDOWN;
    send_op(conn, buffer, VIRTIO_VSOCK_OP_SHUTDOWN, conn->host_ends);
    if (conn->host_ends != (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))
        return;
    forget_stall(conn);
    vsock_conn_wait(conn); /* the guest answers with a reset when its program has read all */
}

/* True, and the buffer is used, if something goes before data: it opens the connection. */
static bool send_opening(struct vsock_conn *conn, const struct buffer *buffer)
{
    if (conn->owes & OWES_REQUEST) {
        conn->owes &= ~(unsigned)OWES_REQUEST;
        send_op(conn, buffer, VIRTIO_VSOCK_OP_REQUEST, 0);
        vsock_conn_wait(conn);
        return true;
    }
    if (conn->owes & OWES_RESPONSE) {
        conn->owes &= ~(unsigned)OWES_RESPONSE;
        send_op(conn, buffer, VIRTIO_VSOCK_OP_RESPONSE, 0);
        return true;
    }
    return false;
}

/* The same of what goes after it. */
static bool send_closing(struct vsock_conn *conn, const struct buffer *buffer)
{
    if (conn->owes & OWES_SHUTDOWN) {
        send_shutdown(conn, buffer);
        return true;
    }
    if (conn->owes & OWES_CREDIT_UPDATE) {
        send_op(conn, buffer, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
        return true;
    }
    if (conn->owes & OWES_CREDIT_REQUEST) {
        conn->owes &= ~(unsigned)OWES_CREDIT_REQUEST;
        send_op(conn, buffer, VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
        return true;
    }
    return false;
}

/* The first connection of the list gets its turn, with a buffer that is there already. Packets sent, or
 * -EPROTO with a message. */
static int serve(struct vsock_conn *conn, struct iovec iov[BURST_MAX][PARTS_MAX], struct buffer *buffers)
{
    vsock_conn_not_ready(conn);
    if (send_opening(conn, &buffers[0])) {
        vsock_conn_ready(conn);
        return 1;
    }
    if (wants_to_read(conn) && has_room(conn)) {
        forget_stall(conn);
        vsock_conn_ready(conn);
        return send_data(conn, iov, buffers);
    }
    if (wants_to_read(conn))
        await_credit(conn);
    if (send_closing(conn, &buffers[0])) {
        vsock_conn_ready(conn);
        return 1;
    }
    virtqueue_unpop(vq_of(conn->vsock), 1);
    return 0;
}

/* The answers first: they end things. */
static int serve_next(struct virtio_vsock *vsock, struct iovec iov[BURST_MAX][PARTS_MAX])
{
    struct buffer buffers[BURST_MAX];
    int r = pop(vsock, iov[0], &buffers[0]);
    if (r != 1)
        return r < 0 ? r : -EAGAIN;
    if (vsock->resets_count == 0)
        return serve(TAILQ_FIRST(&vsock->ready), iov, buffers);
    send_reset(vsock, &buffers[0]);
    return 1;
}

static bool has_packets(const struct virtio_vsock *vsock)
{
    return vsock->resets_count || !TAILQ_EMPTY(&vsock->ready);
}

void vsock_pump(struct virtio_vsock *vsock)
{
    struct iovec iov[BURST_MAX][PARTS_MAX];
    struct virtqueue *vq = vq_of(vsock);
    unsigned sent = 0;
    if (!vsock_runs(vsock) || !vq->ready || vsock->event != EVENT_NONE)
        return;
    while (has_packets(vsock)) {
        if (sent >= PACKETS_MAX) { /* others of the loop get their turn */
            virtio_kick_again(&vsock->device, VSOCK_RX);
            return;
        }
        int r = serve_next(vsock, iov);
        if (r == -EAGAIN) {
            if (!virtqueue_enable_kicks(vq))
                return;
            virtqueue_disable_kicks(vq);
        } else if (r < 0) {
            virtio_fail_device(&vsock->device);
            return;
        } else {
            sent += (unsigned)r;
        }
    }
}
