/*
 * The host's links by rtnetlink (libnl). Requests wait for the kernel's answer, which takes microseconds, or
 * as long as another program holds the kernel's lock of all links: they are for the start, and for a link
 * that has come back.
 */
#pragma once

#include "base/base.h"

#include <linux/if_ether.h>
#include <net/if.h>

struct link_info {
    unsigned index, master; /* master: the bridge that it is a port of; 0: none */
    bool up;                /* IFF_UP: somebody has set it up */
    bool is_bridge;
    unsigned mtu;
    uint8_t address[ETH_ALEN];
    char name[IF_NAMESIZE];
};

/* -ENODEV (no message) if there is no such link, or a negative errno with a message. */
int link_by_name(const char *name, struct link_info *ret_info);
int link_by_index(unsigned index, struct link_info *ret_info);

/* Makes link `index` a port of `bridge` (0: leaves that alone) with `mtu` (0: likewise) and sets it up, in
 * one request. Negative errno with a message that begins with `name`. */
int link_join(unsigned index, unsigned bridge, unsigned mtu, const char *name);

/* A message about a link (RTM_NEWLINK, RTM_DELLINK). */
struct link_event {
    struct link_info info;
    bool gone;
};

/* A socket that tells of changes. Only those of the links `a` and `b`, and those of all if `all`: so
 * thousands of VMs do not wake for each other. */
int link_events_open(int *ret_fd);
int link_events_filter(int fd, bool all, unsigned a, unsigned b);

/* Takes the first event off `*bytes`: 1, or 0 at the end. What is no event is left out. */
int link_event_next(const uint8_t **bytes, size_t *length, struct link_event *ret_event);
