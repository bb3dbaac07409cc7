#include "dev/virtio_limiter.h"

#include <time.h>

static uint64_t now_ns(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void timer_ended(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_limiter *limiter = container_of(op, struct virtio_limiter, timer.op);
    struct virtio_device *device = limiter->device;
    (void)result, (void)flags;
    if (device->state == VIRTIO_RUNNING)
        virtio_kick_again(device, limiter->queue);
    else
        limiter->stopped(device);
}

void virtio_limiter_init(struct virtio_limiter *limiter, struct virtio_device *device, unsigned queue,
                         void (*stopped)(struct virtio_device *device))
{
    *limiter = (struct virtio_limiter){
        .device = device, .queue = queue, .stopped = stopped, .timer.op.done = timer_ended};
    limiter->rate = &limiter->own;
}

void virtio_limiter_set(struct virtio_limiter *limiter, const struct rate_limiter_config *config)
{
    rate_limiter_set(limiter->rate, config, now_ns());
    limiter->limits = rate_limiter_limits(config);
    loop_cancel(limiter->device->loop, &limiter->timer.op); /* what waits asks again */
}

int virtio_limiter_wait(struct virtio_limiter *limiter, uint64_t bytes)
{
    uint64_t wait = rate_limiter_take(limiter->rate, bytes, now_ns());
    if (wait == 0)
        return 0;
    if (!limiter->timer.op.in_flight)
        loop_timer_start(limiter->device->loop, &limiter->timer, wait);
    return -EAGAIN;
}

bool virtio_limiter_stop(struct virtio_limiter *limiter)
{
    rate_limiter_forget(limiter->rate);
    loop_cancel(limiter->device->loop, &limiter->timer.op);
    return !limiter->timer.op.in_flight;
}
