#include "net/stream.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

#define LENGTH_BYTES 4u
#define LONGEST      (LENGTH_BYTES + NET_FRAME_MAX)

/* A frame fits behind one that was half taken in. */
#define BUFFER_BYTES (2 * LONGEST)

/* Of one sendmsg: what a turn of the loop has gathered, or as much of it as has room. A frame of a guest has
 * 66 parts at most (dev/virtio_net_internal.h). */
#define BATCH_FRAMES 64u
#define BATCH_PARTS  512u

struct stream {
    struct net_backend backend; /* first */
    int fd;
    bool broken;  /* no more of it */
    bool closing; /* freed when nothing is in flight, and nothing of here on the stack */
    unsigned calls;

    /* Receiving: bytes from `begin` to `end` of the buffer are still to be given out. */
    struct loop_op receive_op;
    struct net_io *reader; /* waits for a frame */
    bool cancelled;        /* and is to wait no longer */
    bool serving;          /* serve() is on the stack */
    uint32_t begin, end;
    uint8_t buffer[BUFFER_BYTES];

    /* Sending: a queue, whose first frame may be partly out. */
    struct loop_op send_op;
    struct loop_prepare prepare;
    bool prepared, settling;
    struct net_io *first, **last;
    uint32_t first_sent; /* bytes of the first, its length included */
    struct msghdr message;
    struct iovec parts[BATCH_PARTS];
    uint32_t lengths[BATCH_FRAMES];
    /* What was left of a frame that was partly out when it had to end. Goes out before anything else. */
    uint32_t rest_begin, rest_end;
    uint8_t rest[LONGEST];
};

static struct stream *stream_of(struct net_backend *backend)
{
    return container_of(backend, struct stream, backend);
}

static void finish(struct net_io *io, int result)
{
    io->busy = false;
    io->done(io, result);
}

/* --- the end --- */

/* Takes the first frame out of the queue and ends it. */
static void finish_first(struct stream *stream, int result)
{
    struct net_io *io = stream->first;
    stream->first = io->next;
    stream->first_sent = 0;
    if (!stream->first)
        stream->last = &stream->first;
    finish(io, result);
}

static void fail_queue(struct stream *stream, int result)
{
    while (stream->first)
        finish_first(stream, result);
}

/* Closes the socket when nothing uses it any more, and frees what was closed. */
static void end_if_idle(struct stream *stream)
{
    if (stream->calls || stream->receive_op.in_flight || stream->send_op.in_flight)
        return;
    if (stream->broken || stream->closing)
        cleanup_fd(&stream->fd);
    if (stream->closing)
        free(stream);
}

/* Around all that calls a done(): that may close the stream. */
static void hold(struct stream *stream)
{
    stream->calls++;
}

static void let_go(struct stream *stream)
{
    stream->calls--;
    end_if_idle(stream);
}

static void break_off(struct stream *stream)
{
    stream->broken = true;
    loop_cancel(stream->backend.loop, &stream->receive_op);
    loop_cancel(stream->backend.loop, &stream->send_op);
    if (!stream->send_op.in_flight)
        fail_queue(stream, -EPIPE);
}

/* --- receiving --- */

/* 1: a whole frame is in the buffer; 0: not yet; -EBADMSG. */
static int next_frame(const struct stream *stream, const uint8_t **ret_frame, uint32_t *ret_length)
{
    uint32_t there = stream->end - stream->begin, length;
    if (there < LENGTH_BYTES)
        return 0;
    memcpy(&length, stream->buffer + stream->begin, sizeof(length));
    length = ntohl(length);
    if (length < ETH_HLEN || length > NET_FRAME_MAX)
        return -EBADMSG;
    if (there < LENGTH_BYTES + length)
        return 0;
    *ret_frame = stream->buffer + stream->begin + LENGTH_BYTES;
    *ret_length = length;
    return 1;
}

/* A header that leaves nothing to do, and the frame, as far as there is room. */
static void copy_out(const struct net_io *io, const uint8_t *frame, uint32_t length)
{
    static const uint8_t header[NET_HEADER];
    const struct iovec sources[] = {{(void *)header, sizeof(header)}, {(void *)frame, length}};
    unsigned part = 0;
    size_t used = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(sources); i++)
        for (size_t done = 0; done < sources[i].iov_len && part < io->count;) {
            size_t fits = MIN(sources[i].iov_len - done, io->iov[part].iov_len - used);
            if (fits)
                memcpy((uint8_t *)io->iov[part].iov_base + used, (uint8_t *)sources[i].iov_base + done, fits);
            done += fits;
            used += fits;
            if (used == io->iov[part].iov_len) {
                part++;
                used = 0;
            }
        }
}

static void received(struct loop_op *op, int result, unsigned flags);

static void receive_more(struct stream *stream)
{
    if (stream->receive_op.in_flight)
        return;
    if (stream->begin == stream->end || stream->begin > BUFFER_BYTES - LONGEST) {
        memmove(stream->buffer, stream->buffer + stream->begin, stream->end - stream->begin);
        stream->end -= stream->begin;
        stream->begin = 0;
    }
    stream->receive_op.done = received;
    loop_recv(stream->backend.loop, &stream->receive_op, stream->fd, stream->buffer + stream->end,
              BUFFER_BYTES - stream->end);
}

/* Gives frames to who waits, as often as he waits again: done() does not call deeper and deeper. */
static void serve(struct stream *stream)
{
    if (stream->serving)
        return;
    stream->serving = true;
    hold(stream);
    while (stream->reader) {
        struct net_io *io = stream->reader;
        const uint8_t *frame;
        uint32_t length;
        int r = stream->broken ? -EPIPE : next_frame(stream, &frame, &length);
        if (r == 0 && !stream->cancelled) {
            receive_more(stream);
            break;
        }
        if (r < 0 && stream->receive_op.in_flight)
            break; /* it is cancelled; then */
        stream->reader = NULL;
        if (r == -EBADMSG) {
            log_warn("the peer of a network card sent a length that no frame has: it is cut off");
            break_off(stream);
        }
        if (r == 1) {
            copy_out(io, frame, length);
            stream->begin += LENGTH_BYTES + length;
            r = (int)(NET_HEADER + length);
        }
        finish(io, r == 0 ? -ECANCELED : r);
    }
    stream->serving = false;
    let_go(stream);
}

static void received(struct loop_op *op, int result, unsigned flags)
{
    struct stream *stream = container_of(op, struct stream, receive_op);
    (void)flags;
    hold(stream);
    if (result > 0)
        stream->end += (uint32_t)result;
    else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN)
        break_off(stream); /* 0: it has gone */
    serve(stream);
    let_go(stream);
}

static void stream_receive(struct net_backend *backend, unsigned pair, struct net_io *io,
                           const struct iovec *iov, unsigned count)
{
    struct stream *stream = stream_of(backend);
    (void)pair;
    io->busy = true;
    io->iov = iov;
    io->count = count;
    stream->reader = io;
    stream->cancelled = false;
    serve(stream);
}

static void stream_cancel(struct net_backend *backend, struct net_io *io)
{
    struct stream *stream = stream_of(backend);
    if (stream->reader != io)
        return;
    stream->cancelled = true;
    loop_cancel(backend->loop, &stream->receive_op);
}

/* --- sending --- */

/* The parts of a frame behind its header. */
static unsigned frame_parts(const struct net_io *io, struct iovec *ret_parts)
{
    size_t skip = NET_HEADER;
    unsigned count = 0;
    for (unsigned i = 0; i < io->count; i++) {
        size_t skipped = MIN(skip, io->iov[i].iov_len);
        skip -= skipped;
        if (skipped < io->iov[i].iov_len)
            ret_parts[count++] = (struct iovec){.iov_base = (uint8_t *)io->iov[i].iov_base + skipped,
                                                .iov_len = io->iov[i].iov_len - skipped};
    }
    return count;
}

static uint64_t frame_bytes(const struct net_io *io)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < io->count; i++)
        bytes += io->iov[i].iov_len;
    return bytes - MIN(bytes, NET_HEADER);
}

/* Takes `bytes` off the front of some parts; the number of parts that are gone. */
static unsigned advance(struct iovec *parts, unsigned count, uint64_t bytes)
{
    unsigned gone = 0;
    while (gone < count && bytes >= parts[gone].iov_len)
        bytes -= parts[gone++].iov_len;
    if (gone < count) {
        parts[gone].iov_base = (uint8_t *)parts[gone].iov_base + bytes;
        parts[gone].iov_len -= bytes;
    }
    return gone;
}

static void sent(struct loop_op *op, int result, unsigned flags);

static void send_batch(struct stream *stream)
{
    unsigned count = 0, frames = 0;
    if (stream->send_op.in_flight || stream->broken)
        return;
    if (stream->rest_begin < stream->rest_end)
        stream->parts[count++] = (struct iovec){.iov_base = stream->rest + stream->rest_begin,
                                                .iov_len = stream->rest_end - stream->rest_begin};
    const unsigned before = count;
    for (const struct net_io *io = stream->first;
         io && frames < BATCH_FRAMES && count + 1 + io->count <= BATCH_PARTS; io = io->next, frames++) {
        stream->lengths[frames] = htonl((uint32_t)frame_bytes(io));
        stream->parts[count++] =
            (struct iovec){.iov_base = &stream->lengths[frames], .iov_len = LENGTH_BYTES};
        count += frame_parts(io, &stream->parts[count]);
    }
    if (count == 0)
        return;
    /* A frame that is partly out has no rest before it. */
    unsigned gone = advance(&stream->parts[before], count - before, stream->first_sent);
    stream->message = (struct msghdr){.msg_iov = &stream->parts[gone], .msg_iovlen = count - gone};
    stream->send_op.done = sent;
    loop_sendmsg(stream->backend.loop, &stream->send_op, stream->fd, &stream->message);
}

/* So many bytes are out: the frames that are whole have ended. */
static void account(struct stream *stream, uint64_t bytes)
{
    uint32_t rest = (uint32_t)MIN(bytes, stream->rest_end - stream->rest_begin);
    stream->rest_begin += rest;
    bytes -= rest;
    while (bytes > 0 && stream->first) {
        uint64_t frame = frame_bytes(stream->first), left = LENGTH_BYTES + frame - stream->first_sent;
        if (bytes < left) {
            stream->first_sent += (uint32_t)bytes;
            return;
        }
        bytes -= left;
        finish_first(stream, (int)(NET_HEADER + frame));
    }
}

/* The rest of the frame that is partly out is copied: it goes out later, and its buffers are free. */
static void keep_rest(struct stream *stream)
{
    struct net_io *io = stream->first;
    struct iovec parts[BATCH_PARTS];
    if (stream->first_sent == 0)
        return;
    const uint32_t frame = (uint32_t)frame_bytes(io), length = htonl(frame);
    memcpy(stream->rest, &length, LENGTH_BYTES);
    stream->rest_end = LENGTH_BYTES;
    unsigned count = frame_parts(io, parts);
    for (unsigned i = 0; i < count; i++) {
        memcpy(stream->rest + stream->rest_end, parts[i].iov_base, parts[i].iov_len);
        stream->rest_end += (uint32_t)parts[i].iov_len;
    }
    stream->rest_begin = stream->first_sent;
    finish_first(stream, (int)(NET_HEADER + frame));
}

static void sent(struct loop_op *op, int result, unsigned flags)
{
    struct stream *stream = container_of(op, struct stream, send_op);
    (void)flags;
    hold(stream);
    if (result > 0)
        account(stream, (uint64_t)result);
    else if (result != -ECANCELED && result != -EINTR && result != -EAGAIN && !stream->broken)
        break_off(stream);
    if (stream->broken) {
        fail_queue(stream, -EPIPE);
        serve(stream);
    } else if (result == -ECANCELED && stream->settling) {
        keep_rest(stream);
        fail_queue(stream, -ECANCELED);
    } else if (!stream->closing) {
        send_batch(stream);
        if (stream->settling && stream->send_op.in_flight)
            loop_cancel(stream->backend.loop, op);
    }
    if (!stream->first)
        stream->settling = false;
    let_go(stream);
}

/* Once a turn, so that all that it has brought goes out with one call. */
static void send_gathered(struct loop_prepare *prepare)
{
    send_batch(container_of(prepare, struct stream, prepare));
}

static void stream_send(struct net_backend *backend, unsigned pair, struct net_io *io,
                        const struct iovec *iov, unsigned count)
{
    struct stream *stream = stream_of(backend);
    (void)pair;
    io->iov = iov;
    io->count = count;
    io->next = NULL;
    uint64_t bytes = frame_bytes(io);
    if (stream->broken || bytes < ETH_HLEN || bytes > NET_FRAME_MAX || count + 2 > BATCH_PARTS) {
        io->done(io, stream->broken ? -EPIPE : -EINVAL);
        return;
    }
    if (!stream->prepared)
        loop_prepare_add(backend->loop, &stream->prepare);
    stream->prepared = true;
    io->busy = true;
    *stream->last = io;
    stream->last = &io->next;
}

static void stream_settle(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    send_batch(stream);
    stream->settling = stream->send_op.in_flight;
    loop_cancel(backend->loop, &stream->send_op);
}

/* --- settings and life --- */

static int stream_set_offloads(struct net_backend *backend, net_offloads offloads)
{
    (void)backend;
    return offloads ? fail(-EOPNOTSUPP, "a stream has no offloads") : 0;
}

static int stream_set_pairs(struct net_backend *backend, unsigned pairs)
{
    (void)backend;
    return pairs > 1 ? fail(-EOPNOTSUPP, "a stream has one queue pair") : 0;
}

static void stream_close(struct net_backend *backend)
{
    struct stream *stream = stream_of(backend);
    if (stream->prepared)
        loop_prepare_remove(backend->loop, &stream->prepare);
    stream->closing = true;
    if (backend->loop)
        loop_cancel(backend->loop, &stream->send_op);
    end_if_idle(stream);
}

int stream_adopt(int fd, struct net_backend **ret_backend)
{
    static const struct net_backend_ops ops = {
        .send = stream_send,
        .receive = stream_receive,
        .cancel = stream_cancel,
        .settle = stream_settle,
        .set_offloads = stream_set_offloads,
        .set_pairs = stream_set_pairs,
        .close = stream_close,
    };
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return fail(-ENOMEM, "no memory for a network card");
    stream->backend = (struct net_backend){.ops = &ops, .pairs = 1};
    stream->fd = fd;
    stream->last = &stream->first;
    stream->prepare.run = send_gathered;
    *ret_backend = &stream->backend;
    return 0;
}
