/* Between http_server.c and http_request.c only. */
#pragma once

#include "ctl/http.h"

#include <ev.h>
#include <http_parser.h>

/* A request line and all headers together; a path. Clients send some hundred bytes. */
#define HTTP_HEADERS_MAX 16384u
#define HTTP_PATH_MAX    1024u
/* Answers that a client has not taken: beyond this no more of its requests are read. A stream ends. */
#define HTTP_UNSENT_MAX (256u * 1024)
/* A request must be complete, and an answer taken, within so many seconds. */
#define HTTP_PATIENCE_SECONDS 30

struct http_connection {
    struct http_server *server;
    struct http_connection *next,
        *before; /* in order of their last request: the one that waits longest is first */
    int fd;
    int descriptors[HTTP_DESCRIPTORS_MAX]; /* came by SCM_RIGHTS, for the next request that is complete */
    unsigned descriptor_count;
    ev_io readable, writable;

    http_parser parser;
    struct text path, body, header;
    bool begun;       /* a request that is not complete */
    bool header_done; /* the header's name is complete */
    bool expects_continue;
    char *error; /* what was wrong with the request; allocated */

    struct text input; /* read, but behind a request that is not answered */
    struct text output;
    size_t sent; /* of output */

    struct http_request request;
    bool answering; /* `request` is with the handler */
    bool last;      /* closes once output is sent */
    bool handling;  /* inside of run(): not to be freed */
    bool streaming;
    void (*stream_gone)(void *context);
    void *stream_context;
    int64_t busy_since; /* seconds of the monotonic clock; 0: between requests */
};

struct http_server {
    struct http_config config;
    struct loop *loop;
    struct ev_loop *ev;
    ev_io acceptable;
    struct http_connection *first, *end;
    unsigned count;
    uint64_t evicted;
    struct loop_timer timer; /* runs while a connection is busy */
    bool closing;
};

/* Makes ready for the first request. */
void http_parser_begin(struct http_connection *connection);

/* Parses what was read, up to the first request that is not answered at once, and hands requests over. */
void http_parse(struct http_connection *connection);

/* After an answer: the next request may come. */
void http_forget_request(struct http_connection *connection);

/* Closes what came with a request and was not taken. */
void http_drop_descriptors(struct http_connection *connection);

/* Add to the output: the status line and the headers of every answer; a whole answer. */
void http_write_head(struct http_connection *connection, int status);
void http_write_answer(struct http_connection *connection, const struct http_answer *answer);
