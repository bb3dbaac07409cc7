#include "net/watch.h"

#include "base/log.h"
#include "net/link.h"
#include "net/tap.h"

#include <string.h>

/* One message of the kernel's about a link has 1.5 KiB; what does not fit is cut and left out. */
#define BUFFER_BYTES 16384u

struct net_watch {
    struct loop *loop;
    const struct net_config *config;
    struct net_port port;
    const struct net_watch_ops *ops;
    void *context;
    int fd;
    struct loop_op op;
    struct link_info tap, bridge; /* index 0: there is none */
    bool carrier, closing;
    uint8_t buffer[BUFFER_BYTES] __attribute__((aligned(8)));
};

static bool wants_bridge(const struct net_watch *watch)
{
    return watch->port.bridge[0] != '\0';
}

static bool frames_pass(const struct net_watch *watch)
{
    if (!watch->tap.index || !watch->tap.up)
        return false;
    if (!watch->tap.master)
        return !wants_bridge(watch);
    return watch->bridge.index == watch->tap.master && watch->bridge.up;
}

/* Looks at the bridge that the TAP is a port of, if it is another one than before. */
static void follow_master(struct net_watch *watch)
{
    if (watch->tap.master && watch->tap.master != watch->bridge.index &&
        link_by_index(watch->tap.master, &watch->bridge) < 0)
        watch->bridge = (struct link_info){0};
}

/* Of all links while one that is wanted is missing: its number is not known before it comes. */
static void settle(struct net_watch *watch)
{
    bool searching = !watch->tap.index || (wants_bridge(watch) && !watch->bridge.index);
    if (link_events_filter(watch->fd, searching, watch->tap.index, watch->bridge.index) < 0)
        log_warn("%s", fail_text());
    bool carrier = frames_pass(watch);
    if (carrier != watch->carrier)
        watch->ops->carrier(watch->context, carrier);
    watch->carrier = carrier;
}

/* The bridge's new self: the TAP becomes its port. The TAP's own event tells of the success. */
static void bridge_is_back(struct net_watch *watch, const struct link_info *bridge)
{
    watch->bridge = *bridge;
    if (watch->tap.index && link_join(watch->tap.index, bridge->index, 0, watch->port.name) < 0)
        log_warn("%s", fail_text());
}

static void tap_is_back(struct net_watch *watch, const struct link_info *tap)
{
    struct net_backend *backend;
    char name[IF_NAMESIZE];
    if (watch->config->kind != NET_KIND_TAP)
        return;
    if (tap_open(watch->port.name, MAX(watch->config->queues, 1), name, &backend) < 0) {
        log_warn("%s", fail_text());
        return;
    }
    watch->tap = *tap;
    watch->ops->came_back(watch->context, backend);
    follow_master(watch);
}

static void handle(struct net_watch *watch, const struct link_event *event)
{
    static const struct link_info none;
    const struct link_info *info = &event->info;
    if (info->index == watch->tap.index) {
        watch->tap = event->gone ? none : *info;
        follow_master(watch);
    } else if (info->index == watch->bridge.index) {
        watch->bridge = event->gone ? none : *info;
    } else if (event->gone) {
        return;
    } else if (!watch->tap.index && strcmp(info->name, watch->port.name) == 0) {
        tap_is_back(watch, info);
    } else if (wants_bridge(watch) && !watch->bridge.index && strcmp(info->name, watch->port.bridge) == 0) {
        bridge_is_back(watch, info);
    }
}

/* Events were lost: both are looked at again. */
static void look_again(struct net_watch *watch)
{
    if (watch->tap.index && link_by_index(watch->tap.index, &watch->tap) < 0)
        watch->tap = (struct link_info){0};
    if (watch->bridge.index && link_by_index(watch->bridge.index, &watch->bridge) < 0)
        watch->bridge = (struct link_info){0};
    follow_master(watch);
}

static void told(struct loop_op *op, int result, unsigned flags)
{
    struct net_watch *watch = container_of(op, struct net_watch, op);
    struct link_event event;
    (void)flags;
    if (watch->closing) {
        cleanup_fd(&watch->fd);
        free(watch);
        return;
    }
    if (result == -ENOBUFS)
        look_again(watch);
    else if (result < 0)
        return;
    const uint8_t *bytes = watch->buffer;
    size_t length = result > 0 ? (size_t)result : 0;
    while (link_event_next(&bytes, &length, &event))
        handle(watch, &event);
    settle(watch);
    loop_recv(watch->loop, &watch->op, watch->fd, watch->buffer, sizeof(watch->buffer));
}

void net_watch_close(struct net_watch *watch)
{
    watch->closing = true;
    loop_cancel(watch->loop, &watch->op);
}

void net_watch_lost(struct net_watch *watch)
{
    if (watch->tap.index && link_by_index(watch->tap.index, &watch->tap) < 0)
        watch->tap = (struct link_info){0};
    settle(watch);
}

int net_watch_new(struct loop *loop, const struct net_config *config, const struct net_port *port,
                  const struct net_watch_ops *ops, void *context, struct net_watch **ret_watch)
{
    struct net_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return fail(-ENOMEM, "no memory for a network card");
    watch->loop = loop;
    watch->config = config;
    watch->port = *port;
    watch->ops = ops;
    watch->context = context;
    watch->carrier = true;
    watch->op.done = told;
    watch->tap.index = port->index;
    watch->bridge.index = port->bridge_index;
    int r = link_events_open(&watch->fd);
    if (r < 0) {
        free(watch);
        return r;
    }
    (void)link_events_filter(watch->fd, false, port->index, port->bridge_index);
    look_again(watch);
    settle(watch);
    loop_recv(loop, &watch->op, watch->fd, watch->buffer, sizeof(watch->buffer));
    *ret_watch = watch;
    return 0;
}
