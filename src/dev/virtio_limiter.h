/* A rate limiter (base/rate_limiter.h) of one virtqueue: a chain that must wait stays in the queue, and a
 * timer of the ring asks for it again at the nanosecond at which it may go. Loop thread. */
#pragma once

#include "base/rate_limiter.h"
#include "dev/virtio.h"

struct virtio_limiter {
    struct rate_limiter *rate; /* `own`, unless the device sets another one, for several queues */
    struct rate_limiter own;
    bool limits; /* there is anything to ask */
    struct virtio_device *device;
    unsigned queue;
    struct loop_timer timer;
    void (*stopped)(struct virtio_device *device);
};

/* `stopped` is called when the timer has ended after virtio_limiter_stop() was false. */
void virtio_limiter_init(struct virtio_limiter *limiter, struct virtio_device *device, unsigned queue,
                         void (*stopped)(struct virtio_device *device));

/* Other limits; `config` was checked (rate_limiter_check). At any time. */
void virtio_limiter_set(struct virtio_limiter *limiter, const struct rate_limiter_config *config);

/* For ops->take() and ops->kicked(): 0 the request of `bytes` may go, -EAGAIN (no message) it stays in the
 * queue, which is kicked when it may. */
int virtio_limiter_wait(struct virtio_limiter *limiter, uint64_t bytes);
static inline int virtio_limiter_take(struct virtio_limiter *limiter, uint64_t bytes)
{
    return limiter->limits ? virtio_limiter_wait(limiter, bytes) : 0;
}

/* For ops->quiesce(): true if the timer is not running. */
bool virtio_limiter_stop(struct virtio_limiter *limiter);
