/* TAP and macvtap: descriptors of /dev/net/tun or /dev/tapN. */
#pragma once

#include "net/backend.h"

#include <net/if.h>

/*
 * Opens the TAP `name` with `pairs` queues; makes it if there is none, and then it ends with its last
 * descriptor. An empty name lets the kernel choose one. ret_name gets the name. Negative errno with a
 * message: -EPERM (no right to), -EBUSY (in use), -EINVAL (no TAP, or made for one queue and asked for
 * several).
 */
int tap_open(const char *name, unsigned pairs, char ret_name[IF_NAMESIZE], struct net_backend **ret_backend);

/* Takes over `count` descriptors, one a queue pair, of one TAP or macvtap. -EINVAL with a message if one of
 * them is no such thing or has no header before its frames; then they stay the caller's. */
int tap_adopt(const int *fds, unsigned count, struct net_backend **ret_backend);

/* The descriptor of a pair; lent. For vhost. */
int tap_fd(const struct net_backend *backend, unsigned pair);

/* Puts another TAP's descriptors in the place of those of `backend`: it was gone and is there again. `from`
 * is used up. As many pairs as before; nothing is in flight. */
void tap_replace(struct net_backend *backend, struct net_backend *from);
