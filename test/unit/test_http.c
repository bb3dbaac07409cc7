/* The HTTP server, from the client's side of a real socket: what is answered, and what a bad client costs. */
#include "base/unix_listener.h"
#include "ctl/http.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

TestSuite(http, .timeout = 30);

struct rig {
    struct loop *loop;
    struct http_server *server;
    struct unix_listener socket;
    char directory[32], path[64];
    struct loop_timer timer;
    struct http_request *held; /* by /later */
    unsigned streams_gone;
};

static void stream_gone(void *context)
{
    ((struct rig *)context)->streams_gone++;
}

/* Says back what it was asked; /later answers when told, /stream never ends. */
static void handle(void *context, struct http_request *request)
{
    struct rig *rig = context;
    char body[256];
    if (strcmp(request->path, "/later") == 0) {
        rig->held = request;
        return;
    }
    if (strcmp(request->path, "/stream") == 0) {
        rig->held = request;
        http_stream(request, "application/json", stream_gone, rig);
        return;
    }
    int length = snprintf(body, sizeof(body), "%d %s %zu %.20s", request->method, request->path,
                          request->body_length, request->body ? request->body : "-");
    http_answer(request, &(struct http_answer){.status = 200, .body = body, .length = (size_t)length});
}

static void tick(struct loop_op *op, int result, unsigned flags)
{
    (void)result;
    (void)flags;
    struct rig *rig = container_of(op, struct rig, timer.op);
    loop_stop(rig->loop, 0);
}

static struct rig *make(size_t body_max, bool raw_errors)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    snprintf(rig->directory, sizeof(rig->directory), "/tmp/http.XXXXXX");
    cr_assert(mkdtemp(rig->directory), "a folder");
    snprintf(rig->path, sizeof(rig->path), "%s/socket", rig->directory);
    cr_assert_eq(unix_listener_open(rig->path, true, &rig->socket), 0, "%s", fail_text());
    cr_assert_eq(loop_new(32, &rig->loop), 0, "%s", fail_text());
    rig->timer.op.done = tick;
    const struct http_config config = {
        .listen_fd = rig->socket.fd,
        .body_max = body_max,
        .handle = handle,
        .context = rig,
        .server = "test",
        .raw_errors = raw_errors,
    };
    cr_assert_eq(http_server_new(rig->loop, &config, &rig->server), 0, "%s", fail_text());
    return rig;
}

static void turn(struct rig *rig, unsigned milliseconds)
{
    loop_timer_start(rig->loop, &rig->timer, milliseconds * UINT64_C(1000000));
    cr_assert_eq(loop_run(rig->loop), 0, "%s", fail_text());
}

static void end(struct rig *rig)
{
    http_server_free(rig->server);
    unix_listener_remove(&rig->socket);
    cr_expect_neq(access(rig->path, F_OK), 0, "the socket's file is gone");
    rmdir(rig->directory);
    turn(rig, 1);
    loop_free(rig->loop);
    free(rig);
}

static int connect_to(const struct rig *rig)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", rig->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0, "connect");
    return fd;
}

/* Sends `bytes` in pieces of `step`, with the loop run between them, and returns all that came back.
 * *ret_closed: the server has closed the connection. */
static char *exchange_in(struct rig *rig, int fd, const char *bytes, size_t step, bool *ret_closed)
{
    static char answer[65536];
    size_t length = 0, left = strlen(bytes);
    for (; left > 0; bytes += MIN(step, left), left -= MIN(step, left)) {
        (void)!send(fd, bytes, MIN(step, left), MSG_NOSIGNAL);
        turn(rig, 2);
    }
    turn(rig, 5);
    ssize_t got;
    while ((got = recv(fd, answer + length, sizeof(answer) - 1 - length, 0)) > 0)
        length += (size_t)got;
    answer[length] = '\0';
    *ret_closed = got == 0;
    return answer;
}

static char *exchange(struct rig *rig, const char *bytes, bool *ret_closed)
{
    int fd = connect_to(rig);
    char *answer = exchange_in(rig, fd, bytes, 1000000, ret_closed);
    close(fd);
    turn(rig, 1);
    return answer;
}

#define BODY(text) strstr((text), "\r\n\r\n") + 4

Test(http, answers_and_keeps_the_connection)
{
    struct rig *rig = make(100, false);
    bool closed;
    const char *answer = exchange(rig, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n", &closed);
    cr_expect_str_eq(answer,
                     "HTTP/1.1 200 OK\r\nServer: test\r\nConnection: keep-alive\r\nContent-Type: "
                     "application/json\r\nContent-Length: 8\r\n\r\n0 /a 0 -",
                     "whole");
    cr_expect(!closed, "kept");
    answer = exchange(rig, "PUT http://localhost/b/c?q#f HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz", &closed);
    cr_expect_str_eq(BODY(answer), "1 /b/c 3 xyz", "an absolute URI");
    answer =
        exchange(rig, "PATCH /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                 &closed);
    cr_expect_str_eq(BODY(answer), "2 /d 3 abc", "chunks");
    answer = exchange(rig, "DELETE /e HTTP/1.0\r\n\r\n", &closed);
    cr_expect_str_eq(BODY(answer), "3 /e 0 -", "1.0");
    cr_expect(closed, "which closes");
    exchange(rig, "GET /f HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &closed);
    cr_expect(!closed, "unless it is asked not to");
    answer = exchange(rig, "GET /g HTTP/1.1\r\nConnection: close\r\n\r\n", &closed);
    cr_expect(closed && strstr(answer, "\r\nConnection: close\r\n"), "closed, and said so");
    answer = exchange(rig, "PUT /h HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", &closed);
    cr_expect(strncmp(answer, "HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK", 31) == 0, "100 Continue: %s", answer);
    end(rig);
}

Test(http, pipelines_in_order_whatever_the_pieces)
{
    static const char requests[] =
        "GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nContent-Length: 2\r\n\r\nabGET /3 HTTP/1.1\r\n\r\n";
    struct rig *rig = make(100, false);
    for (size_t step = 1; step < 40; step += 6) {
        bool closed;
        int fd = connect_to(rig);
        char *answer = exchange_in(rig, fd, requests, step, &closed);
        const char *one = strstr(answer, "0 /1 0 -"), *two = strstr(answer, "1 /2 2 ab"),
                   *three = strstr(answer, "0 /3 0 -");
        cr_expect(one && two && three && one < two && two < three && !closed, "pieces of %zu: %s", step,
                  answer);
        close(fd);
        turn(rig, 1);
    }
    end(rig);
}

Test(http, one_answer_for_what_is_no_request)
{
    static const struct {
        const char *bytes, *says;
    } cases[] = {
        {"HELLO /a HTTP/1.1\r\n\r\n", "Unsupported HTTP method"},
        {"POST /a HTTP/1.1\r\n\r\n", "Unsupported HTTP method"},
        {"GET /a HTTP/2.0\r\n\r\n", "Unsupported HTTP version"},
        {"GET /a\r\n\r\n", "Unsupported HTTP version"},
        {"PUT /a HTTP/1.1\r\nContent-Length: 101\r\n\r\n",
         "Request payload with size 101 is larger than the limit of 100"},
        {"PUT /a HTTP/1.1\r\nContent-Length: x\r\n\r\n", "Invalid request"},
        {"PUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Invalid request"},
        {"PUT /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "Invalid request"},
        {"PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n", "Invalid request"},
        {"GET /a HTTP/1.1\r\nbad header\r\n\r\n", "Invalid request"},
        {"\x16\x03\x01\x02", "Invalid HTTP Method"},
    };
    struct rig *rig = make(100, false);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        bool closed;
        const char *answer = exchange(rig, cases[i].bytes, &closed);
        if (strstr(cases[i].bytes, "ffffff")) /* nothing is wrong with it yet */
            continue;
        cr_expect(strncmp(answer, "HTTP/1.1 400 ", 13) == 0 && strstr(answer, cases[i].says), "case %zu: %s",
                  i, answer);
        cr_expect(closed, "case %zu: closed", i);
        const char *next = strstr(answer + 1, "HTTP/1.1");
        cr_expect(!next, "case %zu: one answer", i);
        cr_expect(strstr(answer, "{\"error\":\""), "case %zu: JSON: %s", i, answer);
    }
    end(rig);
}

Test(http, a_payload_too_large_as_firecracker_says_it)
{
    struct rig *rig = make(250, true);
    bool closed;
    cr_expect_str_eq(
        exchange(rig, "PUT /mmds/config HTTP/1.1\r\nContent-Length: 260\r\n\r\nsome body", &closed),
        "HTTP/1.1 400 \r\nServer: test\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
        "Content-Length: 145\r\n\r\n{ \"error\": \"Request payload with size 260 is larger than the limit "
        "of 250 allowed by server.\nAll previous unanswered requests will be dropped.\" }",
        "byte for byte");
    end(rig);
}

Test(http, long_headers_and_paths_end_the_connection)
{
    struct rig *rig = make(100, false);
    CLEANUP_TEXT struct text request = {0};
    bool closed;
    text_printf(&request, "GET /%01100d HTTP/1.1\r\n\r\n", 1);
    cr_expect(strstr(exchange(rig, request.at, &closed), "400"), "a long path");
    cr_expect(closed, "closed");
    text_clear(&request);
    text_printf(&request, "GET / HTTP/1.1\r\nA: %02000d\r\n\r\n", 1);
    cr_expect(strstr(exchange(rig, request.at, &closed), "200"), "2,000 bytes of a header");
    text_clear(&request);
    text_printf(&request, "GET / HTTP/1.1\r\nA: %020000d\r\n\r\n", 1);
    cr_expect(strstr(exchange(rig, request.at, &closed), "400"), "20,000 bytes");
    cr_expect(closed, "closed");
    end(rig);
}

Test(http, an_answer_may_come_later_and_holds_up_nobody_else)
{
    struct rig *rig = make(100, false);
    bool closed;
    int fd = connect_to(rig);
    cr_expect_str_eq(
        exchange_in(rig, fd, "GET /later HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n", 1000, &closed), "",
        "nothing");
    cr_assert(rig->held, "it is held");
    cr_expect(strstr(exchange(rig, "GET /a HTTP/1.1\r\n\r\n", &closed), "200"), "others are served");
    http_answer(rig->held, &(struct http_answer){.status = 204});
    const char *answer = exchange_in(rig, fd, "", 1, &closed);
    cr_expect(strncmp(answer, "HTTP/1.1 204 No Content\r\n", 25) == 0, "%s", answer);
    cr_expect(strstr(answer, "0 /next 0 -"), "and the one behind it: %s", answer);

    exchange_in(rig, fd, "GET /later HTTP/1.1\r\n\r\n", 1000, &closed);
    close(fd);
    turn(rig, 2);
    http_answer(rig->held, &(struct http_answer){.status = 204}); /* the client is gone: nothing happens */
    turn(rig, 2);
    cr_expect_eq(http_connections(rig->server), 0, "no connection is left");
    end(rig);
}

Test(http, streams_end_when_the_client_goes)
{
    struct rig *rig = make(100, false);
    bool closed;
    int fd = connect_to(rig);
    cr_expect(strstr(exchange_in(rig, fd, "GET /stream HTTP/1.1\r\n\r\n", 1000, &closed), "chunked"),
              "begins");
    http_stream_send(rig->held, "hello\n", 6);
    cr_expect_str_eq(exchange_in(rig, fd, "", 1, &closed), "6\r\nhello\n\r\n", "a part");
    close(fd);
    turn(rig, 5);
    cr_expect_eq(rig->streams_gone, 1, "told once");

    fd = connect_to(rig);
    exchange_in(rig, fd, "GET /stream HTTP/1.1\r\n\r\n", 1000, &closed);
    static char much[65536];
    memset(much, 'x', sizeof(much));
    for (int i = 0; i < 64 && rig->streams_gone == 1; i++)
        http_stream_send(rig->held, much, sizeof(much));
    cr_expect_eq(rig->streams_gone, 2, "one that does not read is dropped");
    close(fd);
    end(rig);
}

/* A thousand connections that say nothing, and as many with half a request: each new one makes room for
 * itself. */
Test(http, silent_connections_make_room)
{
    struct rig *rig = make(100, false);
    static int fds[1000];
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = connect_to(rig);
        if (i % 2)
            (void)!send(fds[i], "GET / HT", 8, MSG_NOSIGNAL);
        if (i % 16 == 0)
            turn(rig, 1);
    }
    turn(rig, 10);
    cr_expect_leq(http_connections(rig->server), HTTP_CONNECTIONS_MAX, "bounded");
    bool closed;
    cr_expect(strstr(exchange(rig, "GET /a HTTP/1.1\r\n\r\n", &closed), "200"), "and a client is served");
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        close(fds[i]);
    turn(rig, 10);
    cr_expect_eq(http_connections(rig->server), 0, "all are gone");
    end(rig);
}

Test(http, the_socket_is_private_and_stale_ones_are_replaced)
{
    struct rig *rig = make(100, false);
    struct stat status;
    cr_assert_eq(lstat(rig->path, &status), 0, "there");
    cr_expect(S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0600, "mode %o", status.st_mode);
    struct unix_listener other;
    cr_expect_eq(unix_listener_open(rig->path, true, &other), -EADDRINUSE,
                 "one that is listened on is not taken");
    close(rig->socket.fd);
    rig->socket.fd = dup(0); /* the server's, closed by it */
    cr_expect_eq(unix_listener_open(rig->path, false, &other), -EADDRINUSE,
                 "nor a stale one if that was not asked for");
    cr_assert_eq(unix_listener_open(rig->path, true, &other), 0, "%s", fail_text());
    unix_listener_remove(&rig->socket); /* not its file any more */
    cr_expect_eq(access(rig->path, F_OK), 0, "another's socket stays");
    close(other.fd);
    unix_listener_remove(&other);
    cr_expect_neq(access(rig->path, F_OK), 0, "its own goes");

    FILE *file = fopen(rig->path, "w");
    fclose(file);
    cr_expect_eq(unix_listener_open(rig->path, true, &other), -EADDRINUSE, "a file is not removed");
    unlink(rig->path);
    rmdir(rig->directory);
    http_server_free(rig->server);
    turn(rig, 1);
    loop_free(rig->loop);
    free(rig);
    char longest[200];
    memset(longest, 'x', sizeof(longest));
    longest[199] = '\0';
    cr_expect_eq(unix_listener_open(longest, true, &other), -ENAMETOOLONG, "%s", fail_text());
}
