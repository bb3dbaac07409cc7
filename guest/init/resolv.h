/* /etc/resolv.conf. */
#pragma once

#include "networds.h"

#define RESOLVER_SERVERS 3 /* as many as resolvers read: resolv.conf(5), MAXNS */

struct resolver {
    struct net_address servers[RESOLVER_SERVERS];
    unsigned count;
    const char *domain; /* to search in; NULL: none */
};

/* One that is there already, or has no room, is left out. */
void resolver_add(struct resolver *resolver, const struct net_address *server);

/* Writes the file; on a root that cannot be written to, another is mounted over it. False if it could not be,
 * which is said. */
bool resolver_write(const struct resolver *resolver);
