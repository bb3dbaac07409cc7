/* The agent's frames, and one session of volt-init's agent over a pair of sockets. Compiled from its own
 * sources. */
#include "agent/frame.h"

#include "../../guest/init/agent_command.c"
#include "../../guest/init/agent_session.c"

#include <criterion/criterion.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(frames, .timeout = 20);
TestSuite(session, .timeout = 60);

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vdprintf(STDERR_FILENO, format, arguments);
    va_end(arguments);
}

int64_t agent_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- Frames ---- */

static ssize_t read_one(uint8_t type, uint8_t reserved, uint32_t length, enum agent_side from)
{
    static uint8_t bytes[AGENT_FRAME_MAX];
    struct agent_frame frame;
    bytes[0] = type;
    bytes[1] = 0;
    bytes[2] = reserved;
    agent_put32(bytes + 4, length);
    return agent_frame_read(bytes, sizeof(bytes), from, &frame);
}

Test(frames, are_bounded)
{
    cr_assert(read_one(AGENT_STDIN, 0, 1, AGENT_HOST) == 9, "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 0, AGENT_DATA_MAX, AGENT_HOST) == AGENT_HEADER + AGENT_DATA_MAX,
              "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 0, 0, AGENT_HOST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 0, AGENT_DATA_MAX + 1, AGENT_HOST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 0, UINT32_MAX, AGENT_HOST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 1, 1, AGENT_HOST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_STDIN, 0, 1, AGENT_GUEST) == -EPROTO, "of the other side");
    cr_assert(read_one(AGENT_STDOUT, 0, 1, AGENT_HOST) == -EPROTO, "of the other side");
    cr_assert(read_one(AGENT_STDIN_EOF, 0, 1, AGENT_HOST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_EXIT, 0, 3, AGENT_GUEST) == -EPROTO, "not as it should be");
    cr_assert(read_one(AGENT_ERROR, 0, 4 + AGENT_WORDS_MAX + 1, AGENT_GUEST) == -EPROTO,
              "not as it should be");
    for (unsigned type = 0; type < 256; type++) {
        bool known =
            (type >= AGENT_EXEC && type <= AGENT_WINDOW) || (type >= AGENT_STDOUT && type <= AGENT_ERROR);
        ssize_t least =
            MAX(read_one((uint8_t)type, 0, 4, AGENT_HOST), read_one((uint8_t)type, 0, 4, AGENT_GUEST));
        cr_assert(known || least == -EPROTO, "type %u", type);
    }
}

Test(frames, come_in_parts)
{
    uint8_t bytes[AGENT_HEADER + 5] = {0};
    struct agent_frame frame = {0};
    agent_header_write(bytes, AGENT_STDOUT, 5);
    for (size_t length = 0; length < sizeof(bytes); length++)
        cr_assert(agent_frame_read(bytes, length, AGENT_GUEST, &frame) == 0,
                  "it is not read as it should be");
    cr_assert(agent_frame_read(bytes, sizeof(bytes), AGENT_GUEST, &frame) == (ssize_t)sizeof(bytes),
              "it is not read as it should be");
    cr_assert(frame.length == 5 && frame.body == bytes + AGENT_HEADER, "it is not what was written");
}

static struct agent_request wanted, got;
static uint8_t bytes[AGENT_FRAME_MAX];

static size_t some_request(void)
{
    wanted = (struct agent_request){.flags = AGENT_WITH_TTY | AGENT_WITH_USER,
                                    .uid = 1,
                                    .gid = 70000,
                                    .rows = 33,
                                    .columns = 777,
                                    .directory = "/tmp",
                                    .argument_count = 3,
                                    .variable_count = 1,
                                    .arguments = {"echo", "", "b c"},
                                    .variables = {"X="}};
    ssize_t size = agent_request_write(&wanted, bytes);
    cr_assert(size > 0, "it is not written");
    return (size_t)size - AGENT_HEADER;
}

Test(frames, carry_a_request)
{
    size_t length = some_request();
    cr_assert(agent_request_read(bytes + AGENT_HEADER, length, &got) == 0, "it is not read as it should be");
    cr_assert(got.flags == wanted.flags && got.uid == 1 && got.gid == 70000 && got.rows == 33,
              "it is not what was written");
    cr_assert(got.columns == 777 && got.argument_count == 3 && got.variable_count == 1,
              "it is not what was written");
    cr_assert_str_eq(got.directory, "/tmp", "it is %s", got.directory);
    cr_assert_str_eq(got.arguments[1], "", "it is %s", got.arguments[1]);
    cr_assert_str_eq(got.arguments[2], "b c", "it is %s", got.arguments[2]);
    cr_assert(!got.arguments[3] && !got.variables[1], "it is not what was written");
    cr_assert_str_eq(got.variables[0], "X=", "it is %s", got.variables[0]);
}

Test(frames, refuse_hostile_requests)
{
    static const struct {
        size_t at;
        uint8_t value;
        int error;
    } rows[] = {
        {0, 0, -EPROTO},  {4, 2, -EPROTONOSUPPORT}, {6, 7, -EPROTO},      {20, 0, -EPROTO},
        {20, 4, -EPROTO}, {20, 200, -EPROTO},       {21, 0xff, -EPROTO},  {22, 2, -EPROTO},
        {22, 0, -EPROTO}, {23, 0xff, -EPROTO},      {24 + 5, 0, -EPROTO}, /* the command's name */
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        size_t length = some_request();
        bytes[AGENT_HEADER + rows[i].at] = rows[i].value;
        int r = agent_request_read(bytes + AGENT_HEADER, length, &got);
        cr_assert(r == rows[i].error, "row %zu: %d", i, r);
    }
    size_t length = some_request();
    for (size_t shorter = 0; shorter < length; shorter++)
        cr_assert(agent_request_read(bytes + AGENT_HEADER, shorter, &got) < 0,
                  "it is not read as it should be");
    memset(bytes + AGENT_HEADER + 8, 0xff, 4);
    cr_assert(agent_request_read(bytes + AGENT_HEADER, length, &got) == -EPROTO, "user -1");
}

/* Any bytes at all: no more is asked than that the sanitizers find nothing. */
Test(frames, survive_noise)
{
    unsigned seed = 1;
    for (unsigned round = 0; round < 200000; round++) {
        size_t length = some_request();
        for (unsigned changes = 0; changes < 3; changes++) {
            seed = seed * 1103515245u + 12345u;
            bytes[AGENT_HEADER + (seed >> 8) % length] = (uint8_t)(seed >> 24);
        }
        (void)!agent_request_read(bytes + AGENT_HEADER, length, &got);
    }
}

Test(frames, refuse_a_request_that_is_too_long)
{
    static char word[AGENT_REQUEST_MAX];
    memset(word, 'x', sizeof(word) - 1);
    some_request();
    wanted.arguments[1] = word;
    cr_assert(agent_request_write(&wanted, bytes) == -E2BIG, "it is not written as it should be");
}

/* ---- A session ---- */

struct host {
    int fd;
    struct session *session; /* NULL: over */
    pid_t pid;
    uint8_t bytes[4 * MIB];
    size_t length;
    uint32_t credit;
};
static struct host host;

static void begin(void)
{
    int ends[2];
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0,
              "a pair of sockets");
    signal(SIGPIPE, SIG_IGN);
    host = (struct host){.fd = ends[0], .session = session_new(ends[1])};
    cr_assert(host.session != NULL, "no session");
}

/* A turn of the agent's, as agent.c does it; and what it said. */
static void turn(void)
{
    struct pollfd waits[AGENT_POLLS_EACH] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
    int status;
    if (host.session) {
        session_waits(host.session, waits);
        poll(waits, AGENT_POLLS_EACH, session_is_ready(host.session) ? 0 : 10);
        pid_t pid = host.session->command.pid;
        if (pid > 0 && !host.session->reaped && waitpid(pid, &status, WNOHANG) == pid)
            session_child_ended(host.session, status);
        session_serve(host.session, waits);
        if (session_is_over(host.session, agent_now_ms())) {
            session_free(host.session);
            host.session = NULL;
        }
    }
    ssize_t got_bytes;
    while (host.fd >= 0 &&
           (got_bytes = recv(host.fd, host.bytes + host.length, sizeof(host.bytes) - host.length, 0)) > 0)
        host.length += (size_t)got_bytes;
}

static void say_frame(enum agent_type type, const void *body, uint32_t length)
{
    uint8_t header[AGENT_HEADER];
    agent_header_write(header, type, length);
    cr_assert(send(host.fd, header, sizeof(header), 0) == AGENT_HEADER, "it is not sent");
    for (uint32_t sent = 0; sent < length;) {
        ssize_t r = send(host.fd, (const uint8_t *)body + sent, length - sent, 0);
        if (r > 0)
            sent += (uint32_t)r;
        turn();
    }
}

static void ask(uint16_t flags, const char *command)
{
    wanted = (struct agent_request){.flags = flags,
                                    .rows = 33,
                                    .columns = 77,
                                    .directory = "/",
                                    .argument_count = 3,
                                    .variable_count = 1,
                                    .arguments = {"/bin/sh", "-c", command},
                                    .variables = {"COLOUR=red"}};
    ssize_t size = agent_request_write(&wanted, bytes);
    cr_assert(send(host.fd, bytes, (size_t)size, 0) == size, "it is not sent");
}

/* To the session's end: the status, or -1 with the words of the error in `text`; what was said in `text`. */
static int end_of(char *text, size_t size)
{
    int status = -2;
    size_t length = 0, at = 0;
    while (host.session)
        turn();
    turn();
    while (at < host.length) {
        struct agent_frame frame;
        ssize_t one = agent_frame_read(host.bytes + at, host.length - at, AGENT_GUEST, &frame);
        cr_assert(one > 0, "no frame at %zu", at);
        at += (size_t)one;
        const uint8_t *body = frame.body + (frame.type == AGENT_ERROR ? 4 : 0);
        uint32_t rest = frame.length - (frame.type == AGENT_ERROR ? 4 : 0);
        if (frame.type == AGENT_EXIT)
            status = (int)agent_get32(frame.body);
        else if (frame.type == AGENT_CREDIT)
            host.credit += agent_get32(frame.body);
        else if (length + rest < size) {
            memcpy(text + length, body, rest);
            length += rest;
        }
        if (frame.type == AGENT_ERROR)
            status = -1;
    }
    text[length] = '\0';
    close(host.fd);
    host.fd = -1;
    return status;
}

Test(session, tells_output_and_status)
{
    char text[512];
    begin();
    ask(0, "echo $COLOUR; pwd; exit 42");
    cr_assert(end_of(text, sizeof(text)) == 42, "what was said: %s", text);
    cr_assert_str_eq(text, "red\n/\n", "it is %s", text);
    begin();
    ask(0, "kill -TERM $$");
    cr_assert(end_of(text, sizeof(text)) == 143, "what was said: %s", text);
}

Test(session, takes_input_to_its_end)
{
    char text[512];
    begin();
    ask(0, "cat; echo end");
    say_frame(AGENT_STDIN, "one ", 4);
    say_frame(AGENT_STDIN, "two ", 4);
    say_frame(AGENT_STDIN_EOF, NULL, 0);
    cr_assert(end_of(text, sizeof(text)) == 0, "what was said: %s", text);
    cr_assert_str_eq(text, "one two end\n", "it is %s", text);
    cr_assert(host.credit == 8, "the credit is %u", host.credit);
}

Test(session, has_a_terminal_of_the_size)
{
    char text[512];
    begin();
    ask(AGENT_WITH_TTY, "stty size; read -r line; stty size; exit 3");
    for (unsigned i = 0; i < 30; i++)
        turn();
    uint8_t size[4];
    agent_put_window(size, 10, 20);
    say_frame(AGENT_WINDOW, size, 4);
    say_frame(AGENT_STDIN, "x\n", 2);
    cr_assert(end_of(text, sizeof(text)) == 3, "what was said: %s", text);
    cr_assert(strstr(text, "33 77") && strstr(text, "10 20"), "%s", text);
}

Test(session, passes_signals_behind_input_that_nobody_reads)
{
    static uint8_t zeros[AGENT_DATA_MAX];
    char text[512];
    uint8_t number[4];
    begin();
    ask(0, "exec sleep 600");
    say_frame(AGENT_STDIN, zeros, sizeof(zeros));
    say_frame(AGENT_STDIN, zeros, sizeof(zeros));
    agent_put32(number, SIGTERM);
    for (unsigned i = 0; i < 30; i++)
        turn();
    say_frame(AGENT_SIGNAL, number, 4);
    cr_assert(end_of(text, sizeof(text)) == 143, "what was said: %s", text);
}

Test(session, does_not_wait_for_what_is_left_in_the_background)
{
    char text[512];
    begin();
    ask(0, "sleep 30 & echo now");
    int64_t before = agent_now_ms();
    cr_assert(end_of(text, sizeof(text)) == 0, "what was said: %s", text);
    cr_assert_str_eq(text, "now\n", "it is %s", text);
    cr_assert(agent_now_ms() - before < 10000, "it took too long");
}

Test(session, ends_the_command_with_its_connection)
{
    begin();
    ask(0, "trap '' HUP; sleep 600; sleep 600");
    while (host.session->command.pid == 0)
        turn();
    for (unsigned i = 0; i < 30; i++)
        turn();
    pid_t pid = host.session->command.pid;
    cleanup_fd(&host.fd);
    while (host.session)
        turn();
    while (waitpid(-1, NULL, WNOHANG) > 0)
        continue;
    cr_assert(kill(pid, 0) != 0, "it lives");
}

Test(session, refuses_with_words)
{
    static const struct {
        enum agent_type type;
        uint32_t length;
        const char *words;
    } rows[] = {
        {AGENT_STDIN, 4, "the first frame asks for nothing"},
        {AGENT_EXEC, 24, "not a client of this agent"},
        {AGENT_POWER_OFF, 8, "not a client of this agent"},
        {AGENT_STDOUT, 4, "there is none such"},
        {AGENT_STDIN, 0, "with 0 bytes"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        static const uint8_t nothing[64];
        char text[1024];
        begin();
        say_frame(rows[i].type, nothing, rows[i].length);
        cr_assert(end_of(text, sizeof(text)) == -1, "row %zu", i);
        cr_assert(strstr(text, rows[i].words), "row %zu: %s", i, text);
    }
}

Test(session, refuses_more_input_than_there_is_credit_for)
{
    static uint8_t zeros[AGENT_DATA_MAX];
    char text[1024];
    begin();
    ask(0, "exec sleep 600");
    for (unsigned i = 0; i < 30; i++)
        turn();
    for (unsigned i = 0;
         i < 2 * AGENT_STDIN_WINDOW / AGENT_DATA_MAX && host.session && !host.session->closing; i++)
        say_frame(AGENT_STDIN, zeros, sizeof(zeros));
    say_frame(AGENT_STDIN, zeros, 1);
    cr_assert(end_of(text, sizeof(text)) == -1, "what was said: %s", text);
    cr_assert(strstr(text, "credit"), "%s", text);
}
