/*
 * virtio-mmio version 2 (virtio 1.2, 4.2): registers, the status state machine, queue set-up, notifications. A device
 * kind is a struct virtio_kind in its own file; this core never names one.
 */
#pragma once

#include "dev/bus.h"
#include "dev/irq.h"
#include "dev/virtqueue.h"
#include "vcpu/vcpu.h"

#define VIRTIO_QUEUES_MAX 4u

struct virtio_device;
struct disk;

/* All functions run on the loop thread. */
struct virtio_kind {
    const char *name;      /* for words and the log: "virtio-blk" */
    uint32_t device_id;    /* virtio 1.2, 5 */
    unsigned queue_count;
    /* Features offered beyond VERSION_1, EVENT_IDX and INDIRECT_DESC, which the core offers for all. Required. */
    uint64_t (*features)(struct virtio_device *device);
    /* The driver has set DRIVER_OK: queues are ready, `device->driver_features` are negotiated. Optional. */
    void (*start)(struct virtio_device *device);
    /* The driver (or DEVICE_NEEDS_RESET) stops the device: no chain is popped or pushed after this. The kind cancels
     * what is in flight and calls virtio_stopped() when nothing of it can touch guest memory any more, at once or
     * later. Required. */
    void (*stop)(struct virtio_device *device);
    /* The driver kicked `queue`. Called in a turn of the loop at most once a queue; pop until empty. Required. */
    void (*kicked)(struct virtio_device *device, unsigned queue);
    /* Device configuration space (bytes beyond the end read as zeros). Required. */
    size_t config_size;
    void (*config_read)(struct virtio_device *device, void *ret_config);
    /* Driver writes to configuration space. Optional: NULL and they are ignored. */
    void (*config_write)(struct virtio_device *device, uint64_t offset, unsigned length, uint64_t value);
    /* The machine ends: give everything back, free the device. Nothing is in flight. Required. */
    void (*destroy)(struct virtio_device *device);
};

struct virtio_queue_setup {
    uint32_t size;
    uint64_t desc, avail, used;
    int kick_fd; /* eventfd that KVM signals for this queue */
    struct loop_op kick_op;
    struct virtio_device *device;
};

/* Embedded first in each kind's own structure. */
struct virtio_device {
    const struct virtio_kind *kind;
    struct loop *loop;
    struct bus *bus;
    const struct guest_mem *mem;
    char label[24];             /* "disk 0", for words */
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
    struct virtio_queue_setup setup[VIRTIO_QUEUES_MAX];
    uint64_t driver_features;
    _Atomic uint32_t status;
    uint32_t features_select, driver_features_select, queue_select;
    _Atomic uint32_t config_generation;
    struct irq_source irq;      /* pending = InterruptStatus */
    struct bus_waiter *reset_waiter;
    bool stopping;
    uint64_t faults;            /* protocol errors of the driver: counted, logged at a bounded rate */
};

/* Puts `device` on the bus at `slot` (dev/layout.h) with its interrupt line and kick eventfds. Before the vCPUs run. */
int virtio_attach(struct virtio_device *device, unsigned slot, struct vm *vm, struct irq_lines *lines);

/* Interrupts the driver for queue `q` if it wants it. Kinds call this once a batch, not once a request. */
void virtio_queue_done(struct virtio_device *device, unsigned q);

/* The configuration space changed: generation, interrupt. */
void virtio_config_changed(struct virtio_device *device);

/* The driver broke the protocol (words: fail_text()): DEVICE_NEEDS_RESET, config interrupt, counted log line, stop. */
void virtio_driver_fault(struct virtio_device *device);

/* Ends a stop(): nothing of the device is in flight. */
void virtio_stopped(struct virtio_device *device);

/* The kinds. Each returns a device not yet attached; words on failure. */
int virtio_blk_new(struct loop *loop, struct disk *disk, const char *label, struct virtio_device **ret_device);
int virtio_rng_new(struct loop *loop, struct virtio_device **ret_device);
