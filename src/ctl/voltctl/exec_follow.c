/* `voltctl exec`: the streams, signals and window's size of a command, until it ends. */
#include "ctl/voltctl/agent.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#define STREAM_FRAME (AGENT_HEADER + AGENT_DATA_MAX)
/* So many of them, and voltctl gives up on a command that does not end. */
#define INTERRUPTS_MAX 3

struct following {
    const char *name;
    int conn, signals, input; /* input: -1 behind its end */
    int output[2];
    bool tty, deaf; /* deaf: the guest takes nothing more */
    int status;     /* -1: it runs */
    unsigned interrupts;
    uint32_t credit;
    const uint8_t *pending; /* of a frame, for output[stream] */
    size_t pending_length, taken;
    unsigned stream;
    size_t received, sent, queued;
    uint8_t in[AGENT_HEADER + AGENT_DATA_MAX];
    uint8_t out[2 * STREAM_FRAME]; /* one of standard input, and small ones */
};

enum { WAIT_CONN, WAIT_SIGNAL, WAIT_INPUT, WAIT_OUTPUT, WAITS };

/* ---- To the guest ---- */

/* Small frames have room as long as the guest takes anything; else they are lost. */
static uint8_t *add_frame(struct following *f, enum agent_type type, uint32_t length)
{
    if (f->deaf || sizeof(f->out) - f->queued < AGENT_HEADER + length)
        return NULL;
    uint8_t *frame = f->out + f->queued;
    agent_header_write(frame, type, length);
    f->queued += AGENT_HEADER + length;
    return frame + AGENT_HEADER;
}

static void send_queued(struct following *f)
{
    while (f->sent < f->queued) {
        ssize_t sent = send(f->conn, f->out + f->sent, f->queued - f->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0) { /* what it said before is still to be read */
            f->deaf = true;
            break;
        }
        f->sent += (size_t)sent;
    }
    f->sent = f->queued = 0;
}

static void take_input(struct following *f)
{
    uint8_t bytes[AGENT_DATA_MAX];
    ssize_t got = read(f->input, bytes, MIN(f->credit, sizeof(bytes)));
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        f->input = -1;
        (void)add_frame(f, AGENT_STDIN_EOF, 0);
        return;
    }
    uint8_t *body = add_frame(f, AGENT_STDIN, (uint32_t)got);
    if (body)
        memcpy(body, bytes, (size_t)got);
    f->credit -= (uint32_t)got;
}

static void take_signal(struct following *f)
{
    struct signalfd_siginfo sent;
    struct winsize size = {0};
    uint8_t *body;
    if (read(f->signals, &sent, sizeof(sent)) != (ssize_t)sizeof(sent))
        return;
    if (sent.ssi_signo != SIGWINCH) {
        body = add_frame(f, AGENT_SIGNAL, 4);
        if (body)
            agent_put32(body, sent.ssi_signo);
        if (sent.ssi_signo == SIGINT && ++f->interrupts == INTERRUPTS_MAX)
            f->status = 128 + SIGINT;
    } else if (f->tty && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
        body = add_frame(f, AGENT_WINDOW, 4);
        if (body)
            agent_put_window(body, size.ws_row, size.ws_col);
    }
}

/* ---- From the guest ---- */

static int take_frame(struct following *f, const struct agent_frame *frame)
{
    uint32_t number = frame->length >= 4 ? agent_get32(frame->body) : 0;
    switch (frame->type) {
    case AGENT_STDOUT:
    case AGENT_STDERR:
        f->stream = frame->type == AGENT_STDERR;
        f->pending = frame->body;
        f->pending_length = frame->length;
        return 0;
    case AGENT_CREDIT:
        if (number > AGENT_STDIN_WINDOW - f->credit)
            return fail(-EPROTO, "%s: its guest's agent took more than it got", f->name);
        f->credit += number;
        return 0;
    case AGENT_EXIT:
        if (number > 255)
            return fail(-EPROTO, "%s: exit status %u from its guest's agent", f->name, number);
        f->status = (int)number;
        return 0;
    default: return agent_refused(f->name, frame);
    }
}

/* Takes frames until one has bytes for a stream, or nothing whole is left. */
static int take_frames(struct following *f)
{
    while (!f->pending && f->status < 0) {
        struct agent_frame frame;
        ssize_t size = agent_frame_read(f->in + f->taken, f->received - f->taken, AGENT_GUEST, &frame);
        if (size < 0)
            return fail(-EPROTO, "%s: its guest's agent sent what is no frame", f->name);
        if (size == 0)
            break;
        f->taken += (size_t)size;
        int r = take_frame(f, &frame);
        if (r < 0)
            return r;
    }
    if (!f->pending) {
        f->received -= f->taken;
        memmove(f->in, f->in + f->taken, f->received);
        f->taken = 0;
    }
    return 0;
}

static int receive(struct following *f)
{
    ssize_t got = recv(f->conn, f->in + f->received, sizeof(f->in) - f->received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0)
        return fail(-EPIPE, "%s: the guest went away before the command ended", f->name);
    f->received += (size_t)got;
    return 0;
}

/* A reader that is gone ends the command, as the signal would that it sends to a local one. */
static int write_pending(struct following *f)
{
    ssize_t written = write(f->output[f->stream], f->pending, f->pending_length);
    if (written < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (written < 0 && errno == EPIPE) {
        f->status = 128 + SIGPIPE;
        return 0;
    }
    if (written < 0)
        return fail_errno(-errno, "standard %s", f->stream ? "error" : "output");
    f->pending += written;
    f->pending_length -= (size_t)written;
    if (f->pending_length == 0)
        f->pending = NULL;
    return 0;
}

/* ---- The loop ---- */

static int turn(struct following *f)
{
    struct pollfd waits[WAITS] = {
        [WAIT_SIGNAL] = {.fd = f->signals, .events = POLLIN},
        [WAIT_INPUT] = {.fd = f->credit && !f->queued && !f->deaf ? f->input : -1, .events = POLLIN},
        [WAIT_OUTPUT] = {.fd = f->pending ? f->output[f->stream] : -1, .events = POLLOUT},
    };
    short wanted = (short)((f->pending ? 0 : POLLIN) | (f->queued ? POLLOUT : 0));
    waits[WAIT_CONN] = (struct pollfd){.fd = wanted ? f->conn : -1, .events = wanted};
    int r = 0;
    if (poll(waits, WAITS, -1) < 0)
        return errno == EINTR ? 0 : fail_errno(-errno, "poll");
    if (waits[WAIT_SIGNAL].revents)
        take_signal(f);
    if (waits[WAIT_INPUT].revents)
        take_input(f);
    if (f->queued)
        send_queued(f);
    if (waits[WAIT_OUTPUT].revents)
        r = write_pending(f);
    /* With something pending there may be no room. */
    if (r == 0 && (wanted & POLLIN) && (waits[WAIT_CONN].revents & ~POLLOUT))
        r = receive(f);
    return r < 0 ? r : take_frames(f);
}

static int block_signals(void)
{
    static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
        sigaddset(&set, passed[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int agent_follow(const char *name, int conn, bool tty)
{
    static struct following f;
    f = (struct following){
        .name = name,
        .conn = conn,
        .tty = tty,
        .signals = block_signals(),
        .status = -1,
        .credit = AGENT_STDIN_WINDOW,
        .input = fd_own_description(STDIN_FILENO, O_RDONLY),
        .output = {fd_own_description(STDOUT_FILENO, O_WRONLY), fd_own_description(STDERR_FILENO, O_WRONLY)}};
    if (f.signals < 0)
        return fail_errno(-errno, "signals");
    int r = 0;
    while (r == 0 && f.status < 0)
        r = turn(&f);
    close(f.signals);
    return r < 0 ? r : f.status;
}
