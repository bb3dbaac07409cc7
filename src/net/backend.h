/*
 * A backend: where a network card's frames go and come from. One file per kind (tap.c).
 *
 * A frame is preceded by struct virtio_net_hdr_v1 (12 bytes), which says what is left to do for it: a
 * checksum, or cutting it up into segments. Frames of a queue pair go out in the order in which they are
 * sent.
 *
 * All functions run on the loop thread. Operations end by net_io.done, later or before the call returns; the
 * iovecs and what they point at stay untouched by others until then.
 */
#pragma once

#include "loop/loop.h"

#include <linux/if_ether.h>

#define NET_HEADER    12u                     /* sizeof(struct virtio_net_hdr_v1) */
#define NET_FRAME_MAX (65535u + ETH_HLEN + 4) /* an IP packet of the largest size, its header, a VLAN tag */
#define NET_BYTES_MAX (NET_HEADER + NET_FRAME_MAX)
#define NET_PAIRS_MAX                                                                                        \
    7u /* queue pairs: two queues of a device each, and one for control (VIRTIO_QUEUES_MAX) */

/* What a guest takes in, and so what the backend may leave to it: TUN_F_... of linux/if_tun.h. */
typedef uint32_t net_offloads;

struct net_backend;

struct net_io {
    struct loop_op op; /* the backend's */
    /* `result`: bytes, header included, or a negative errno. */
    void (*done)(struct net_io *io, int result);
    bool busy; /* between the call and done() */

    /* A backend's that keeps a queue of its own. */
    struct net_io *next;
    const struct iovec *iov;
    unsigned count;
};

/* The frames that a guest wants to see. */
struct net_filter {
    bool all, all_multicast;
    uint8_t own[ETH_ALEN];
    unsigned count;
    const uint8_t (*addresses)[ETH_ALEN]; /* unicast and multicast; lent for the call */
};

struct net_backend_ops {
    void (*send)(struct net_backend *backend, unsigned pair, struct net_io *io, const struct iovec *iov,
                 unsigned count);
    /* One at a time for each pair. A frame that is longer than the iovecs is cut. */
    void (*receive)(struct net_backend *backend, unsigned pair, struct net_io *io, const struct iovec *iov,
                    unsigned count);
    /* Asks for the end of a receive(), as loop_cancel() does. */
    void (*cancel)(struct net_backend *backend, struct net_io *io);
    /* Asks for the end of all that is being sent. A frame that the other side has no room for is dropped.
     * Optional: without it a send() ends soon by itself. */
    void (*settle)(struct net_backend *backend);
    /* Negative errno with a message. */
    int (*set_offloads)(struct net_backend *backend, net_offloads offloads);
    /* Frames come to the first `pairs` pairs. Negative errno with a message. */
    int (*set_pairs)(struct net_backend *backend, unsigned pairs);
    /* A wish: a backend that cannot filter lets more through. Optional. */
    void (*set_filter)(struct net_backend *backend, const struct net_filter *filter);
    void (*close)(struct net_backend *backend); /* nothing is in flight */
};

struct net_backend {
    const struct net_backend_ops *ops;
    struct loop *loop;     /* set by who uses it, before the first operation */
    unsigned pairs;        /* queue pairs, from 1 to NET_PAIRS_MAX */
    net_offloads offloads; /* that set_offloads() can be asked for; frames with these may be sent, too */
    unsigned mtu;          /* of the link, for the guest to take over; 0: not known */
};
