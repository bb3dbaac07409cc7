/* The way to the agent: the VM's vsock socket, by Firecracker's convention. */
#include "ctl/voltctl/agent.h"

#include "ctl/json.h"
#include "ctl/keys.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

/* The socket as the VM names it: relative to the folder in which its process runs. */
static int vsock_path(const struct invocation *invocation, char ret_path[PATH_MAX])
{
    struct keys_config config;
    pid_t pid;
    int r = vm_config(invocation, &config, &pid);
    if (r < 0)
        return r;
    const char *path = config.vsock ? config.vsock->uds_path : NULL;
    int length = 0;
    if (!path)
        r = fail(-ENODEV,
                 "%s: has no vsock device to reach its guest by (start it with --vsock cid=3,uds=PATH)",
                 invocation->name);
    else if (path[0] == '/')
        length = snprintf(ret_path, PATH_MAX, "%s", path);
    else
        length = snprintf(ret_path, PATH_MAX, "/proc/%d/cwd/%s", (int)pid, path);
    if (length >= PATH_MAX)
        r = fail(-ENAMETOOLONG, "%s: the path of its vsock socket is too long", invocation->name);
    json_free(&keys_config_struct, &config);
    return r;
}

static int connect_socket(const struct invocation *invocation, const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const struct timeval patience = {.tv_sec = AGENT_PATIENCE_SECONDS};
    if (strlen(path) >= sizeof(address.sun_path))
        return fail(-ENAMETOOLONG, "%s: its vsock socket %s: a socket's path has at most %zu bytes",
                    invocation->name, path, sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0) {
        int error = -errno;
        if (strncmp(path, "/proc/", 6) == 0)
            return fail_errno(error,
                              "%s: its vsock socket %s (give --vsock an absolute path for uds=, if the "
                              "VM's folder is not to be seen from here)",
                              invocation->name, path);
        return fail_errno(error, "%s: its vsock socket %s", invocation->name, path);
    }
    *ret_fd = fd_steal(&fd);
    return 0;
}

static int send_all(int fd, const void *bytes, size_t length)
{
    for (size_t sent = 0; sent < length;) {
        ssize_t r = send(fd, (const char *)bytes + sent, length - sent, MSG_NOSIGNAL);
        if (r < 0 && errno != EINTR)
            return -errno;
        sent += (size_t)MAX(r, 0);
    }
    return 0;
}

/* "OK N" with a line feed, and not a byte of what follows. */
static int read_greeting(int fd)
{
    char line[32];
    size_t length = 0;
    for (;;) {
        ssize_t seen = recv(fd, line + length, sizeof(line) - 1 - length, MSG_PEEK);
        if (seen < 0 && errno == EINTR)
            continue;
        if (seen < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -ENOTCONN;
        const char *feed = memchr(line + length, '\n', (size_t)seen);
        size_t take = feed ? (size_t)(feed - line - (ptrdiff_t)length) + 1 : (size_t)seen;
        if (seen == 0 || recv(fd, line + length, take, 0) != (ssize_t)take)
            return -ENOTCONN;
        length += take;
        if (feed)
            return strncmp(line, "OK ", 3) == 0 ? 0 : -EPROTO;
        if (length == sizeof(line) - 1)
            return -EPROTO;
    }
}

int agent_connect(const struct invocation *invocation, const uint8_t *frame, size_t length, int *ret_fd)
{
    char path[PATH_MAX], line[32];
    CLEANUP_FD int fd = -1;
    int r = vsock_path(invocation, path);
    if (r == 0)
        r = connect_socket(invocation, path, &fd);
    if (r < 0)
        return r;
    /* The request waits in the socket until somebody answers: one round trip for both. */
    int line_length = snprintf(line, sizeof(line), "CONNECT %u\n", AGENT_PORT);
    if (send_all(fd, line, (size_t)line_length) == 0)
        (void)send_all(fd, frame, length); /* what is wrong is told by the answer */
    r = read_greeting(fd);
    if (r == -ETIMEDOUT)
        return fail(r, "%s: its guest does not answer (is it paused?)", invocation->name);
    if (r == -EPROTO)
        return fail(r, "%s: its vsock socket %s is none", invocation->name, path);
    if (r < 0)
        return fail(
            r,
            "%s: no agent answers in its guest: the guest's init is not volt-init, it has no vsock driver, "
            "or it is still starting",
            invocation->name);
    *ret_fd = fd_steal(&fd);
    return 0;
}

int agent_refused(const char *name, const struct agent_frame *frame)
{
    char words[AGENT_WORDS_MAX + 1];
    size_t length = frame->length - 4;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = frame->body[4 + i];
        words[i] = byte < ' ' || byte == 0x7f ? '?' : (char)byte;
    }
    words[length] = '\0';
    return fail(-EREMOTEIO, "%s: its guest's agent: %s", name, words);
}

int agent_power_off(const struct invocation *invocation)
{
    uint8_t frame[AGENT_HEADER + AGENT_POWER_OFF_BODY], answer[AGENT_HEADER + 4 + AGENT_WORDS_MAX];
    CLEANUP_FD int fd = -1;
    struct agent_frame got;
    ssize_t size = 0;
    agent_power_off_write(frame);
    int r = agent_connect(invocation, frame, sizeof(frame), &fd);
    for (size_t length = 0; r == 0 && size == 0;) {
        ssize_t more = recv(fd, answer + length, sizeof(answer) - length, 0);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            return fail(-ENOTCONN, "%s: its guest's agent does not answer", invocation->name);
        length += (size_t)more;
        size = agent_frame_read(answer, length, AGENT_GUEST, &got);
        if (size < 0)
            r = (int)size;
        else if (size == 0 && length == sizeof(answer))
            r = fail(-EPROTO, "%s: its guest's agent says too much", invocation->name);
    }
    if (r < 0)
        return r;
    if (got.type == AGENT_ERROR)
        return agent_refused(invocation->name, &got);
    return got.type == AGENT_EXIT ? 0 : fail(-EPROTO, "%s: its guest's agent is confused", invocation->name);
}
