/*
 * An HTTP/1.1 server on a listening socket, run by the loop. Everything here is for the loop thread.
 *
 * A client can cost no more than its connection: requests are bounded in size and time, answers that are not
 * taken are kept up to a bound and no further request of that client is read meanwhile, and when all places
 * are taken the connection that has waited longest without a request makes room. A connection between
 * requests costs a descriptor and no wake-up.
 */
#pragma once

#include "ctl/text.h"
#include "loop/loop.h"

#include <sys/types.h>

/* Places for connections. A client library keeps a handful open; each is a descriptor of the VM's process. */
#define HTTP_CONNECTIONS_MAX 64u

/* Descriptors that may come with one request, by SCM_RIGHTS in any of its bytes. */
#define HTTP_DESCRIPTORS_MAX 64u

struct http_server;

enum request_method { METHOD_GET, METHOD_PUT, METHOD_PATCH, METHOD_DELETE };

/* Valid from the handler's call to http_answer() or the end of the stream. */
struct http_request {
    enum request_method method;
    const char *path; /* without scheme, host and query; begins with '/' unless it is empty */
    const char *body; /* NUL-terminated; NULL: none */
    size_t body_length;
    int *descriptors; /* that came with it; closed after the answer */
    unsigned descriptor_count;
    pid_t peer_pid; /* of the process that connected */
    uid_t peer_uid;
};

struct http_config {
    int listen_fd;   /* listening, non-blocking; the server's from now on */
    size_t body_max; /* bytes */
    /* Answers, by http_answer() or http_stream(), now or later. */
    void (*handle)(void *context, struct http_request *request);
    /* A client has connected. Optional. */
    void (*connected)(void *context, pid_t pid, uid_t uid);
    void *context;
    const char *server; /* the Server header */
    /* Answer a payload that is too large byte for byte as Firecracker does, though that is no JSON. */
    bool raw_errors;
};

int http_server_new(struct loop *loop, const struct http_config *config, struct http_server **ret_server);

/* Writes what answers there are, without waiting, and closes everything. Not from a handler. The memory of
 * the server is given back in the loop's next turn. */
void http_server_free(struct http_server *server);

struct http_answer {
    int status;
    const char *type; /* Content-Type; NULL: application/json */
    const char *body; /* NULL: none */
    size_t length;
    bool deprecated; /* a Deprecation header */
};

/* Ends a request. The bytes are copied. */
void http_answer(struct http_request *request, const struct http_answer *answer);

/* Answers with a body without an end, of which http_stream_send() sends a part at a time (copied). A client
 * that does not read loses its connection. `gone` is called when it has ended, by either side, and the
 * request is no more. */
void http_stream(struct http_request *request, const char *type, void (*gone)(void *context), void *context);
void http_stream_send(struct http_request *request, const char *bytes, size_t length);

/* Connections that are open, and how many have been evicted or timed out so far. */
unsigned http_connections(const struct http_server *server);
uint64_t http_evicted(const struct http_server *server);
