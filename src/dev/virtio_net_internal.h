/* Between the files of virtio_net only. */
#pragma once

#include "dev/virtio_limiter.h"
#include "dev/virtio_net.h"

#include <linux/virtio_net.h>

_Static_assert(sizeof(struct virtio_net_hdr_v1) == NET_HEADER, "header");

/* Parts of one chain: Linux sends 2 + MAX_SKB_FRAGS, which is 17, and 45 at most. */
#define NET_IOV_MAX 64u

/* Parts of the chains that a frame is received into: 64 KiB in buffers of 1,536 bytes are 43. */
#define NET_RX_PARTS 128u

#define NET_MAC_TABLE_MAX 64u

/* Since Linux 6.2; Debian 12's headers are older. */
#define NET_F_GUEST_USO4 54
#define NET_F_GUEST_USO6 55
#define NET_F_HOST_USO   56
#define NET_GSO_UDP_L4   5u

#define NET_GUEST_OFFLOADS                                                                                   \
    (FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) |                                   \
     FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN) | FEATURE(NET_F_GUEST_USO4) |        \
     FEATURE(NET_F_GUEST_USO6))

struct virtio_net;

struct net_rx_chain {
    uint16_t head;
    uint16_t parts;
    uint32_t bytes;
};

/*
 * The receiving half of a pair. The window is what was popped and not yet used, in the order of the queue:
 * room for the largest frame, if the driver has offered that much. One read into the window is with the
 * backend. What a frame leaves of the window stays for the next one; at rest all of it goes back into the
 * queue.
 */
struct net_rx {
    struct virtio_net *net;
    unsigned pair;
    struct net_io io;
    struct virtio_limiter limiter;
    uint32_t unpaid; /* bytes of the last frame, not yet taken from the limiter */

    struct net_rx_chain chains[VIRTQUEUE_SIZE_MAX]; /* a ring */
    unsigned chain_first, chain_count;
    struct iovec iov[2 * NET_RX_PARTS + NET_IOV_MAX + 1]; /* the window's parts are next to each other */
    unsigned part_first, part_count;
    uint64_t bytes; /* of the window */

    /* What of a frame did not fit the window; the frame waits for more chains. */
    uint8_t *overflow;
    uint32_t waiting; /* the whole frame's bytes, header included; 0: none waits */
};

struct net_tx_slot {
    struct net_io io;
    struct net_tx *tx;
    struct net_tx_slot *next_free;
    uint16_t head;
    uint32_t bytes;
    struct virtio_net_hdr_v1 header; /* the copy that was checked */
    struct iovec iov[NET_IOV_MAX + 1];
};

struct net_tx {
    struct virtio_net *net;
    unsigned pair;
    struct virtio_limiter limiter;
    struct net_tx_slot *slots, *free;
    unsigned fresh, in_flight;
};

/* What the driver has set by the control queue; saved and loaded. */
struct net_control {
    uint64_t guest_offloads; /* VIRTIO_NET_F_GUEST_... that are on */
    uint32_t pairs;          /* in use */
    uint8_t mac[ETH_ALEN];
    uint8_t promiscuous, all_multicast, no_multicast, no_unicast, no_broadcast, filtering;
    uint32_t unicast, multicast; /* entries of the table, unicast first */
    uint8_t table[NET_MAC_TABLE_MAX][ETH_ALEN];
    uint8_t table_overflow; /* more were wanted than fit: no filter */
    uint8_t zero[3];
};

struct virtio_net {
    struct virtio_device device; /* first */
    struct net_backend *backend;
    unsigned max_pairs;
    struct rate_limiter rx_rate, tx_rate; /* of all pairs together */
    struct net_rx *rx;
    struct net_tx *tx;
    struct net_control control;
    uint8_t mac[ETH_ALEN]; /* as made; a reset brings it back */
    bool link_up, lost, announcing, announce_at_start;
    struct virtio_net_observer observer;
    struct virtio_net_counters counters;
};

static inline struct virtio_net *net_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_net, device);
}

static inline bool net_has(const struct virtio_net *net, unsigned bit)
{
    return net->device.features & FEATURE(bit);
}

/* virtio_net.c */
void net_end_quiesce(struct virtio_device *device);
void net_backend_lost(struct virtio_net *net);
void net_show_config(struct virtio_net *net);
int net_apply_control(struct virtio_net *net);
void net_apply_filter(struct virtio_net *net);

/* virtio_net_rx.c: receives if it can; a frame that waits is looked after first. */
void net_rx_go(struct net_rx *rx);
int net_rx_init(struct net_rx *rx, struct virtio_net *net, unsigned pair);
void net_rx_free(struct net_rx *rx);
void net_rx_stop(struct net_rx *rx);   /* at a quiesce: what is with the backend is cancelled */
void net_rx_settle(struct net_rx *rx); /* nothing is with the backend: the window goes back */

/* virtio_net_tx.c */
int net_tx_init(struct net_tx *tx, struct virtio_net *net, unsigned pair);
void net_tx_free(struct net_tx *tx);
int net_tx_take(struct net_tx *tx, struct virtq_chain *chain);

/* virtio_net_control.c */
int net_control_take(struct virtio_net *net, unsigned q, struct virtq_chain *chain);
