#include "ctl/voltctl/client.h"

#include "ctl/json.h"

#include <http_parser.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define PATIENCE_SECONDS 30

int client_connect(const char *path, struct client *ret_client)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return fail(-ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path,
                    sizeof(address.sun_path) - 1);
    memcpy(address.sun_path, path, strlen(path));
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return fail_errno(-errno, "%s", path);
    const struct timeval patience = {.tv_sec = PATIENCE_SECONDS};
    struct ucred peer = {0};
    socklen_t length = sizeof(peer);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
        return fail_errno(-errno, "%s", path);
    *ret_client = (struct client){.fd = fd_steal(&fd), .pid = peer.pid};
    return 0;
}

void client_close(struct client *client)
{
    cleanup_fd(&client->fd);
}

struct reading {
    struct text *answer;  /* NULL: parts go to standard output */
    bool complete, error; /* `error`: the answer is none of 200, and kept */
    struct text kept;
    void (*waiting)(void *context);
    void *context;
};

static int found_body(http_parser *parser, const char *bytes, size_t length)
{
    struct reading *reading = parser->data;
    if (reading->answer)
        text_add(reading->answer, bytes, length);
    else if (parser->status_code != 200)
        text_add(&reading->kept, bytes, length);
    else if (fwrite(bytes, 1, length, stdout) != length || fflush(stdout) != 0)
        return -1;
    return 0;
}

static int found_end(http_parser *parser)
{
    struct reading *reading = parser->data;
    reading->complete = true;
    return 0;
}

/* Descriptors go with the first byte. */
static ssize_t send_part(const struct client *client, const char *bytes, size_t length, const int *fds,
                         unsigned fd_count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int) * CLIENT_DESCRIPTORS_MAX)];
    } control = {0};
    struct iovec part = {.iov_base = (char *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int) * fd_count), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * fd_count);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
    }
    return sendmsg(client->fd, &message, MSG_NOSIGNAL);
}

static int send_request(const struct client *client, const struct client_request *request)
{
    CLEANUP_TEXT struct text text = {0};
    const char *body = request->body;
    text_printf(&text, "%s %s HTTP/1.1\r\nHost: localhost\r\n", request->method, request->path);
    if (body)
        text_printf(&text, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    text_printf(&text, "\r\n%s", body ? body : "");
    if (text.failed)
        return fail(-ENOMEM, "no memory for the request");
    for (size_t sent = 0; sent < text.length;) {
        ssize_t r = send_part(client, text.at + sent, text.length - sent, request->fds,
                              sent == 0 ? request->fd_count : 0);
        if (r < 0)
            return fail_errno(-errno, "the control socket");
        sent += (size_t)r;
    }
    return 0;
}

static int read_answer(const struct client *client, struct reading *reading)
{
    static const http_parser_settings settings = {.on_body = found_body, .on_message_complete = found_end};
    http_parser parser;
    char buffer[16384];
    http_parser_init(&parser, HTTP_RESPONSE);
    parser.data = reading;
    while (!reading->complete) {
        ssize_t length = recv(client->fd, buffer, sizeof(buffer), 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0 && errno == EAGAIN && reading->waiting) {
            reading->waiting(reading->context);
            continue;
        }
        if (length < 0)
            return fail_errno(errno == EAGAIN ? -ETIMEDOUT : -errno, "the control socket");
        if (length == 0)
            return reading->answer ? fail(-EPIPE, "the VM has ended") : (int)parser.status_code;
        size_t parsed = http_parser_execute(&parser, &settings, buffer, (size_t)length);
        if (parsed != (size_t)length || HTTP_PARSER_ERRNO(&parser) != HPE_OK)
            return fail(-EPROTO, "the control socket's answer is no HTTP");
    }
    return (int)parser.status_code;
}

int client_ask(struct client *client, const struct client_request *request, struct text *answer)
{
    text_clear(answer);
    struct reading reading = {.answer = answer, .waiting = request->waiting, .context = request->context};
    const struct timeval turn = {.tv_sec = 1};
    if (request->waiting)
        (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &turn, sizeof(turn));
    int r = send_request(client, request);
    return r < 0 ? r : read_answer(client, &reading);
}

int client_request(struct client *client, const char *method, const char *path, const char *body,
                   struct text *answer)
{
    return client_ask(client, &(struct client_request){.method = method, .path = path, .body = body}, answer);
}

int client_follow(struct client *client, const char *path)
{
    const struct timeval forever = {0};
    struct reading reading = {0};
    (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof(forever));
    int r = send_request(client, &(struct client_request){.method = "GET", .path = path});
    if (r == 0)
        r = read_answer(client, &reading);
    if (r > 0 && r != 200)
        r = fail(-EPROTO, "%s", client_fault(&reading.kept));
    text_free(&reading.kept);
    return r < 0 ? r : 0;
}

const char *client_fault(struct text *answer)
{
    struct fault {
        char *words;
    };
    static const struct json_field field = {
        .name = "fault_message", .kind = JSON_STRING, .presence = JSON_REQUIRED};
    static const struct json_struct of = {
        .name = "fault", .fields = &field, .count = 1, .size = sizeof(struct fault), .others = true};
    struct fault fault;
    struct json_error error = {0};
    if (answer->at && json_read(answer->at, answer->length, &of, &fault, &error) == 0) {
        text_clear(answer);
        text_puts(answer, fault.words);
        json_free(&of, &fault);
    }
    text_free(&error.message);
    return answer->at ? answer->at : "no words";
}
