/* The device: packets from the guest, the event queue, life and state. */
#include "dev/virtio_vsock_internal.h"

#include <linux/virtio_ids.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* Parts of a packet from the guest. Linux makes packets of 64 KiB at most, in pages. */
#define TX_PARTS_MAX 64u

/* Packets of a turn of the loop: 2 MiB are copied in half a millisecond. */
#define TX_BATCH 32u

/* ---- Packets from the guest ---- */

/* Copies the header out, and takes it off the parts. */
static void take_header(struct virtq_chain *chain, struct virtio_vsock_hdr *ret_header)
{
    uint8_t *to = (uint8_t *)ret_header;
    size_t missing = sizeof(*ret_header);
    for (unsigned i = 0; missing; i++) {
        struct iovec *part = &chain->iov[i];
        size_t taken = MIN(missing, part->iov_len);
        memcpy(to, part->iov_base, taken);
        to += taken;
        missing -= taken;
        part->iov_base = (uint8_t *)part->iov_base + taken;
        part->iov_len -= taken;
    }
}

/* The parts end after `bytes`, of which there are as many: how many parts. */
static unsigned cut(struct iovec *iov, uint64_t bytes)
{
    unsigned count = 0;
    while (bytes) {
        iov[count].iov_len = MIN(iov[count].iov_len, bytes);
        bytes -= iov[count++].iov_len;
    }
    return count;
}

static void answer_with_reset(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header)
{
    const struct vsock_reset reset = {.cid = header->dst_cid,
                                      .host_port = header->dst_port,
                                      .guest_port = header->src_port,
                                      .type = header->type};
    if (header->op != VIRTIO_VSOCK_OP_RST)
        vsock_owe_reset(vsock, &reset);
}

/* A guest connects. The old connection of the same ports is one that the guest knows no more of. */
static void requested(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header,
                      struct vsock_conn *old)
{
    int fd = -1;
    if (old) {
        vsock->counters.killed++;
        vsock_conn_end(old);
    }
    bool full = vsock->counters.connections >= VSOCK_CONNECTIONS_MAX - VSOCK_HOST_RESERVE;
    struct vsock_conn *conn = NULL;
    if (!full && vsock_connect(vsock, header->dst_port, &fd) == 0)
        conn = vsock_conn_new(vsock, fd, VSOCK_OPEN);
    if (!conn) {
        cleanup_fd(&fd);
        vsock->counters.refused++;
        answer_with_reset(vsock, header);
        return;
    }
    conn->guest_port = header->src_port;
    conn->host_port = header->dst_port;
    conn->peer_credit = header->buf_alloc;
    conn->peer_forwarded = header->fwd_cnt;
    conn->owes = OWES_RESPONSE;
    vsock_conn_list(conn);
    vsock_conn_ready(conn);
    vsock_conn_watch(conn);
}

/* The guest has taken a host program's connection. */
static void responded(struct vsock_conn *conn)
{
    if (conn->state != VSOCK_REQUESTED || (conn->owes & OWES_REQUEST)) {
        vsock_conn_kill(conn);
        return;
    }
    vsock_conn_go_on(conn);
    conn->state = VSOCK_OPEN;
    vsock_tell_open(conn);
}

static void packet(struct virtio_vsock *vsock, const struct virtio_vsock_hdr *header, struct iovec *iov)
{
    struct vsock_conn *conn = vsock_conn_find(vsock, header->src_port, header->dst_port);
    if (header->op == VIRTIO_VSOCK_OP_REQUEST) {
        requested(vsock, header, conn);
        return;
    }
    if (!conn) {
        answer_with_reset(vsock, header);
        return;
    }
    conn->peer_credit = header->buf_alloc;
    conn->peer_forwarded = header->fwd_cnt;
    vsock_conn_ready(conn); /* there may be room for more now */
    switch (header->op) {
    case VIRTIO_VSOCK_OP_RESPONSE: responded(conn); break;
    case VIRTIO_VSOCK_OP_RST: vsock_conn_end(conn); break;
    case VIRTIO_VSOCK_OP_SHUTDOWN: vsock_conn_guest_ends(conn, header->flags); break;
    case VIRTIO_VSOCK_OP_RW: vsock_conn_forward(conn, iov, cut(iov, header->len), header->len); break;
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE: break;
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST: conn->owes |= OWES_CREDIT_UPDATE; break;
    default: vsock_conn_kill(conn); break;
    }
}

static int vsock_take(struct virtio_device *device, unsigned q, struct virtq_chain *chain)
{
    struct virtio_vsock *vsock = vsock_of(device);
    struct virtio_vsock_hdr header;
    bool whole = chain->readable_bytes >= sizeof(header) && chain->writable == 0;
    if (whole)
        take_header(chain, &header);
    if (!whole || header.src_cid != vsock->cid || header.len > chain->readable_bytes - sizeof(header)) {
        vsock->counters.malformed++;
    } else {
        vsock->counters.tx_packets++;
        if (header.dst_cid != VSOCK_HOST_CID || header.type != VIRTIO_VSOCK_TYPE_STREAM)
            answer_with_reset(vsock, &header);
        else
            packet(vsock, &header, chain->iov);
    }
    virtio_push(device, q, chain->head, 0);
    return 0;
}

/* ---- The event after a restore (virtio 1.2, 5.10.6.7) ---- */

/* How many buffers there are for events: they are taken, counted and put back. The driver kicks when it adds
 * another one. -EPROTO with a message. */
static int count_event_buffers(struct virtqueue *vq, uint16_t *ret_count)
{
    struct iovec iov[TX_PARTS_MAX];
    struct virtq_chain chain;
    uint16_t count = 0;
    int r;
    do {
        while ((r = virtqueue_pop(vq, iov, ARRAY_SIZE(iov), &chain)) == 1)
            count++;
    } while (r == 0 && virtqueue_enable_kicks(vq));
    virtqueue_unpop(vq, count);
    if (r < 0)
        return r;
    *ret_count = count;
    return 0;
}

/* Sends the event, if the driver has a buffer for it. */
static int send_event(struct virtio_vsock *vsock)
{
    static const struct virtio_vsock_event reset = {.id = VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
    struct virtqueue *vq = &vsock->device.queues[VSOCK_EVENT].vq;
    struct iovec iov[TX_PARTS_MAX];
    struct virtq_chain chain;
    int r = virtqueue_pop(vq, iov, ARRAY_SIZE(iov), &chain);
    if (r == 0) {
        uint16_t count;
        r = count_event_buffers(vq, &count);
        return r < 0 || count == 0 ? r : send_event(vsock); /* one came meanwhile */
    }
    if (r < 0)
        return r;
    if (chain.readable || chain.iov[0].iov_len < sizeof(reset))
        return fail(-EPROTO, "a buffer for events of %zu bytes", chain.iov[0].iov_len);
    memcpy(chain.iov[0].iov_base, &reset, sizeof(reset));
    virtio_push(&vsock->device, VSOCK_EVENT, chain.head, sizeof(reset));
    vsock->event = EVENT_SENT;
    return count_event_buffers(vq, &vsock->event_buffers);
}

/* A driver gives the buffer back when it has ended its connections. What it heard before would end with
 * them. */
static int await_event_taken(struct virtio_vsock *vsock)
{
    uint16_t count;
    int r = count_event_buffers(&vsock->device.queues[VSOCK_EVENT].vq, &count);
    if (r == 0 && count > vsock->event_buffers)
        vsock->event = EVENT_NONE;
    return r;
}

static void events_kicked(struct virtio_vsock *vsock)
{
    int r = 0;
    if (vsock->event == EVENT_DUE)
        r = send_event(vsock);
    else if (vsock->event == EVENT_SENT)
        r = await_event_taken(vsock);
    if (r < 0)
        virtio_fail_device(&vsock->device);
}

/* ---- Life ---- */

static void vsock_kicked(struct virtio_device *device, unsigned q)
{
    struct virtio_vsock *vsock = vsock_of(device);
    if (q == VSOCK_TX)
        virtio_take_chains(device, q);
    else if (q == VSOCK_EVENT)
        events_kicked(vsock);
    vsock_pump(vsock);
}

/* True if a driver has just set the queues up: they are not those of before a pause. */
static bool is_fresh(const struct virtio_device *device)
{
    for (unsigned q = 0; q < device->queue_count; q++)
        if (device->queues[q].vq.next_avail || device->queues[q].vq.next_used)
            return false;
    return true;
}

static void vsock_start(struct virtio_device *device)
{
    struct virtio_vsock *vsock = vsock_of(device);
    if (is_fresh(device)) {
        vsock_conn_free_all(vsock);
        vsock->event = EVENT_NONE;
    }
    for (struct vsock_conn *conn = TAILQ_FIRST(&vsock->all); conn; conn = TAILQ_NEXT(conn, all)) {
        vsock_conn_watch(conn);
        if (conn->is_waiting)
            vsock_conn_wait(conn); /* the guest had no time to answer while it stood still */
    }
    vsock_accept(vsock);
    vsock_arm_timer(vsock);
    if (vsock->event == EVENT_DUE && !device->queues[VSOCK_EVENT].vq.ready)
        vsock->event = EVENT_NONE; /* a driver that wants to know nothing */
    if (vsock->event == EVENT_DUE)
        events_kicked(vsock);
    vsock_pump(vsock);
}

static void end_quiesce(struct virtio_vsock *vsock)
{
    struct virtio_device *device = &vsock->device;
    if (device->state != VIRTIO_QUIESCING || vsock->in_flight)
        return;
    if (device->forget)
        vsock_conn_free_all(vsock);
    virtio_quiesced(device);
}

bool vsock_op_ended(struct virtio_vsock *vsock)
{
    vsock->in_flight--;
    if (vsock_runs(vsock))
        return false;
    end_quiesce(vsock);
    return true;
}

/* What host programs send meanwhile stays in their sockets. */
static void vsock_quiesce(struct virtio_device *device)
{
    struct virtio_vsock *vsock = vsock_of(device);
    loop_cancel(device->loop, &vsock->accept_op);
    loop_cancel(device->loop, &vsock->timer.op);
    for (struct vsock_conn *conn = TAILQ_FIRST(&vsock->all); conn; conn = TAILQ_NEXT(conn, all)) {
        loop_cancel(device->loop, &conn->watch);
        loop_cancel(device->loop, &conn->room);
    }
    end_quiesce(vsock);
}

/* The file goes with the machine. */
static void vsock_write_back(struct virtio_device *device)
{
    unix_listener_remove(&vsock_of(device)->listener);
}

static void vsock_destroy(struct virtio_device *device)
{
    struct virtio_vsock *vsock = vsock_of(device);
    vsock_conn_free_all(vsock);
    unix_listener_remove(&vsock->listener);
    cleanup_fd(&vsock->listener.fd);
    free(vsock->path);
    free(vsock);
}

/* ---- Saved and loaded ---- */

/* Connections do not outlive a restore: their other ends are elsewhere. The configuration says what the
 * address is, and the driver reads it again after the event. */
static int save_vsock(const void *owner, struct state_writer *to)
{
    const struct virtio_vsock *vsock = container_of(owner, struct virtio_vsock, device);
    state_put(to, &vsock->cid, sizeof(vsock->cid));
    return 0;
}

static int load_vsock(void *owner, struct state_reader *from, uint16_t version)
{
    struct virtio_vsock *vsock = vsock_of(owner);
    uint64_t saved_cid;
    (void)version; /* there is one */
    int r = state_get(from, &saved_cid, sizeof(saved_cid));
    if (r < 0)
        return r;
    vsock_conn_free_all(vsock);
    vsock->event = EVENT_DUE;
    return 0;
}

/* ---- Making one ---- */

#define COUNTER(name, help)                                                                                  \
    {                                                                                                        \
#name, help, offsetof(struct virtio_vsock, counters.name)                                            \
    }

static const struct virtio_counter vsock_counters[] = {
    COUNTER(rx_packets, "Packets to the guest."),
    COUNTER(rx_bytes, "Bytes to the guest."),
    COUNTER(tx_packets, "Packets from the guest."),
    COUNTER(tx_bytes, "Bytes from the guest."),
    COUNTER(opened, "Connections that were begun, by either side."),
    COUNTER(closed, "Connections that are over."),
    COUNTER(killed, "Connections that were ended by a reset."),
    COUNTER(refused, "Connections that no host program took."),
    COUNTER(malformed, "Packets that make no sense."),
    COUNTER(resets_sent, "Resets sent to the guest."),
    COUNTER(resets_lost, "Resets that a guest without buffers did not get."),
    COUNTER(credit_exceeded, "Connections on which the guest sent more than it may."),
    COUNTER(accept_failures, "Host programs that could not be let in at once."),
};

static const struct virtio_counter vsock_gauges[] = {
    {"connections", "Connections.", offsetof(struct virtio_vsock, counters.connections)},
    {"buffered_bytes", "Bytes that host programs have not read yet.",
     offsetof(struct virtio_vsock, counters.buffered_bytes)},
};

static const struct virtio_ops vsock_ops = {
    .name = "virtio-vsock",
    .device_id = VIRTIO_ID_VSOCK,
    .queue_count = VSOCK_QUEUES,
    .iov_max = TX_PARTS_MAX,
    .batch = TX_BATCH,
    .start = vsock_start,
    .take = vsock_take,
    .kicked = vsock_kicked,
    .quiesce = vsock_quiesce,
    .write_back = vsock_write_back,
    .parts = (const struct state_part[]){{"VSCK", 1, STATE_REQUIRED, save_vsock, load_vsock}},
    .part_count = 1,
    .counters = vsock_counters,
    .counter_count = ARRAY_SIZE(vsock_counters),
    .gauges = vsock_gauges,
    .gauge_count = ARRAY_SIZE(vsock_gauges),
    .destroy = vsock_destroy,
};

int virtio_vsock_new(struct loop *loop, const struct virtio_vsock_options *options,
                     struct virtio_device **ret_device)
{
    struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
    char *path = strdup(options->path);
    int r = vsock && path ? virtio_init(&vsock->device, &vsock_ops, loop, "vsock", 0)
                          : fail(-ENOMEM, "no memory for the vsock device");
    if (r < 0) {
        free(vsock);
        free(path);
        return r;
    }
    vsock->cid = options->guest_cid;
    vsock->path = path;
    vsock->listener = *options->listener;
    vsock->timer.op.done = vsock_timer_due;
    TAILQ_INIT(&vsock->all);
    TAILQ_INIT(&vsock->ready);
    TAILQ_INIT(&vsock->waiting);
    /* A guest that was restored may still know ports of its last life. */
    (void)!getrandom(&vsock->next_port, sizeof(vsock->next_port), GRND_NONBLOCK);
    const struct virtio_vsock_config config = {.guest_cid = vsock->cid};
    virtio_set_config(&vsock->device, &config, sizeof(config));
    *ret_device = &vsock->device;
    return 0;
}
