/*
 * virtio-mmio version 2 (virtio 1.2, 4.2): registers, the status state machine, queue set-up, notifications.
 * A device kind is a struct virtio_ops in its own file; this core never names one.
 *
 *   vCPU threads                                       loop thread
 *   every register but Status is a word of struct      Status writes, for which the vCPU waits: features are
 *   virtio_registers, read and written in place        checked, queues started, the device reset
 *   InterruptACK takes bits of InterruptStatus back    kicks (eventfds that KVM signals), the kind's work
 *
 * What a driver writes while it sets the device up is looked at only when it writes Status, and it may write
 * those words only in the states that the specification names for each. So a probe of sixty accesses comes to
 * the loop five times.
 *
 * An interrupt costs the guest no exit to this process. InterruptStatus lies in a page of ours that the guest
 * reads as memory (struct virtio_reg_page), and KVM keeps its InterruptACKs until the loop is about to raise the
 * line again (bus_drain_coalesced), which is the next time that anybody asks. The guest's view in between: a
 * bit that it has acknowledged may still read as 1, and an interrupt that it takes never shows one that is
 * stale.
 */
#pragma once

#include "dev/bus.h"
#include "dev/irq.h"
#include "dev/virtqueue.h"
#include "vcpu/vcpu.h"

#define VIRTIO_QUEUES_MAX 4u
#define VIRTIO_CONFIG_MAX 128u /* bytes of configuration space; virtio-blk's is the longest */

struct virtio_device;
struct disk;

/* A kind of device. All functions run on the loop thread. */
struct virtio_ops {
    const char *name;   /* for messages and the log: "virtio-blk" */
    uint32_t device_id; /* virtio 1.2, 5 */
    unsigned queue_count;
    /* The driver has set DRIVER_OK: queues are ready, `device->features` are negotiated. Optional. */
    void (*start)(struct virtio_device *device);
    /* The driver (or DEVICE_NEEDS_RESET) stops the device: no chain is popped or pushed after this. The kind
     * ends what is in flight, or waits for its end, and calls virtio_stopped() when nothing of it can touch
     * guest memory any more, at once or later. Required. */
    void (*stop)(struct virtio_device *device);
    /* The driver kicked `queue`, which is ready: pop until empty. Required. */
    void (*kicked)(struct virtio_device *device, unsigned queue);
    /* Driver writes to configuration space, inside its size. Optional: NULL and they are ignored. */
    void (*config_write)(struct virtio_device *device, uint64_t offset, unsigned length, uint64_t value);
    /* A clean end of the machine: the device is stopped, and what its driver was told is done must outlast the
     * process. May wait for a disk. Optional: NULL where nothing of it is in our memory. */
    void (*write_back)(struct virtio_device *device);
    /* The machine ends: give everything back, free the device. Nothing is in flight. Required. */
    void (*destroy)(struct virtio_device *device);
};

/* What a driver says of one queue before it is used. */
struct virtio_queue_registers {
    _Atomic uint32_t size, ready;
    _Atomic uint32_t desc[2], avail[2], used[2]; /* guest addresses, low and high half */
};

/* The driver's words, and nothing but words: written and read on vCPU threads, read on the loop thread when
 * Status is written. */
struct virtio_registers {
    _Atomic uint32_t device_features_select, driver_features_select, queue_select;
    _Atomic uint32_t
        driver_features[3]; /* by select; the last is of all selects beyond 1, where nothing is offered */
    struct virtio_queue_registers queues[VIRTIO_QUEUES_MAX];
};

/*
 * The registers from InterruptStatus on, in the form in which a guest reads them: a page of memory to it,
 * which it cannot write. Host and guest are little-endian.
 */
struct virtio_reg_page {
    _Atomic uint32_t interrupt_status; /* 0x060 */
    _Atomic uint32_t write_only_064[3];
    _Atomic uint32_t status; /* 0x070 */
    _Atomic uint32_t write_only_074[15];
    _Atomic uint32_t shm[4]; /* 0x0b0: length and base of the shared memory region chosen */
    _Atomic uint32_t reserved_0c0[15];
    _Atomic uint32_t config_generation;             /* 0x0fc; odd while the loop is changing config */
    _Atomic uint32_t config[VIRTIO_CONFIG_MAX / 4]; /* 0x100 */
};

enum virtio_state {
    VIRTIO_IDLE,     /* no queue in use: before DRIVER_OK, and after a stop */
    VIRTIO_RUNNING,  /* DRIVER_OK */
    VIRTIO_STOPPING, /* ops->stop() was called, virtio_stopped() was not */
};

struct virtio_kick {
    struct virtio_device *device;
    int fd; /* eventfd that KVM signals for this queue */
    struct loop_op op;
};

/* Embedded in each kind's own structure. */
struct virtio_device {
    const struct virtio_ops *ops;
    struct loop *loop;
    const struct guest_mem *mem;
    struct bus *bus;
    char label[24];   /* "disk 0", for messages */
    uint64_t offered; /* features; fixed once attached */

    /* Any thread. */
    struct virtio_registers regs;
    struct virtio_reg_page
        *reg_page; /* the page that the guest reads; `reg_shadow` where KVM cannot do that */
    struct virtio_reg_page reg_shadow;
    struct irq_source irq;   /* pending = reg_page->interrupt_status */
    _Atomic uint64_t faults; /* times the driver broke the protocol: counted, logged at a bounded rate */

    /* Loop thread. */
    enum virtio_state state;
    uint64_t features; /* negotiated */
    uint32_t config_size;
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
    struct virtio_kick kicks[VIRTIO_QUEUES_MAX];
    uint32_t pushed; /* queues, as bits, that virtio_push() filled in this turn of the loop */
    struct loop_prepare prepare;
    struct bus_waiter *reset_waiter;
    bool closing;
};

/* For kinds, when they make a device: `features` beyond VERSION_1, EVENT_IDX and INDIRECT_DESC, which are
 * offered for all. The label is shortened if it is too long. */
void virtio_init(struct virtio_device *device, const struct virtio_ops *ops, struct loop *loop,
                 const char *label, uint64_t features);

/* Sets the device configuration space (`size` <= VIRTIO_CONFIG_MAX; bytes beyond it read as zeros). A driver
 * that is running sees the generation change and is interrupted; only where it reads by exits, since a page
 * that it reads as memory changes under it by halves. Loop thread, or before the vCPUs run. */
void virtio_set_config(struct virtio_device *device, const void *config, size_t size);

/* Puts `device` on the bus at `slot` (dev/layout.h) with its interrupt line and kick eventfds. Before the
 * vCPUs run. Negative errno with words from eventfd, KVM or the bus; the device still ends with
 * virtio_close(). */
int virtio_attach(struct virtio_device *device, unsigned slot, struct bus *bus, struct vm *vm,
                  struct irq_lines *lines);

/* Gives chain `head` of queue `q` back with `written` bytes in it. The driver is interrupted once for all
 * that a turn of the loop pushed, if it wants to be. */
void virtio_push(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written);

/* The driver broke the protocol (message: fail_text()): counted, logged, DEVICE_NEEDS_RESET, interrupt,
 * stop. */
void virtio_fail_device(struct virtio_device *device);

/* Has ops->kicked() called for queue `q` again, in a later turn of the loop: a batch was cut short. */
void virtio_kick_again(struct virtio_device *device, unsigned q);

/* Ends a stop(): nothing of the device is in flight. */
void virtio_stopped(struct virtio_device *device);

/* Loop thread, at a clean end of the machine, when loop_run() has returned; the vCPUs may still run. Stops the
 * device, runs the loop until nothing of it is in flight, and has what its driver wrote kept (write_back). The
 * device does nothing any more; it is not freed. */
void virtio_finish(struct virtio_device *device);

/* Loop thread, at the end: when loop_run() has returned and the vCPUs have stopped. Stops the device, runs
 * the loop until nothing of it is in flight, and destroys it. The loop is not run again with prepares of a
 * device that is gone: after the last device's virtio_close() comes loop_free(). NULL is nothing. */
void virtio_close(struct virtio_device *device);

/* The kinds. Each returns a device not yet attached; message on failure. virtio_blk_new() takes the disk over
 * when it succeeds. `label` names it: "disk 0". */
int virtio_blk_new(struct loop *loop, struct disk *disk, const char *label,
                   struct virtio_device **ret_device);
int virtio_rng_new(struct loop *loop, struct virtio_device **ret_device);
