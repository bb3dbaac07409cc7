/* virtio-net (virtio 1.2, 5.1). Loop thread. */
#pragma once

#include "dev/virtio.h"
#include "net/backend.h"

struct virtio_net_options {
    uint8_t mac[ETH_ALEN];
    unsigned mtu; /* what the guest is told; 0: the backend's */
    struct rate_limiter_config rx, tx;
};

/* Frames and bytes (without their headers) that went through, and those that did not. */
struct virtio_net_counters {
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
    uint64_t rx_dropped;   /* too long for the guest's buffers, or no frames at all */
    uint64_t tx_malformed; /* refused: a header that lies */
    uint64_t tx_failed;    /* the backend took them not */
};

/* A device not yet attached. It takes `backend` over when it succeeds. `label` names it: "net 0". Message on
 * failure. */
int virtio_net_new(struct loop *loop, struct net_backend *backend, const struct virtio_net_options *options,
                   const char *label, struct virtio_device **ret_device);

/* The cable is in or out. The guest is told; while it is out nothing is received. */
void virtio_net_set_link(struct virtio_device *device, bool up);

struct virtio_net_observer {
    /* The backend has failed (its link was removed). Nothing is received until virtio_net_retry().
     * Optional. */
    void (*lost)(void *context);
    /* The device is being destroyed. Optional. */
    void (*closed)(void *context);
    void *context;
};
void virtio_net_observe(struct virtio_device *device, const struct virtio_net_observer *observer);

/* The backend works again. */
void virtio_net_retry(struct virtio_device *device);

/* The address that it was made with. */
void virtio_net_mac(const struct virtio_device *device, uint8_t ret_mac[ETH_ALEN]);

/* Asks the guest to tell its neighbours where it is, by gratuitous ARP (5.1.6.5.4). Also after virtio_load(),
 * by itself. */
void virtio_net_announce(struct virtio_device *device);

/* Other rate limits; they were checked. NULL leaves one as it is. */
void virtio_net_limit(struct virtio_device *device, const struct rate_limiter_config *rx,
                      const struct rate_limiter_config *tx);

void virtio_net_counters(const struct virtio_device *device, struct virtio_net_counters *ret_counters);
const struct rate_limiter *virtio_net_limiter(const struct virtio_device *device, bool rx);
