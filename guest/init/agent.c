/* The agent's listener and its table of sessions. */
#include "agent.h"
#include "init.h"

#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* include/uapi/linux/vm_sockets.h: musl comes without the kernel's headers. */
struct vsock_address {
    sa_family_t family;
    uint16_t reserved;
    uint32_t port, cid;
    uint8_t zero[4];
};
#define CID_ANY  UINT32_MAX
#define CID_HOST 2u

/* There with the driver, built in or loaded. Without it socket() would make the kernel start modprobe. */
#define DRIVER_FOLDER "/sys/bus/virtio/drivers/vmw_vsock_virtio_transport"

static int listener = -1;
static struct session *sessions[AGENT_SESSIONS_MAX];

int64_t agent_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void agent_start(void)
{
    const struct vsock_address address = {.family = AF_VSOCK, .port = AGENT_PORT, .cid = CID_ANY};
    if (access(DRIVER_FOLDER, F_OK) != 0)
        return;
    listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, AGENT_SESSIONS_MAX) != 0) {
        say("agent: vsock port %u: %s", AGENT_PORT, strerror(errno));
        cleanup_fd(&listener);
    }
}

nfds_t agent_waits(struct pollfd waits[AGENT_POLLS], int *ret_timeout_ms)
{
    nfds_t count = 1;
    int64_t now = agent_now_ms(), timeout = -1;
    waits[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    for (size_t i = 0; i < AGENT_SESSIONS_MAX; i++) {
        struct pollfd *own = waits + 1 + i * AGENT_POLLS_EACH;
        for (size_t j = 0; j < AGENT_POLLS_EACH; j++)
            own[j] = (struct pollfd){.fd = -1};
        if (!sessions[i])
            continue;
        count = 1 + (i + 1) * AGENT_POLLS_EACH;
        session_waits(sessions[i], own);
        int64_t left = session_is_ready(sessions[i]) ? 0 : sessions[i]->deadline_ms - now;
        if ((sessions[i]->deadline_ms || left == 0) && (timeout < 0 || left < timeout))
            timeout = MAX(left, 0);
    }
    *ret_timeout_ms = (int)timeout;
    return count;
}

/* For a connection that gets no session. What does not fit at once is not sent. */
static void turn_away(int conn, const char *words)
{
    uint8_t frame[AGENT_HEADER + 4 + AGENT_WORDS_MAX];
    uint32_t length = (uint32_t)strlen(words);
    agent_header_write(frame, AGENT_ERROR, 4 + length);
    agent_put32(frame + AGENT_HEADER, AGENT_ERROR_BUSY);
    memcpy(frame + AGENT_HEADER + 4, words, length);
    (void)!send(conn, frame, AGENT_HEADER + 4 + length, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(conn);
}

/* Only the host may have commands run: a program in this guest that reaches its own vsock may not, nor may a
 * guest inside this guest. */
static void accept_one(void)
{
    struct vsock_address peer = {0};
    socklen_t length = sizeof(peer);
    int conn = accept4(listener, (struct sockaddr *)&peer, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (conn < 0)
        return;
    if (peer.family != AF_VSOCK || peer.cid != CID_HOST) {
        close(conn);
        return;
    }
    size_t i = 0;
    while (i < AGENT_SESSIONS_MAX && sessions[i])
        i++;
    if (i == AGENT_SESSIONS_MAX) {
        turn_away(conn, "too many commands run already (at most 64)");
        return;
    }
    sessions[i] = session_new(conn);
    if (!sessions[i])
        turn_away(conn, "no memory");
}

bool agent_serve(const struct pollfd waits[AGENT_POLLS])
{
    bool power_off = false;
    int64_t now = agent_now_ms();
    for (size_t i = 0; i < AGENT_SESSIONS_MAX; i++) {
        if (!sessions[i])
            continue;
        session_serve(sessions[i], waits + 1 + i * AGENT_POLLS_EACH);
        power_off = power_off || sessions[i]->power_off;
        if (session_is_over(sessions[i], now)) {
            session_free(sessions[i]);
            sessions[i] = NULL;
        }
    }
    if (waits[0].revents)
        accept_one(); /* behind the others: what poll() said of a slot is not said of a new session in it */
    return power_off;
}

void agent_child_ended(pid_t pid, int status)
{
    for (size_t i = 0; i < AGENT_SESSIONS_MAX; i++)
        if (sessions[i] && !sessions[i]->reaped && sessions[i]->command.pid == pid)
            session_child_ended(sessions[i], status);
}
