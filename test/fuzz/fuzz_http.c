/* The HTTP server with any bytes from a client, in pieces: no crash, nothing left over, and what is handed
 * over is within its bounds. The first byte is the size of the pieces. */
#include "ctl/http.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct http_server *server;
static struct loop_timer timer;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void handle(void *context, struct http_request *request)
{
    (void)context;
    CHECK(request->path && (request->path[0] == '/' || request->path[0] == '\0'));
    CHECK((request->body == NULL) == (request->body_length == 0) && request->body_length <= 64);
    http_answer(request, &(struct http_answer){.status = 200, .body = "{}", .length = 2});
}

static void tick(struct loop_op *op, int result, unsigned flags)
{
    (void)op;
    (void)result;
    (void)flags;
    loop_stop(loop, 0);
}

static void turn(void)
{
    loop_timer_start(loop, &timer, 1);
    CHECK(loop_run(loop) == 0);
}

/* An abstract address: nothing is left in the file system. */
static void start(void)
{
    snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "volt-fuzz-http-%d", getpid());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0);
    CHECK(loop_new(32, &loop) == 0);
    timer.op.done = tick;
    const struct http_config config = {.listen_fd = fd, .body_max = 64, .handle = handle, .server = "fuzz"};
    CHECK(http_server_new(loop, &config, &server) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!loop)
        start();
    if (size == 0)
        return 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    turn(); /* accepts it: with many inputs of no piece at all, the backlog would be full */
    size_t step = 8u + data[0], turns = 0;
    for (size_t at = 1; at < size && turns < 16; at += step, turns++) {
        (void)!send(fd, data + at, MIN(step, size - at), MSG_NOSIGNAL);
        turn();
        char answer[4096];
        (void)!recv(fd, answer, sizeof(answer), 0);
    }
    close(fd);
    for (int i = 0; i < 10 && http_connections(server) > 0; i++)
        turn();
    CHECK(http_connections(server) == 0);
    return 0;
}
