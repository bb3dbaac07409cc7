/*
 * What happens to a VM, for who listens (GET /events): a stream of JSON objects, one a line.
 *
 *   {"time_ms":1764140000000,"event":"running"}
 *   {"time_ms":1764140012345,"event":"ended","status":0,"reason":"the guest powered off"}
 */
#pragma once

#include "ctl/http.h"

#define EVENTS_LISTENERS_MAX 16u

struct events_listener;

struct events {
    struct events_listener *first;
    unsigned count;
    uint64_t sent;
};

/* Turns the request into a listener. -EBUSY if there are as many as may be, -ENOMEM; the request is untouched
 * then. */
int events_listen(struct events *events, struct http_request *request);

/* Tells every listener. `more`: further members of the object, ",\"status\":0", or "". */
void events_send(struct events *events, const char *event, const char *more);
