/* rtnetlink, as far as volt-init needs it: each call is one request, and waits for the kernel's answer, which
 * comes at once. Negative errno, no message. */
#pragma once

#include "networds.h"

int netlink_open(int *ret_fd);

/* Sets link `index` up, with `mtu` (0: as it is). */
int netlink_set_up(int fd, unsigned index, unsigned mtu);

/* Gives it an address, usable at once (IPv6: without asking whether another has it). It may have it
 * already. */
int netlink_add_address(int fd, unsigned index, const struct net_address *address, unsigned prefix);

/* -EADDRNOTAVAIL: it has it not. */
int netlink_remove_address(int fd, unsigned index, const struct net_address *address, unsigned prefix);

/* A route to `network` by `gateway`; a prefix of 0 is the default route. It takes the place of one that is
 * the same but for the gateway. Of two that differ by `metric` alone the lower is used; 0 is the kernel's own
 * choice. The gateway need not be in a network of the link's. */
int netlink_set_route(int fd, unsigned index, const struct net_address *network, unsigned prefix,
                      const struct net_address *gateway, unsigned metric);
