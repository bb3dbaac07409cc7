#include "ctl/events.h"

#include <time.h>

struct events_listener {
    struct events *events;
    struct events_listener *next;
    struct http_request *request;
};

/* The connection has ended. */
static void gone(void *context)
{
    struct events_listener *listener = context;
    struct events_listener **at = &listener->events->first;
    while (*at != listener)
        at = &(*at)->next;
    *at = listener->next;
    listener->events->count--;
    free(listener);
}

int events_listen(struct events *events, struct http_request *request)
{
    if (events->count == EVENTS_LISTENERS_MAX)
        return -EBUSY;
    struct events_listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        return -ENOMEM;
    *listener = (struct events_listener){.events = events, .next = events->first, .request = request};
    events->first = listener;
    events->count++;
    http_stream(request, "application/x-ndjson", gone, listener);
    return 0;
}

void events_send(struct events *events, const char *event, const char *more)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    CLEANUP_TEXT struct text text = {0};
    text_printf(&text, "{\"time_ms\":%lld,\"event\":\"%s\"%s}\n",
                (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, event, more);
    if (text.failed)
        return;
    events->sent++;
    for (struct events_listener *at = events->first, *next; at; at = next) {
        next = at->next; /* a listener that does not read ends in the call */
        http_stream_send(at->request, text.at, text.length);
    }
}
