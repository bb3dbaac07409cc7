/* The host's side of virtio-vsock: programs that connect to PATH, and those that listen on PATH_PORT. */
#include "dev/virtio_vsock_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Ports of the host's for connections that a host program began: none that a guest means by itself. */
#define HOST_PORT_BASE (1u << 30)

/* ---- PATH ---- */

static void accepted(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_vsock *vsock = container_of(op, struct virtio_vsock, accept_op);
    struct vsock_conn *conn = NULL;
    (void)flags;
    if (result >= 0) {
        int mode = fcntl(result, F_GETFL);
        if (mode >= 0 && fcntl(result, F_SETFL, mode | O_NONBLOCK) == 0)
            conn = vsock_conn_new(vsock, result, VSOCK_GREETING);
        if (!conn)
            close(result);
    }
    if (vsock_op_ended(vsock))
        return;
    if (conn)
        vsock_conn_watch(conn);
    /* Without descriptors or memory the next try would fail as well. */
    if (result < 0 && result != -ECONNABORTED && result != -EINTR && result != -EAGAIN) {
        vsock->counters.accept_failures++;
        vsock->accept_stalled = true;
        vsock_arm_timer(vsock);
        return;
    }
    vsock_accept(vsock);
}

void vsock_accept(struct virtio_vsock *vsock)
{
    if (vsock->accept_op.in_flight || !vsock_runs(vsock) ||
        vsock->counters.connections >= VSOCK_CONNECTIONS_MAX)
        return;
    vsock->accept_stalled = false;
    vsock->accept_op.done = accepted;
    loop_accept(vsock->device.loop, &vsock->accept_op, vsock->listener.fd);
    vsock->in_flight++;
}

/* "CONNECT 1234", in any case, with a line feed behind it. */
static bool parse_line(const char *line, uint32_t *ret_port)
{
    static const char word[] = "connect";
    char *end = NULL;
    const char *at = line + strspn(line, " \t");
    if (strncasecmp(at, word, strlen(word)) != 0)
        return false;
    at += strlen(word);
    size_t blanks = strspn(at, " \t");
    if (!blanks || at[blanks] < '0' || at[blanks] > '9')
        return false;
    errno = 0;
    unsigned long long port = strtoull(at + blanks, &end, 10);
    if (errno || port > UINT32_MAX || end[strspn(end, " \t\r\n")])
        return false;
    *ret_port = (uint32_t)port;
    return true;
}

static void request(struct vsock_conn *conn, uint32_t port)
{
    struct virtio_vsock *vsock = conn->vsock;
    conn->guest_port = port;
    do {
        conn->host_port = HOST_PORT_BASE | (vsock->next_port++ % HOST_PORT_BASE);
    } while (vsock_conn_find(vsock, port, conn->host_port));
    conn->state = VSOCK_REQUESTED;
    conn->readable = true; /* what it said together with its line is seen when it is read */
    conn->owes |= OWES_REQUEST;
    vsock_conn_list(conn);
    vsock_conn_ready(conn);
}

/* Only the line is taken out of the socket: what follows is for the guest. */
void vsock_greet(struct vsock_conn *conn)
{
    char *at = conn->line + conn->line_length;
    size_t left = sizeof(conn->line) - 1 - conn->line_length;
    ssize_t seen = recv(conn->fd, at, left, MSG_PEEK);
    if (seen < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (seen > 0) {
        const char *feed = memchr(at, '\n', (size_t)seen);
        size_t length = feed ? (size_t)(feed - at) + 1 : (size_t)seen;
        uint32_t port;
        seen = recv(conn->fd, at, length, 0);
        conn->line_length += (uint32_t)length;
        if (!feed && seen == (ssize_t)length && length < left)
            return;
        at[length] = '\0';
        if (feed && seen == (ssize_t)length && strlen(conn->line) == conn->line_length &&
            parse_line(conn->line, &port)) {
            request(conn, port);
            return;
        }
    }
    vsock_conn_end(conn); /* it went away, or speaks something else */
}

void vsock_tell_open(struct vsock_conn *conn)
{
    char line[24];
    int length = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);
    /* The first bytes in an empty socket fit. One that is gone is noticed by what it does next. */
    (void)!send(conn->fd, line, (size_t)length, MSG_NOSIGNAL);
}

/* ---- PATH_PORT ---- */

int vsock_connect(const struct virtio_vsock *vsock, uint32_t port, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", vsock->path, port);
    if (length < 0 || (size_t)length >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* A non-blocking connect to a Unix socket never waits: with too many before it it fails (EAGAIN). By the
     * ring it would wait, on a thread of the kernel's for each. */
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    *ret_fd = fd_steal(&fd);
    return 0;
}
