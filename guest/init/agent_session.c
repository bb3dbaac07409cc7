/* One connection of the host's, and its command. What the other end has no room for stays where it is. */
#include "agent.h"
#include "init.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define REQUEST_PATIENCE_MS 30000
#define HANGUP_PATIENCE_MS  2000

/* The most that a command may leave in a pipe (/proc/sys/fs/pipe-max-size): what its children write later is
 * not waited for. */
#define DRAIN_MAX (1024u * 1024)

/* A host that floods shares its turn with the others. */
#define FRAMES_A_TURN 8

/* Telling the host of less than this is not worth a frame, as long as the command has something to read. */
#define CREDIT_STEP (AGENT_STDIN_WINDOW / 4)

struct session *session_new(int conn)
{
    /* From the kernel itself: pages of it that are never used cost nothing, and all go back. */
    struct session *session =
        mmap(NULL, sizeof(*session), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (session == MAP_FAILED)
        return NULL;
    session->conn = conn;
    session->command = (struct agent_command){.input = -1, .output = {-1, -1}};
    session->deadline_ms = agent_now_ms() + REQUEST_PATIENCE_MS;
    return session;
}

static void close_all(struct session *session)
{
    cleanup_fd(&session->conn);
    cleanup_fd(&session->command.input);
    cleanup_fd(&session->command.output[0]);
    cleanup_fd(&session->command.output[1]);
}

void session_free(struct session *session)
{
    close_all(session);
    munmap(session, sizeof(*session));
}

/* The command's process group; the command alone in the moment before it has one. */
static int signal_group(const struct session *session, int number)
{
    if (kill(-session->command.pid, number) == 0)
        return 0;
    return session->reaped ? -1 : kill(session->command.pid, number);
}

/* The connection is gone, or is to go: so does the command. */
static void hang_up(struct session *session)
{
    close_all(session);
    session->deadline_ms = 0;
    if (session->command.pid == 0)
        return;
    signal_group(session, SIGHUP);
    signal_group(session, SIGCONT);
    session->deadline_ms = agent_now_ms() + HANGUP_PATIENCE_MS;
}

bool session_is_over(struct session *session, int64_t now_ms)
{
    bool late = session->deadline_ms && now_ms >= session->deadline_ms;
    if (session->conn >= 0 && late)
        hang_up(session);
    if (session->conn >= 0)
        return false;
    if (session->command.pid == 0)
        return true;
    if (session->reaped && signal_group(session, 0) != 0)
        return true;
    if (late) {
        signal_group(session, SIGKILL);
        session->deadline_ms = session->reaped ? 0 : now_ms + HANGUP_PATIENCE_MS;
        return session->reaped;
    }
    return false;
}

/* ---- To the host ---- */

static void put(struct session *session, enum agent_type type, uint32_t length)
{
    agent_header_write(session->output, type, length);
    session->size = AGENT_HEADER + length;
    session->sent = 0;
}

static void put_number(struct session *session, enum agent_type type, uint32_t number)
{
    agent_put32(session->output + AGENT_HEADER, number);
    put(session, type, 4);
}

/* Ends the session with the message of fail(). In the midst of another frame there is no place for words. */
static void refuse(struct session *session, enum agent_error error)
{
    size_t length = strnlen(fail_text(), AGENT_WORDS_MAX);
    if (session->size) {
        hang_up(session);
        return;
    }
    memcpy(session->output + AGENT_HEADER + 4, fail_text(), length);
    agent_put32(session->output + AGENT_HEADER, error);
    put(session, AGENT_ERROR, 4 + (uint32_t)length);
    session->closing = true;
}

/* True once nothing waits to be sent. */
static bool flush(struct session *session)
{
    while (session->sent < session->size) {
        ssize_t sent = send(session->conn, session->output + session->sent, session->size - session->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            hang_up(session);
        if (sent < 0)
            return false;
        session->sent += (size_t)sent;
    }
    session->size = session->sent = 0;
    return true;
}

/* A frame of what the command says. A stream without bytes is at its end once the command is. */
static bool read_stream(struct session *session, unsigned stream)
{
    int *fd = &session->command.output[stream];
    if (*fd < 0)
        return false;
    size_t room = session->reaped ? MIN(session->drain, AGENT_DATA_MAX) : AGENT_DATA_MAX;
    ssize_t got = room == 0 ? 0 : read(*fd, session->output + AGENT_HEADER, room);
    if (got > 0) {
        put(session, stream == 0 ? AGENT_STDOUT : AGENT_STDERR, (uint32_t)got);
        if (session->reaped)
            session->drain -= (size_t)got;
        return true;
    }
    if (got < 0 && errno == EINTR)
        return false;
    if (got == 0 || errno != EAGAIN || session->reaped)
        cleanup_fd(fd);
    return false;
}

static bool next_frame(struct session *session)
{
    if (session->credit && (session->credit >= CREDIT_STEP || session->queued == 0)) {
        put_number(session, AGENT_CREDIT, session->credit);
        session->credit = 0;
        return true;
    }
    for (unsigned tries = 0; tries < 2; tries++)
        if (read_stream(session, session->turn++ % 2))
            return true;
    if (!session->reaped || session->command.output[0] >= 0 || session->command.output[1] >= 0)
        return false;
    put_number(session, AGENT_EXIT,
               (uint32_t)(WIFSIGNALED(session->status) ? 128 + WTERMSIG(session->status)
                                                       : WEXITSTATUS(session->status)));
    session->command.pid = 0; /* what it leaves in the background goes on */
    session->closing = true;
    return true;
}

static void send_frames(struct session *session)
{
    for (unsigned frames = 0; session->conn >= 0 && flush(session) && frames < FRAMES_A_TURN; frames++) {
        if (session->closing) {
            hang_up(session);
            return;
        }
        if (!session->asked || !next_frame(session))
            return;
    }
}

/* ---- To the command ---- */

static void drop_input(struct session *session)
{
    cleanup_fd(&session->command.input);
    session->credit += (uint32_t)session->queued;
    session->queued = 0;
}

/* At the end of a terminal's input is what Ctrl-D sends. */
static void end_input(struct session *session)
{
    if (session->tty && session->command.input >= 0)
        (void)!write(session->command.input, "\4", 1);
    cleanup_fd(&session->command.input);
}

static void feed(struct session *session)
{
    while (session->queued > 0 && session->command.input >= 0) {
        ssize_t written =
            write(session->command.input, session->queue + session->queue_start, session->queued);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return;
        if (written < 0) {
            drop_input(session);
            return;
        }
        session->queue_start += (size_t)written;
        session->queued -= (size_t)written;
        session->credit += (uint32_t)written;
    }
    if (session->end_of_input)
        end_input(session);
}

static int take_input(struct session *session, const struct agent_frame *frame)
{
    if (session->end_of_input)
        return fail(-EPROTO, "standard input behind its end");
    if (session->queued + session->credit + frame->length > AGENT_STDIN_WINDOW)
        return fail(-EPROTO, "more standard input than there is credit for");
    if (session->command.input < 0) { /* nobody reads it */
        session->credit += frame->length;
        return 0;
    }
    if (session->queue_start + session->queued + frame->length > sizeof(session->queue)) {
        memmove(session->queue, session->queue + session->queue_start, session->queued);
        session->queue_start = 0;
    }
    memcpy(session->queue + session->queue_start + session->queued, frame->body, frame->length);
    session->queued += frame->length;
    feed(session);
    return 0;
}

static void take_window(const struct session *session, const struct agent_frame *frame)
{
    struct winsize size = {0};
    agent_get_window(frame->body, &size.ws_row, &size.ws_col);
    if (session->tty && session->command.output[0] >= 0)
        ioctl(session->command.output[0], TIOCSWINSZ, &size);
}

static int take_signal(const struct session *session, const struct agent_frame *frame)
{
    uint32_t number = agent_get32(frame->body);
    if (number == 0 || number > AGENT_SIGNAL_MAX)
        return fail(-EPROTO, "signal %u: there is none such", number);
    if (!session->reaped)
        signal_group(session, (int)number);
    return 0;
}

static int take_first(struct session *session, const struct agent_frame *frame, enum agent_error *ret_error)
{
    static struct agent_request request;
    int r = frame->type == AGENT_EXEC        ? agent_request_read(frame->body, frame->length, &request)
            : frame->type == AGENT_POWER_OFF ? agent_greeting_read(frame->body)
                                             : fail(-EPROTO, "the first frame asks for nothing");
    *ret_error = r == -EPROTONOSUPPORT ? AGENT_ERROR_VERSION : AGENT_ERROR_PROTOCOL;
    if (r < 0)
        return r;
    if (frame->type == AGENT_POWER_OFF) {
        session->power_off = true;
        put_number(session, AGENT_EXIT, 0);
        session->closing = true;
        return 0;
    }
    *ret_error = AGENT_ERROR_START;
    r = agent_command_start(&request, &session->command);
    if (r < 0)
        return r;
    session->asked = true;
    session->tty = request.flags & AGENT_WITH_TTY;
    session->deadline_ms = 0;
    return 0;
}

static void take(struct session *session, const struct agent_frame *frame)
{
    enum agent_error error = AGENT_ERROR_PROTOCOL;
    int r = 0;
    if (!session->asked)
        r = take_first(session, frame, &error);
    else if (frame->type == AGENT_STDIN)
        r = take_input(session, frame);
    else if (frame->type == AGENT_SIGNAL)
        r = take_signal(session, frame);
    else if (frame->type == AGENT_WINDOW)
        take_window(session, frame);
    else if (frame->type == AGENT_STDIN_EOF) {
        session->end_of_input = true;
        feed(session);
    } else
        r = fail(-EPROTO, "a second request");
    if (r < 0)
        refuse(session, error);
}

static void receive(struct session *session)
{
    /* There is room: whole frames have been taken, and none is larger. */
    ssize_t got = recv(session->conn, session->input + session->received,
                       sizeof(session->input) - session->received, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        hang_up(session);
        return;
    }
    session->received += (size_t)got;
    size_t at = 0;
    while (session->conn >= 0 && !session->closing) {
        struct agent_frame frame;
        ssize_t size = agent_frame_read(session->input + at, session->received - at, AGENT_HOST, &frame);
        if (size < 0)
            refuse(session, AGENT_ERROR_PROTOCOL);
        if (size <= 0)
            break;
        take(session, &frame);
        at += (size_t)size;
    }
    if (session->closing) {
        session->received = 0; /* nothing more is of interest */
        return;
    }
    session->received -= at;
    memmove(session->input, session->input + at, session->received);
}

/* ---- The turn ---- */

void session_waits(const struct session *session, struct pollfd waits[AGENT_POLLS_EACH])
{
    bool sending = session->size > 0;
    if (session->conn < 0)
        return;
    waits[0] = (struct pollfd){.fd = session->conn, .events = (short)(POLLIN | (sending ? POLLOUT : 0))};
    if (session->queued > 0)
        waits[1] = (struct pollfd){.fd = session->command.input, .events = POLLOUT};
    for (int i = 0; i < 2; i++)
        if (!sending)
            waits[2 + i] = (struct pollfd){.fd = session->command.output[i], .events = POLLIN};
}

bool session_is_ready(const struct session *session)
{
    return session->conn >= 0 && session->size == 0 && (session->reaped || session->closing);
}

void session_serve(struct session *session, const struct pollfd waits[AGENT_POLLS_EACH])
{
    if (session->conn >= 0 && (waits[0].revents & ~POLLOUT))
        receive(session);
    if (session->conn >= 0 && waits[1].revents)
        feed(session);
    bool any = waits[0].revents || waits[1].revents || waits[2].revents || waits[3].revents;
    if (session->conn >= 0 && (any || session_is_ready(session)))
        send_frames(session);
}

void session_child_ended(struct session *session, int status)
{
    session->reaped = true;
    session->status = status;
    session->drain = DRAIN_MAX;
    if (session->conn >= 0)
        drop_input(session);
}
