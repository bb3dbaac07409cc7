#include "ctl/http_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static int64_t now_seconds(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + 1; /* never 0 */
}

/* ---- The list, and who makes room ---- */

static void unlink_connection(struct http_server *server, struct http_connection *connection)
{
    *(connection->before ? &connection->before->next : &server->first) = connection->next;
    *(connection->next ? &connection->next->before : &server->end) = connection->before;
}

static void append_connection(struct http_server *server, struct http_connection *connection)
{
    connection->next = NULL;
    connection->before = server->end;
    *(server->end ? &server->end->next : &server->first) = connection;
    server->end = connection;
}

static void free_connection(struct http_connection *connection)
{
    ev_io_stop(connection->server->ev, &connection->readable);
    ev_io_stop(connection->server->ev, &connection->writable);
    close(connection->fd);
    http_drop_descriptors(connection);
    text_free(&connection->path);
    text_free(&connection->body);
    text_free(&connection->header);
    text_free(&connection->input);
    text_free(&connection->output);
    free(connection->error);
    if (connection->streaming && connection->stream_gone)
        connection->stream_gone(connection->stream_context);
    free(connection);
}

static void drop(struct http_connection *connection)
{
    unlink_connection(connection->server, connection);
    connection->server->count--;
    free_connection(connection);
}

static void touch(struct http_connection *connection)
{
    unlink_connection(connection->server, connection);
    append_connection(connection->server, connection);
}

/* True if there is a place for one more. The first choice is who waits between requests; the second, who has
 * begun a request and not ended it. */
static bool make_room(struct http_server *server)
{
    if (server->count < HTTP_CONNECTIONS_MAX)
        return true;
    struct http_connection *victim = NULL;
    for (struct http_connection *at = server->first; at; at = at->next) {
        if (at->answering || at->handling || at->streaming)
            continue;
        if (!at->busy_since) {
            victim = at;
            break;
        }
        if (!victim)
            victim = at;
    }
    if (!victim)
        return false;
    server->evicted++;
    drop(victim);
    return true;
}

/* ---- Time ---- */

static void watch_listener(struct http_server *server)
{
    struct ev_loop *ev;
    if (loop_libev(server->loop, &ev) == 0) /* tells the loop of a new watcher */
        ev_io_start(ev, &server->acceptable);
}

static void start_timer(struct http_server *server)
{
    if (!server->timer.op.in_flight && !server->closing)
        loop_timer_start(server->loop, &server->timer, UINT64_C(1000000000) * HTTP_PATIENCE_SECONDS / 2);
}

static void timer_done(struct loop_op *op, int result, unsigned flags)
{
    (void)result;
    (void)flags;
    struct http_server *server = container_of(op, struct http_server, timer.op);
    if (server->closing) {
        free(server);
        return;
    }
    if (!ev_is_active(&server->acceptable))
        watch_listener(server);
    bool busy = false;
    int64_t now = now_seconds();
    for (struct http_connection *at = server->first, *next; at; at = next) {
        next = at->next;
        if (!at->busy_since || at->answering || at->streaming)
            continue;
        if (now - at->busy_since >= HTTP_PATIENCE_SECONDS) {
            server->evicted++;
            drop(at);
        } else
            busy = true;
    }
    if (busy)
        start_timer(server);
}

static void set_busy(struct http_connection *connection, bool busy)
{
    struct http_server *server = connection->server;
    if (busy == (connection->busy_since != 0))
        return;
    connection->busy_since = busy ? now_seconds() : 0;
    if (busy)
        start_timer(server);
}

/* ---- Bytes in and out ---- */

/* What one read takes at most. Shared: nothing stays in it. */
static char read_buffer[16384];

/* False if the connection is broken. */
static bool send_output(struct http_connection *connection)
{
    struct text *output = &connection->output;
    if (output->failed)
        return false;
    while (connection->sent < output->length) {
        ssize_t sent = send(connection->fd, output->at + connection->sent, output->length - connection->sent,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            return !connection->streaming || output->length - connection->sent < HTTP_UNSENT_MAX;
        if (sent < 0)
            return false;
        connection->sent += (size_t)sent;
    }
    connection->sent = 0;
    text_free(output);
    return true;
}

static void watch(struct http_connection *connection, ev_io *watcher, bool wanted)
{
    if (wanted == (bool)ev_is_active(watcher))
        return;
    struct ev_loop *ev = connection->server->ev;
    if (!wanted)
        ev_io_stop(ev, watcher);
    else if (loop_libev(connection->server->loop, &ev) == 0) /* tells the loop of a new watcher */
        ev_io_start(ev, watcher);
}

/* Does what can be done without waiting. Frees the connection when it has ended. */
static void run(struct http_connection *connection)
{
    connection->handling = true;
    bool alive;
    size_t before;
    do {
        before = connection->input.length;
        http_parse(connection);
        alive = send_output(connection);
    } while (alive && connection->input.length > 0 && connection->input.length < before);
    connection->handling = false;

    bool unsent = connection->output.length > 0;
    if ((!alive || (connection->last && !unsent)) && !connection->answering &&
        !(alive && connection->streaming)) {
        drop(connection);
        return;
    }
    watch(connection, &connection->writable, unsent && alive);
    watch(connection, &connection->readable,
          !connection->answering && !connection->last &&
              (connection->streaming || connection->output.length < HTTP_UNSENT_MAX));
    set_busy(connection, unsent || connection->begun || connection->input.length > 0);
}

/* Those that are too many are closed. */
static void take_descriptors(struct http_connection *connection, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= part->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + at, sizeof(fd));
            if (connection->descriptor_count < HTTP_DESCRIPTORS_MAX)
                connection->descriptors[connection->descriptor_count++] = fd;
            else
                close(fd);
        }
    }
}

/* recv() of bytes, and of descriptors that come with them. */
static ssize_t receive(struct http_connection *connection)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * HTTP_DESCRIPTORS_MAX)];
    } control;
    struct iovec bytes = {.iov_base = read_buffer, .iov_len = sizeof(read_buffer)};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t length = recvmsg(connection->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length >= 0)
        take_descriptors(connection, &message);
    return length;
}

static void read_ready(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)ev;
    (void)events;
    struct http_connection *connection = watcher->data;
    ssize_t length = receive(connection);
    if (length < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (length <= 0) { /* what it has asked for still goes out */
        connection->last = true;
        connection->begun = false;
        if (length < 0 || connection->streaming) {
            drop(connection);
            return;
        }
    } else if (!connection->streaming) {
        text_add(&connection->input, read_buffer, (size_t)length);
        touch(connection);
    }
    run(connection);
}

static void write_ready(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)ev;
    (void)events;
    run(watcher->data);
}

static struct http_connection *new_connection(struct http_server *server, int fd)
{
    struct http_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->server = server;
    connection->fd = fd;
    http_parser_begin(connection);
    ev_io_init(&connection->readable, read_ready, fd, EV_READ);
    ev_io_init(&connection->writable, write_ready, fd, EV_WRITE);
    connection->readable.data = connection->writable.data = connection;
    watch(connection, &connection->readable, true);
    return connection;
}

/* ---- Answers from the handler ---- */

void http_answer(struct http_request *request, const struct http_answer *answer)
{
    struct http_connection *connection = container_of(request, struct http_connection, request);
    http_write_answer(connection, answer);
    http_forget_request(connection);
    if (!connection->handling)
        run(connection);
}

void http_stream(struct http_request *request, const char *type, void (*gone)(void *context), void *context)
{
    struct http_connection *connection = container_of(request, struct http_connection, request);
    connection->streaming = true;
    connection->stream_gone = gone;
    connection->stream_context = context;
    http_write_head(connection, 200);
    text_printf(&connection->output,
                "Content-Type: %s\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n", type);
    http_forget_request(connection);
    if (!connection->handling)
        run(connection);
}

void http_stream_send(struct http_request *request, const char *bytes, size_t length)
{
    struct http_connection *connection = container_of(request, struct http_connection, request);
    if (length == 0) /* that would be the end */
        return;
    text_printf(&connection->output, "%zx\r\n", length);
    text_add(&connection->output, bytes, length);
    text_puts(&connection->output, "\r\n");
    if (!connection->handling)
        run(connection);
}

/* ---- Accepting ---- */

/* No descriptor is left: who connects now waits until the timer has run. */
static void rest(struct http_server *server)
{
    ev_io_stop(server->ev, &server->acceptable);
    start_timer(server);
}

static void accept_ready(struct ev_loop *ev, ev_io *watcher, int events)
{
    (void)ev;
    (void)events;
    struct http_server *server = watcher->data;
    /* A bounded number at a time: the loop has others to serve. */
    for (unsigned i = 0; i < 16; i++) {
        CLEANUP_FD int fd = accept4(watcher->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)) {
            rest(server);
            return;
        }
        if (fd < 0)
            return;
        if (!make_room(server))
            continue; /* every place is answered to just now: closed */
        struct http_connection *connection = new_connection(server, fd);
        if (!connection)
            continue;
        (void)fd_steal(&fd);
        append_connection(server, connection);
        server->count++;
        struct ucred peer = {0};
        socklen_t length = sizeof(peer);
        if (getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) {
            connection->request.peer_pid = peer.pid;
            connection->request.peer_uid = peer.uid;
        }
        if (server->config.connected)
            server->config.connected(server->config.context, peer.pid, peer.uid);
    }
}

int http_server_new(struct loop *loop, const struct http_config *config, struct http_server **ret_server)
{
    struct ev_loop *ev;
    int r = loop_libev(loop, &ev);
    if (r < 0)
        return r;
    struct http_server *server = calloc(1, sizeof(*server));
    if (!server)
        return fail(-ENOMEM, "no memory for the control socket");
    server->config = *config;
    server->loop = loop;
    server->ev = ev;
    server->timer.op.done = timer_done;
    fd_reserve(HTTP_CONNECTIONS_MAX);
    ev_io_init(&server->acceptable, accept_ready, config->listen_fd, EV_READ);
    server->acceptable.data = server;
    watch_listener(server);
    *ret_server = server;
    return 0;
}

void http_server_free(struct http_server *server)
{
    if (!server)
        return;
    server->closing = true;
    while (server->first)
        drop(server->first);
    ev_io_stop(server->ev, &server->acceptable);
    close(server->config.listen_fd);
    if (server->timer.op.in_flight)
        loop_cancel(server->loop, &server->timer.op);
    else
        free(server);
}

unsigned http_connections(const struct http_server *server)
{
    return server->count;
}

uint64_t http_evicted(const struct http_server *server)
{
    return server->evicted;
}
