/*
 * virtio-mmio version 2 (virtio 1.2, 4.2): registers, the status state machine, queue set-up, notifications.
 * Each device is a struct virtio_ops in its own file. This core never names one.
 *
 *   vCPU threads                                       loop thread
 *   Every register but Status is a word of ours,       Status writes, for which the vCPU waits: the core
 *   written and read in place.                         checks features, starts queues, resets the device.
 *   InterruptACK clears bits of InterruptStatus.       Kicks (eventfds that KVM signals), the device's work.
 *
 * The core looks at the set-up registers only when the driver writes Status. The driver may write them only
 * in the states that the specification names. So a probe of sixty accesses comes to the loop five times.
 *
 * An interrupt costs the guest no exit to this process. InterruptStatus lies in a page of ours that the guest
 * reads as memory (struct virtio_reg_page). KVM keeps its InterruptACKs until the loop is about to raise the
 * line again (bus_drain_coalesced). Between those points an acknowledged bit may still read as 1. A guest
 * that handles an interrupt never sees a stale bit.
 *
 * The states of a device, and what moves it (loop thread):
 *
 *              DRIVER_OK                 reset, fault, virtio_quiesce(), virtio_close()
 *     IDLE ───────────────► RUNNING ──────────────────────────────────────────────────► QUIESCING
 *      ▲                       ▲                                                            │
 *      │ reset, fault, close   │ virtio_resume()                         virtio_quiesced()  ▼
 *      └───────────────────────┴───────────────────────────────────────────────────────── QUIET
 *
 * QUIET keeps the queues where they are: a device can be saved, its disk replaced, and it goes on afterwards.
 */
#pragma once

#include "base/rate_limiter.h"
#include "base/state.h"
#include "dev/bus.h"
#include "dev/irq.h"
#include "dev/virtqueue.h"
#include "vcpu/vcpu.h"

#define VIRTIO_QUEUES_MAX 16u  /* virtio-net has the most: two a queue pair, and one for control */
#define VIRTIO_CONFIG_MAX 128u /* bytes of configuration space; virtio-blk's is the longest */
#define VIRTIO_IOV_MAX    128u /* parts of one chain: a disk request of half a MiB in 4 KiB pages */

#define FEATURE(bit) (UINT64_C(1) << (bit))

struct virtio_device;
struct disk;

/* Something that a device counts, for metrics: a uint64_t at `offset` of the device's own structure, whose
 * first member is the struct virtio_device. Loop thread. */
struct virtio_counter {
    const char *name, *help; /* "read_bytes"; a sentence */
    size_t offset;
};

/* What a device is. All functions run on the loop thread. */
struct virtio_ops {
    const char *name;   /* for messages and the log: "virtio-blk" */
    uint32_t device_id; /* virtio 1.2, 5 */
    unsigned queue_count;
    unsigned iov_max; /* parts that a chain may have, at most VIRTIO_IOV_MAX; more is a fault of the driver */
    unsigned batch;   /* chains of a queue in one turn of the loop; 0: two full queues */

    /* The kernel serves the queues (vhost): the loop does not watch the kicks, the interrupt line belongs to
     * this device alone (virtio_call_fd), and InterruptStatus always shows a used buffer. */
    bool in_kernel;

    /* The device goes to work: after DRIVER_OK, and again after each virtio_resume(). The queues are ready
     * and `device->features` are negotiated. Kicks of all ready queues follow a resume. Optional. */
    void (*start)(struct virtio_device *device);

    /* Takes a chain that the driver offered in queue `q`. 0: the device has it, and gives it back by
     * virtio_push() now or later. -EPROTO with a message: the driver broke the protocol. -EAGAIN: not now;
     * the chain stays in the queue, and the device calls virtio_kick_again() when it can take it. `chain` and
     * its parts are the core's and may be changed, but not kept. Required, unless `kicked` does without. */
    int (*take)(struct virtio_device *device, unsigned q, struct virtq_chain *chain);

    /* The driver kicked queue `q`, which is ready. Optional: without it the core calls virtio_take_chains().
     * For queues whose chains wait for something to put into them (received packets). */
    void (*kicked)(struct virtio_device *device, unsigned q);

    /* Stop working, and touch no guest memory any more: let what is in flight end, or cancel it. Results are
     * pushed as usual. A chain that cannot end is given back by virtqueue_unpop(). Then call
     * virtio_quiesced(), at once or later. No chain is taken after this until the next start(). Required. */
    void (*quiesce)(struct virtio_device *device);

    /* The driver writes to configuration space, inside its size. Optional: NULL and it is ignored. */
    void (*config_write)(struct virtio_device *device, uint64_t offset, unsigned length, uint64_t value);

    /* A clean end of the machine: what the driver was told is done must outlast the process. The device is
     * quiet. May wait for a disk. Optional: NULL where nothing of it is in our memory. */
    void (*write_back)(struct virtio_device *device);

    /* The device's own state, beside the core's; the owner is the struct virtio_device. Saved and loaded
     * while nothing is in flight. Optional. */
    const struct state_part *parts;
    unsigned part_count;

    /* What it counts, beside the core's kicks and interrupts. Optional. */
    const struct virtio_counter *counters;
    unsigned counter_count;

    /* Of what it has now; the same structure. Optional. */
    const struct virtio_counter *gauges;
    unsigned gauge_count;

    /* Free the device and what it owns. Nothing is in flight. Required. */
    void (*destroy)(struct virtio_device *device);
};

/* What a driver says of one queue before it is used. */
struct virtio_queue_registers {
    _Atomic uint32_t size, ready;
    _Atomic uint32_t desc[2], avail[2], used[2]; /* guest addresses, low and high half */
};

/* The driver's other words: written and read on vCPU threads, read on the loop thread when Status is
 * written. */
struct virtio_registers {
    _Atomic uint32_t device_features_select, driver_features_select, queue_select;
    /* By select. The last is of all selects beyond 1, where nothing is offered. */
    _Atomic uint32_t driver_features[3];
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
    VIRTIO_IDLE,      /* no queue in use: before DRIVER_OK, and after a reset or a fault */
    VIRTIO_RUNNING,   /* the device works on its queues */
    VIRTIO_QUIESCING, /* ops->quiesce() was called, virtio_quiesced() was not */
    VIRTIO_QUIET,     /* nothing is in flight; the queues stay where they are */
};

struct virtio_queue {
    struct virtio_device *device;
    struct virtio_queue_registers regs; /* any thread */
    struct virtqueue vq;                /* loop thread */
    int kick_fd;                        /* eventfd that KVM signals for this queue */
    struct loop_op kick_op;
};

/* Called on the loop thread when something asked of a device is done. */
typedef void virtio_done(void *context);

/* Embedded in each device's own structure. */
struct virtio_device {
    const struct virtio_ops *ops;
    struct loop *loop;
    const struct guest_mem *mem;
    struct bus *bus;
    struct bus_call status_call, notify_call, config_call;
    char label[24];              /* "disk 0", for messages */
    uint64_t offered;            /* features; fixed once attached */
    unsigned queue_count;        /* ops->queue_count; a device may lower it before it is attached */
    struct virtio_queue *queues; /* ops->queue_count of them */

    /* Any thread. */
    struct virtio_registers regs;
    struct virtio_reg_page
        *reg_page; /* the page that the guest reads; `reg_shadow` where KVM cannot do that */
    struct virtio_reg_page reg_shadow;
    struct irq_source irq;   /* pending = reg_page->interrupt_status */
    _Atomic uint64_t faults; /* times the driver broke the protocol: counted, logged at a bounded rate */

    /* Loop thread. */
    enum virtio_state state;
    bool forget;       /* when QUIET, the queues end: a reset, a fault or a close wants it */
    bool held;         /* between virtio_quiesce() and virtio_resume() */
    bool closing;      /* virtio_close() was called */
    uint64_t features; /* negotiated */
    uint32_t config_size;
    uint64_t kicks, interrupts, config_interrupts; /* counted, not saved */
    uint32_t pushed; /* queues, as bits, that got used entries in this turn of the loop */
    struct loop_prepare prepare;
    struct bus_waiter *reset_waiter;
    virtio_done *quiet_done, *close_done;
    void *quiet_context, *close_context;
    struct loop_timer end; /* of a closing device: it is destroyed in a turn of its own */
};

/* ---- Making a device ---- */

/* For devices, when they are made. `features` come on top of VERSION_1, EVENT_IDX and INDIRECT_DESC, which
 * all devices offer. The label is shortened if it is too long. -ENOMEM with a message. */
int virtio_init(struct virtio_device *device, const struct virtio_ops *ops, struct loop *loop,
                const char *label, uint64_t features);

/* Sets the whole configuration space (`size` <= VIRTIO_CONFIG_MAX; bytes beyond it read as zeros). Before
 * virtio_attach(). */
void virtio_set_config(struct virtio_device *device, const void *config, size_t size);

/* Puts `device` on the bus at `slot` (layout.h) with its interrupt line and kick eventfds. Before the vCPUs
 * run. Negative errno with a message from eventfd, KVM, the bus or the line; the device still ends with
 * virtio_close(). */
int virtio_attach(struct virtio_device *device, unsigned slot, struct bus *bus, struct vm *vm,
                  struct irq_lines *lines);

/* ---- For devices at work; loop thread ---- */

/* Calls ops->take() for what the driver has made available in queue `q`, one batch at most. */
void virtio_take_chains(struct virtio_device *device, unsigned q);

/* Gives chain `head` of queue `q` back with `written` bytes in it. The driver is interrupted once for all
 * that a turn of the loop pushed, if it wants to be. Without effect once the queues are to be forgotten. */
void virtio_push(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written);

/* virtio_push() in two halves: the driver sees all chains that were filled when they are published. */
void virtio_fill(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written);
void virtio_publish(struct virtio_device *device, unsigned q);

/* The driver broke the protocol (message: fail_text()): counted, logged, DEVICE_NEEDS_RESET, interrupt. The
 * device is quiesced and its queues are forgotten. */
void virtio_fail_device(struct virtio_device *device);

/* Has queue `q` kicked again in a later turn of the loop. */
void virtio_kick_again(struct virtio_device *device, unsigned q);

/* Ends a quiesce(): nothing of the device can touch guest memory any more. */
void virtio_quiesced(struct virtio_device *device);

/* Changes the aligned 32-bit word at `offset` of configuration space while the guest may run: the generation
 * changes and the driver is interrupted. A reader never sees half a word. For a wider field that grows set
 * the low word first: the driver reads again after the interrupt. */
void virtio_set_config_word(struct virtio_device *device, uint32_t offset, uint32_t value);

/* The same word without telling the driver: what it has written itself. */
void virtio_show_config_word(struct virtio_device *device, uint32_t offset, uint32_t value);

/* The eventfd by which the kernel interrupts for a device that is `in_kernel`, and the one by which the guest
 * kicks queue `q`. Lent; after virtio_attach(). */
int virtio_call_fd(const struct virtio_device *device);
int virtio_kick_fd(const struct virtio_device *device, unsigned q);

/* ---- For who owns the machine; loop thread ---- */

/*
 * Makes the device quiet: done(context) is called, now or later, when nothing of it is in flight. All that it
 * finished is in the rings by then and the driver's interrupt is raised. Queues and features are kept. The
 * driver may still write Status meanwhile: a reset takes effect, and DRIVER_OK waits for the resume. Also for
 * a device that no driver has started. -EBUSY with a message if it is held already.
 */
int virtio_quiesce(struct virtio_device *device, virtio_done *done, void *context);

/* The device goes on; only after done(). Kicks that came meanwhile are not lost. */
void virtio_resume(struct virtio_device *device);

/* What the driver has set up is no more, and the device is as one that no driver has touched, but held: for
 * virtio_load(). After done() of virtio_quiesce(), while no vCPU runs. */
void virtio_forget(struct virtio_device *device);

/* At a clean end of the machine, for a quiet device: what its driver wrote is kept. May wait for a disk. */
void virtio_write_back(struct virtio_device *device);

/*
 * The device's state as sections: of one that is quiet (virtio_quiesce), into one that was just attached and
 * that no driver has touched. Guest memory is loaded before. The device is then held: virtio_resume() sets it
 * going. Loading: -EBADMSG and -ENOTSUP as state_load() has them, -EINVAL if the state is not of such a
 * device, all with a message; then the device can only be closed.
 */
int virtio_save(const struct virtio_device *device, struct state_writer *to);
int virtio_load(struct virtio_device *device, struct state_reader from);

/*
 * Ends the device: it is quiesced, freed, and then done(context) is called (NULL: nobody is told). Never
 * before this function returns, so it may be called from inside any handler of the device. The guest must not
 * access an attached device any more: its vCPUs are parked or have ended. NULL is nothing: done() is called
 * at once.
 */
void virtio_close(struct virtio_device *device, virtio_done *done, void *context);

/* ---- The devices ---- */

/* Each returns a device not yet attached; message on failure. virtio_blk_new() takes the disk over when it
 * succeeds. `label` names it: "disk 0". */
int virtio_blk_new(struct loop *loop, struct disk *disk, const char *label,
                   struct virtio_device **ret_device);

/* Its disk, lent. */
struct disk *virtio_blk_disk(const struct virtio_device *device);

/* Puts `disk`, which is not attached, in the place of its disk as soon as nothing of that is in flight, and
 * closes that; requests wait meanwhile. The guest is told of the size. done(context) is called then, maybe
 * before this returns. Not from a handler of a disk. -EBUSY, or -EINVAL if the guest knows the drive as
 * something that `disk` is not; with a message, and `disk` is still the caller's. */
int virtio_blk_replace(struct virtio_device *device, struct disk *disk, virtio_done *done, void *context);

/* Limits what a disk does from now on; `config` was checked (rate_limiter_check). Loop thread, at any time.
 * And what was held back so far. */
void virtio_blk_limit(struct virtio_device *device, const struct rate_limiter_config *config);
const struct rate_limiter *virtio_blk_limiter(const struct virtio_device *device);

int virtio_rng_new(struct loop *loop, struct virtio_device **ret_device);
