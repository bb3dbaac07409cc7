/* Between virtio.c (the device's life, loop thread) and virtio_mmio.c (its registers, vCPU threads) only. */
#pragma once

#include "dev/virtio.h"

/* The driver did what the specification forbids, and it is ignored: counted, and logged at a bounded rate.
 * Any thread. */
void virtio_warn_driver(struct virtio_device *device, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* A write to Status. `waiter` is answered when it has had its effect. */
void virtio_write_status(struct virtio_device *device, uint32_t value, struct bus_waiter *waiter);

/* A kick of queue `q`, however it came. */
void virtio_kicked(struct virtio_device *device, unsigned q);

/* Takes queue `q` into use as its registers say. -EPROTO with a message. */
int virtio_start_queue(struct virtio_device *device, unsigned q);

/* Makes the kicks' eventfds, and watches them unless the kernel serves the queues. */
int virtio_watch_kicks(struct virtio_device *device);
