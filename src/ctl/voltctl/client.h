/* voltctl's end of a control socket: one request at a time, waited for. */
#pragma once

#include "ctl/text.h"

#include <sys/types.h>

struct client {
    int fd;
    pid_t pid; /* of the VM's process */
};

/* -ENOENT there is no such socket, -ECONNREFUSED nobody listens on it any more, or another errno; with a
 * message. */
int client_connect(const char *path, struct client *ret_client);
void client_close(struct client *client);

/*
 * Sends a request (`body` NULL: none) and reads its answer into `answer`, without the head. Returns the
 * status, or a negative errno with a message; -ETIMEDOUT after half a minute.
 */
int client_request(struct client *client, const char *method, const char *path, const char *body,
                   struct text *answer);

#define CLIENT_DESCRIPTORS_MAX 64u

struct client_request {
    const char *method, *path, *body; /* body: NULL: none */
    const int *fds;                   /* descriptors that go with it, at most CLIENT_DESCRIPTORS_MAX */
    unsigned fd_count;
    /* Called once a second until the answer is there, which may take as long as it does. NULL: as
     * client_request(). */
    void (*waiting)(void *context);
    void *context;
};

/* client_request() with all that there is to be said. */
int client_ask(struct client *client, const struct client_request *request, struct text *answer);

/* As client_request() for GET, with each part of an endless answer written to standard output as it comes. 0
 * at its end. */
int client_follow(struct client *client, const char *path);

/* The words of an answer that is an error, in `answer` itself, without JSON around them. */
const char *client_fault(struct text *answer);
