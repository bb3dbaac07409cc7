/*
 * Follows a card's link on the host: whether frames can pass, and whether a link that was removed is there
 * again. Nothing is asked: the kernel tells, and only of this card's TAP and bridge while all is well. Loop
 * thread.
 */
#pragma once

#include "net/config.h"

struct net_watch;

struct net_watch_ops {
    /* Frames pass, or do not: the TAP is set up, and so is the bridge that it is a port of. */
    void (*carrier)(void *context, bool up);
    /* A TAP of the same name is there again: `backend`, like the one before, is handed over. */
    void (*came_back)(void *context, struct net_backend *backend);
};

/* Starts; carrier() is called before it returns. `port` is as net_port_open() gave it and `config` is lent.
 * Negative errno with a message. */
int net_watch_new(struct loop *loop, const struct net_config *config, const struct net_port *port,
                  const struct net_watch_ops *ops, void *context, struct net_watch **ret_watch);

/* No function is called any more. It is freed later, by the loop. */
void net_watch_close(struct net_watch *watch);

/* The backend failed: its TAP is gone. */
void net_watch_lost(struct net_watch *watch);
