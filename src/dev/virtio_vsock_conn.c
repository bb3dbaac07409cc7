/* Connections of virtio-vsock: the table, the way from the guest to the host program, and how they end. */
#include "dev/virtio_vsock_internal.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

/* Both ends are over. */
#define SHUTDOWN_BOTH (unsigned)(VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

/* How long an accept that failed for want of something waits for its next try. */
#define ACCEPT_AGAIN_NS UINT64_C(1000000000)

/* ---- The table ---- */

static unsigned bucket_of(uint32_t guest_port, uint32_t host_port)
{
    uint64_t mixed = ((uint64_t)guest_port << 32 | host_port) * UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(mixed >> 40) & (VSOCK_BUCKETS - 1);
}

struct vsock_conn *vsock_conn_find(const struct virtio_vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn *conn = vsock->buckets[bucket_of(guest_port, host_port)];
    while (conn && (conn->guest_port != guest_port || conn->host_port != host_port))
        conn = conn->next;
    return conn;
}

void vsock_conn_list(struct vsock_conn *conn)
{
    struct vsock_conn **bucket = &conn->vsock->buckets[bucket_of(conn->guest_port, conn->host_port)];
    conn->next = *bucket;
    *bucket = conn;
    conn->listed = true;
}

static void unlist(struct vsock_conn *conn)
{
    struct vsock_conn **at = &conn->vsock->buckets[bucket_of(conn->guest_port, conn->host_port)];
    if (!conn->listed)
        return;
    while (*at != conn)
        at = &(*at)->next;
    *at = conn->next;
    conn->listed = false;
}

void vsock_conn_ready(struct vsock_conn *conn)
{
    if (conn->is_ready || conn->state == VSOCK_DEAD)
        return;
    TAILQ_INSERT_TAIL(&conn->vsock->ready, conn, ready);
    conn->is_ready = true;
}

void vsock_conn_not_ready(struct vsock_conn *conn)
{
    if (conn->is_ready)
        TAILQ_REMOVE(&conn->vsock->ready, conn, ready);
    conn->is_ready = false;
}

/* ---- Deadlines: all of the same length, so they come in the order in which they were set ---- */

static uint64_t now_ns(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void vsock_arm_timer(struct virtio_vsock *vsock)
{
    const struct vsock_conn *first = TAILQ_FIRST(&vsock->waiting);
    if (vsock->timer.op.in_flight || !vsock_runs(vsock) || (!first && !vsock->accept_stalled))
        return;
    uint64_t now = now_ns(), wait = ACCEPT_AGAIN_NS;
    if (first)
        wait = first->deadline > now ? first->deadline - now : 0;
    loop_timer_start(vsock->device.loop, &vsock->timer, wait);
    vsock->in_flight++;
}

void vsock_conn_wait(struct vsock_conn *conn)
{
    vsock_conn_go_on(conn);
    conn->deadline = now_ns() + VSOCK_WAIT_NS;
    TAILQ_INSERT_TAIL(&conn->vsock->waiting, conn, waiting);
    conn->is_waiting = true;
    vsock_arm_timer(conn->vsock);
}

void vsock_conn_go_on(struct vsock_conn *conn)
{
    if (conn->is_waiting)
        TAILQ_REMOVE(&conn->vsock->waiting, conn, waiting);
    conn->is_waiting = false;
}

void vsock_timer_due(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_vsock *vsock = container_of(op, struct virtio_vsock, timer.op);
    struct vsock_conn *first;
    (void)result, (void)flags;
    if (vsock_op_ended(vsock))
        return;
    uint64_t now = now_ns();
    while ((first = TAILQ_FIRST(&vsock->waiting)) && first->deadline <= now) {
        if (!first->stalled) {
            vsock_conn_kill(first);
            continue;
        }
        vsock_conn_go_on(first);
        first->stalled = false;
        first->forced = true;
        vsock_conn_ready(first);
    }
    if (vsock->accept_stalled)
        vsock_accept(vsock);
    vsock_arm_timer(vsock);
    vsock_pump(vsock);
}

/* ---- Its end ---- */

static void drop_buffer(struct vsock_conn *conn)
{
    conn->vsock->counters.buffered_bytes -= conn->buffered;
    free(conn->buffer);
    conn->buffer = NULL;
    conn->buffer_first = conn->buffered = 0;
}

static void free_conn(struct vsock_conn *conn)
{
    struct virtio_vsock *vsock = conn->vsock;
    TAILQ_REMOVE(&vsock->all, conn, all);
    vsock->counters.connections--;
    vsock->large -= conn->credit == VSOCK_CREDIT_LARGE;
    vsock->counters.closed++;
    drop_buffer(conn);
    cleanup_fd(&conn->fd);
    free(conn);
}

/* One that is dead is freed when nothing of it is in flight: an op of the ring outlives its descriptor. */
static void free_if_ended(struct vsock_conn *conn)
{
    struct virtio_vsock *vsock = conn->vsock;
    if (conn->watch.in_flight || conn->room.in_flight || conn->held)
        return;
    free_conn(conn);
    vsock_accept(vsock); /* there is room for another one */
}

void vsock_conn_end(struct vsock_conn *conn)
{
    struct loop *loop = conn->vsock->device.loop;
    if (conn->state == VSOCK_DEAD)
        return;
    unlist(conn);
    vsock_conn_not_ready(conn);
    vsock_conn_go_on(conn);
    conn->state = VSOCK_DEAD;
    drop_buffer(conn);
    loop_cancel(loop, &conn->watch);
    loop_cancel(loop, &conn->room);
    free_if_ended(conn);
}

void vsock_conn_kill(struct vsock_conn *conn)
{
    struct virtio_vsock *vsock = conn->vsock;
    const struct vsock_reset reset = {.cid = VSOCK_HOST_CID,
                                      .host_port = conn->host_port,
                                      .guest_port = conn->guest_port,
                                      .type = VIRTIO_VSOCK_TYPE_STREAM};
    if (conn->listed)
        vsock_owe_reset(vsock, &reset);
    vsock->counters.killed++;
    vsock_conn_end(conn);
}

void vsock_conn_free_all(struct virtio_vsock *vsock)
{
    struct vsock_conn *conn;
    CHECK(vsock->in_flight == 0);
    while ((conn = TAILQ_FIRST(&vsock->all))) {
        unlist(conn);
        vsock_conn_not_ready(conn);
        vsock_conn_go_on(conn);
        free_conn(conn);
    }
    vsock->resets_count = 0;
}

/* ---- From the guest to the host program ---- */

static void await_room(struct vsock_conn *conn)
{
    if (conn->room.in_flight || !vsock_runs(conn->vsock))
        return;
    loop_poll(conn->vsock->device.loop, &conn->room, conn->fd, POLLOUT);
    conn->vsock->in_flight++;
}

/* What was sent is over: the socket is told once nothing of it is left here. */
static void end_sending(struct vsock_conn *conn)
{
    if (conn->buffered)
        return;
    if (conn->state == VSOCK_FLUSHING)
        vsock_conn_end(conn);
    else if (conn->guest_ends & VIRTIO_VSOCK_SHUTDOWN_SEND)
        shutdown(conn->fd, SHUT_WR); /* a peer that is gone needs not be told */
}

/* Bytes have left for the host program, or never will. */
static void count_forwarded(struct vsock_conn *conn, uint32_t bytes)
{
    conn->forwarded += bytes;
    if (conn->state != VSOCK_OPEN || conn->forwarded - conn->forwarded_told < conn->credit / 4)
        return;
    conn->owes |= OWES_CREDIT_UPDATE;
    vsock_conn_ready(conn);
}

/* The host program reads no more. What it wrote is still read. */
static void host_reads_no_more(struct vsock_conn *conn)
{
    uint32_t lost = conn->buffered;
    drop_buffer(conn);
    count_forwarded(conn, lost);
    if (conn->state == VSOCK_FLUSHING)
        vsock_conn_end(conn);
    else
        vsock_conn_host_ends(conn, VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Writes to the socket what it takes now: how many bytes, or -1 if it will never take any. */
static ssize_t write_some(const struct vsock_conn *conn, const struct iovec *iov, unsigned count)
{
    ssize_t written = writev(conn->fd, iov, (int)count);
    if (written >= 0)
        return written;
    /* ENOBUFS, ENOMEM: the host is short of memory for a moment. */
    return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM ? 0 : -1;
}

/* Keeps what is behind the first `skipped` bytes. The credit bounds it. */
static bool keep(struct vsock_conn *conn, const struct iovec *iov, unsigned count, size_t skipped)
{
    if (!conn->buffer)
        conn->buffer = malloc(conn->credit);
    if (!conn->buffer)
        return false;
    if (conn->buffer_first) {
        memmove(conn->buffer, conn->buffer + conn->buffer_first, conn->buffered);
        conn->buffer_first = 0;
    }
    for (unsigned i = 0; i < count; i++) {
        size_t skip = MIN(skipped, iov[i].iov_len), length = iov[i].iov_len - skip;
        skipped -= skip;
        CHECK(conn->buffered + length <= conn->credit);
        memcpy(conn->buffer + conn->buffered, (const uint8_t *)iov[i].iov_base + skip, length);
        conn->buffered += (uint32_t)length;
        conn->vsock->counters.buffered_bytes += length;
    }
    return true;
}

void vsock_conn_forward(struct vsock_conn *conn, const struct iovec *iov, unsigned count, uint32_t bytes)
{
    if (conn->state != VSOCK_OPEN || (conn->guest_ends & VIRTIO_VSOCK_SHUTDOWN_SEND)) {
        vsock_conn_kill(conn);
        return;
    }
    if (bytes > conn->credit - (conn->received - conn->forwarded)) {
        conn->vsock->counters.credit_exceeded++;
        vsock_conn_kill(conn);
        return;
    }
    conn->received += bytes;
    conn->vsock->counters.tx_bytes += bytes;
    if (conn->host_ends & VIRTIO_VSOCK_SHUTDOWN_RCV) {
        count_forwarded(conn, bytes); /* sent before the guest could know */
        return;
    }
    ssize_t written = conn->buffered ? 0 : write_some(conn, iov, count);
    if (written < 0) {
        count_forwarded(conn, bytes);
        host_reads_no_more(conn);
    } else if (written == bytes || keep(conn, iov, count, (size_t)written)) {
        count_forwarded(conn, (uint32_t)written);
        if (conn->buffered)
            await_room(conn);
    } else {
        vsock_conn_kill(conn); /* no memory */
    }
}

static void room_seen(struct loop_op *op, int result, unsigned flags)
{
    struct vsock_conn *conn = container_of(op, struct vsock_conn, room);
    struct virtio_vsock *vsock = conn->vsock;
    bool dead = conn->state == VSOCK_DEAD;
    (void)result, (void)flags;
    if (dead)
        free_if_ended(conn);
    if (vsock_op_ended(vsock) || dead)
        return;
    const struct iovec rest = {conn->buffer + conn->buffer_first, conn->buffered};
    ssize_t written = write_some(conn, &rest, 1);
    if (written < 0) {
        host_reads_no_more(conn);
    } else {
        conn->buffer_first += (uint32_t)written;
        conn->buffered -= (uint32_t)written;
        vsock->counters.buffered_bytes -= (uint64_t)written;
        count_forwarded(conn, (uint32_t)written);
        if (conn->buffered)
            await_room(conn);
        else {
            drop_buffer(conn);
            end_sending(conn);
        }
    }
    vsock_pump(vsock);
}

/* ---- Ends ---- */

void vsock_conn_guest_ends(struct vsock_conn *conn, unsigned flags)
{
    unsigned fresh = flags & SHUTDOWN_BOTH & ~conn->guest_ends;
    if (conn->state != VSOCK_OPEN) {
        vsock_conn_kill(conn);
        return;
    }
    conn->guest_ends |= fresh;
    if (conn->guest_ends == SHUTDOWN_BOTH) {
        /* The guest waits for this reset, and may use its port again from then on. */
        const struct vsock_reset reset = {.cid = VSOCK_HOST_CID,
                                          .host_port = conn->host_port,
                                          .guest_port = conn->guest_port,
                                          .type = VIRTIO_VSOCK_TYPE_STREAM};
        vsock_owe_reset(conn->vsock, &reset);
        unlist(conn);
        vsock_conn_not_ready(conn);
        vsock_conn_go_on(conn);
        conn->state = VSOCK_FLUSHING;
        shutdown(conn->fd, SHUT_RD);
        end_sending(conn);
        return;
    }
    if (fresh & VIRTIO_VSOCK_SHUTDOWN_RCV)
        shutdown(conn->fd, SHUT_RD); /* the host program's next write fails */
    if (fresh & VIRTIO_VSOCK_SHUTDOWN_SEND)
        end_sending(conn);
}

void vsock_conn_host_ends(struct vsock_conn *conn, unsigned flags)
{
    if ((conn->host_ends & flags) == flags)
        return;
    conn->host_ends |= flags;
    if (conn->host_ends & VIRTIO_VSOCK_SHUTDOWN_SEND)
        conn->readable = false;
    conn->owes |= OWES_SHUTDOWN;
    vsock_conn_ready(conn);
}

/* ---- What its socket says ---- */

static void open_changed(struct vsock_conn *conn)
{
    if (!(conn->host_ends & VIRTIO_VSOCK_SHUTDOWN_SEND) && !(conn->guest_ends & VIRTIO_VSOCK_SHUTDOWN_RCV)) {
        conn->readable = true;
        vsock_conn_ready(conn);
    } else if (conn->hung_up) {
        vsock_conn_host_ends(conn, SHUTDOWN_BOTH); /* there is nothing to be read any more */
    }
}

static void socket_changed(struct vsock_conn *conn, unsigned events)
{
    conn->hung_up |= (events & (POLLHUP | POLLERR)) != 0;
    conn->end_seen |= (events & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
    switch (conn->state) {
    case VSOCK_GREETING: vsock_greet(conn); break;
    case VSOCK_REQUESTED: conn->readable = true; break; /* it may have spoken before the guest has answered */
    case VSOCK_OPEN: open_changed(conn); break;
    case VSOCK_FLUSHING: /* writing finds out */
    case VSOCK_DEAD: break;
    }
}

static void watch_fired(struct loop_op *op, int result, unsigned flags)
{
    struct vsock_conn *conn = container_of(op, struct vsock_conn, watch);
    struct virtio_vsock *vsock = conn->vsock;
    bool last = !(flags & LOOP_MORE), dead = conn->state == VSOCK_DEAD;
    if (dead && last)
        free_if_ended(conn);
    if ((last && vsock_op_ended(vsock)) || dead || !vsock_runs(vsock))
        return;
    conn->held = true;
    if (result < 0)
        vsock_conn_kill(conn);
    else
        socket_changed(conn, (unsigned)result);
    conn->held = false;
    if (conn->state == VSOCK_DEAD)
        free_if_ended(conn);
    else if (last && !conn->hung_up && !(conn->host_ends & VIRTIO_VSOCK_SHUTDOWN_SEND))
        vsock_conn_watch(conn); /* after the end of the file it would fire at once, for ever */
    vsock_pump(vsock);
}

void vsock_conn_watch(struct vsock_conn *conn)
{
    struct virtio_vsock *vsock = conn->vsock;
    if (conn->buffered)
        await_room(conn);
    if (conn->watch.in_flight)
        return;
    loop_watch(vsock->device.loop, &conn->watch, conn->fd, POLLIN | POLLRDHUP);
    vsock->in_flight++;
}

struct vsock_conn *vsock_conn_new(struct virtio_vsock *vsock, int fd, enum vsock_state state)
{
    struct vsock_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    bool large = vsock->large < VSOCK_LARGE_MAX;
    conn->vsock = vsock;
    conn->fd = fd;
    conn->state = state;
    conn->watch.done = watch_fired;
    conn->room.done = room_seen;
    conn->credit = large ? VSOCK_CREDIT_LARGE : VSOCK_CREDIT_SMALL;
    conn->burst = 1;
    vsock->large += large;
    vsock->counters.connections++;
    vsock->counters.opened++;
    TAILQ_INSERT_TAIL(&vsock->all, conn, all);
    return conn;
}
