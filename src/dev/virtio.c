#include "dev/virtio.h"
#include "base/log.h"
#include "dev/virtio_core.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#define FEATURES_OF_ALL                                                                                      \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC))

#define STATUS_OF_DRIVER                                                                                     \
    ((uint32_t)(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |         \
                VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED))

/* --- faults of the driver --- */

static void count_fault(struct virtio_device *device, const char *message)
{
    atomic_fetch_add(&device->faults, 1);
    log_warn("%s (%s): the guest's driver broke the protocol: %s", device->label, device->ops->name, message);
}

void virtio_warn_driver(struct virtio_device *device, const char *format, ...)
{
    char message[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    count_fault(device, message);
}

/* The acknowledgements that KVM keeps take effect first. One that comes later is harmless: the guest sends it
 * before it looks at the rings, and they are complete by now. */
static void interrupt_driver(struct virtio_device *device, uint32_t bits)
{
    bus_drain_coalesced(device->bus);
    irq_raise(&device->irq, bits);
    if (bits & VIRTIO_MMIO_INT_VRING)
        device->interrupts++;
    else
        device->config_interrupts++;
}

static void quiesce_device(struct virtio_device *device)
{
    device->state = VIRTIO_QUIESCING;
    device->ops->quiesce(device);
}

static void settle(struct virtio_device *device);
static void interrupt_for_pushed(struct loop_prepare *prepare);
static void end_device(struct virtio_device *device);
static void destroy_if_ended(struct virtio_device *device);

/* The queues end as soon as nothing is in flight. */
static void forget_queues(struct virtio_device *device)
{
    device->forget = true;
    if (device->state == VIRTIO_RUNNING)
        quiesce_device(device);
    else if (device->state == VIRTIO_QUIET)
        settle(device);
}

void virtio_fail_device(struct virtio_device *device)
{
    count_fault(device, fail_text());
    atomic_fetch_or(&device->reg_page->status, VIRTIO_CONFIG_S_NEEDS_RESET);
    interrupt_driver(device, VIRTIO_MMIO_INT_CONFIG); /* virtio 1.2, 2.1.2 */
    if (device->state != VIRTIO_IDLE)
        forget_queues(device);
}

/* --- status (virtio 1.2, 2.1 and 3.1) --- */

/* FEATURES_OK stands only for a subset of what was offered; a driver without VERSION_1 is one for version
 * 0.9, which this transport is not (6.1). */
static bool negotiate(struct virtio_device *device)
{
    struct virtio_registers *regs = &device->regs;
    uint64_t wanted =
        (uint64_t)atomic_load(&regs->driver_features[1]) << 32 | atomic_load(&regs->driver_features[0]);
    if ((wanted & ~device->offered) || atomic_load(&regs->driver_features[2])) {
        virtio_warn_driver(device, "features 0x%llx accepted, 0x%llx offered", (unsigned long long)wanted,
                           (unsigned long long)device->offered);
        return false;
    }
    if (!(wanted & FEATURE(VIRTIO_F_VERSION_1))) {
        virtio_warn_driver(device, "VERSION_1 not accepted");
        return false;
    }
    device->features = wanted;
    return true;
}

static gpa_t registers_gpa(_Atomic uint32_t halves[2])
{
    return gpa((uint64_t)atomic_load(&halves[1]) << 32 | atomic_load(&halves[0]));
}

static void end_queues(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->queue_count; q++)
        virtqueue_end(&device->queues[q].vq);
    device->pushed = 0;
    device->forget = false;
}

int virtio_start_queue(struct virtio_device *device, unsigned q)
{
    struct virtio_queue *queue = &device->queues[q];
    struct virtio_queue_registers *regs = &queue->regs;
    uint32_t size = atomic_load(&regs->size);
    return virtqueue_start(&queue->vq, device->mem, (uint16_t)MIN(size, UINT16_MAX),
                           registers_gpa(regs->desc), registers_gpa(regs->avail), registers_gpa(regs->used),
                           device->features & FEATURE(VIRTIO_RING_F_EVENT_IDX),
                           device->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
}

static void run_device(struct virtio_device *device)
{
    device->state = VIRTIO_RUNNING;
    if (device->ops->start)
        device->ops->start(device);
}

static void start_device(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->queue_count; q++) {
        if (atomic_load(&device->queues[q].regs.ready) && virtio_start_queue(device, q) < 0) {
            end_queues(device);
            virtio_fail_device(device);
            return;
        }
    }
    if (device->held)
        device->state = VIRTIO_QUIET; /* virtio_resume() goes on */
    else
        run_device(device);
}

/* A write to Status that is no reset: bits are set one after the other and never taken back. */
static void advance_status(struct virtio_device *device, uint32_t value)
{
    static const struct {
        uint32_t bit, before;
    } order[] = {
        {VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_ACKNOWLEDGE},
        {VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_DRIVER},
        {VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK},
    };
    uint32_t status = atomic_load(&device->reg_page->status);
    /* NEEDS_RESET is the device's; a driver that adds a bit to what it read writes it too. */
    uint32_t wanted = value & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET;
    bool valid = !(wanted & ~STATUS_OF_DRIVER) && !(status & STATUS_OF_DRIVER & ~wanted);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++)
        valid &= !(wanted & order[i].bit) || (wanted & order[i].before);
    if (!valid) {
        virtio_warn_driver(device, "status 0x%x after 0x%x", value, status);
        return;
    }
    uint32_t added = wanted & ~status;
    if ((added & VIRTIO_CONFIG_S_FEATURES_OK) && !negotiate(device))
        added &= ~(uint32_t)(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
    atomic_store(&device->reg_page->status, status | added);
    if (added & VIRTIO_CONFIG_S_DRIVER_OK)
        start_device(device);
}

static void clear_words(void *words, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof(uint32_t); i++)
        atomic_store((_Atomic uint32_t *)words + i, 0);
}

static void clear_registers(struct virtio_device *device)
{
    clear_words(&device->regs, sizeof(device->regs));
    for (unsigned q = 0; q < device->queue_count; q++)
        clear_words(&device->queues[q].regs, sizeof(device->queues[q].regs));
    device->features = 0;
    irq_ack(&device->irq, UINT32_MAX);
    atomic_store(&device->reg_page->status, 0);
}

static void finish_reset(struct virtio_device *device)
{
    clear_registers(device);
    struct bus_waiter *waiter = ptr_steal(&device->reset_waiter);
    bus_done(waiter);
}

void virtio_write_status(struct virtio_device *device, uint32_t value, struct bus_waiter *waiter)
{
    if (device->reset_waiter) {
        virtio_warn_driver(device, "status written from another CPU during a reset");
        bus_done(waiter);
        return;
    }
    if (value != 0) {
        advance_status(device, value);
        bus_done(waiter);
        return;
    }
    device->reset_waiter = waiter;
    if (device->state == VIRTIO_IDLE)
        finish_reset(device);
    else
        forget_queues(device);
}

/* --- quiet --- */

/* Nothing is in flight: what was waiting for that. */
static void settle(struct virtio_device *device)
{
    if (device->forget) {
        end_queues(device);
        device->state = VIRTIO_IDLE;
    }
    if (device->reset_waiter)
        finish_reset(device);
    if (device->quiet_done) {
        virtio_done *done = ptr_steal(&device->quiet_done);
        done(device->quiet_context);
    }
}

void virtio_quiesced(struct virtio_device *device)
{
    CHECK(device->state == VIRTIO_QUIESCING);
    device->state = VIRTIO_QUIET;
    interrupt_for_pushed(&device->prepare);
    if (device->closing)
        end_device(device);
    settle(device);
}

int virtio_quiesce(struct virtio_device *device, virtio_done *done, void *context)
{
    if (device->held || device->closing)
        return fail(-EBUSY, "%s: held for something else already", device->label);
    device->held = true;
    device->quiet_done = done;
    device->quiet_context = context;
    if (device->state == VIRTIO_RUNNING)
        quiesce_device(device);
    else if (device->state == VIRTIO_IDLE)
        settle(device);
    return 0;
}

void virtio_forget(struct virtio_device *device)
{
    CHECK(device->held && !device->quiet_done && !device->reset_waiter);
    bus_drain_coalesced(device->bus);
    if (device->state == VIRTIO_QUIET)
        end_queues(device);
    device->state = VIRTIO_IDLE;
    clear_registers(device);
}

void virtio_resume(struct virtio_device *device)
{
    CHECK(device->held && !device->quiet_done);
    device->held = false;
    if (device->state != VIRTIO_QUIET)
        return;
    run_device(device);
    for (unsigned q = 0; q < device->queue_count; q++)
        if (device->queues[q].vq.ready)
            virtio_kick_again(device, q);
}

/* --- notifications --- */

void virtio_take_chains(struct virtio_device *device, unsigned q)
{
    const struct virtio_ops *ops = device->ops;
    struct virtqueue *vq = &device->queues[q].vq;
    struct iovec iov[VIRTIO_IOV_MAX];
    struct virtq_chain chain;
    /* A driver on another CPU may add chains as fast as they are taken; others of the loop get their turn. */
    unsigned budget = ops->batch ? ops->batch : 2 * VIRTQUEUE_SIZE_MAX;
    do {
        virtqueue_disable_kicks(vq);
        int r = 1;
        while (r == 1) {
            if (budget-- == 0) {
                virtio_kick_again(device, q);
                return;
            }
            r = virtqueue_pop(vq, iov, ops->iov_max, &chain);
            if (r != 1)
                break;
            int taken = ops->take(device, q, &chain);
            if (device->state != VIRTIO_RUNNING)
                return; /* failed or closed by what it took */
            if (taken == -EAGAIN) {
                virtqueue_unpop(vq, 1);
                return; /* kicks stay off: the device asks for the next one */
            }
            if (taken < 0)
                r = taken;
        }
        if (r < 0) {
            virtio_fail_device(device);
            return;
        }
    } while (virtqueue_enable_kicks(vq));
}

void virtio_kicked(struct virtio_device *device, unsigned q)
{
    if (device->state == VIRTIO_RUNNING && device->queues[q].vq.ready) {
        if (device->ops->kicked)
            device->ops->kicked(device, q);
        else
            virtio_take_chains(device, q);
        return;
    }
    /* A resume kicks all queues; and what a driver in need of a reset asks for is not logged once more. */
    bool expected = device->state == VIRTIO_QUIESCING || device->state == VIRTIO_QUIET ||
                    (atomic_load(&device->reg_page->status) & VIRTIO_CONFIG_S_NEEDS_RESET);
    if (!expected)
        virtio_warn_driver(device, "queue %u notified before it was set up", q);
}

static void watch_kick(struct virtio_queue *queue)
{
    loop_watch(queue->device->loop, &queue->kick_op, queue->kick_fd, POLLIN);
}

/* What the driver has written to registers before needs no bus_drain(): it is in them, or was waited for
 * (Status). */
static void kick_seen(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_queue *queue = container_of(op, struct virtio_queue, kick_op);
    struct virtio_device *device = queue->device;
    if (device->closing) {
        destroy_if_ended(device);
        return;
    }
    CHECK(result >= 0);
    device->kicks++;
    /* The eventfd's count is never read while the watch stands: each signal wakes it all the same. A watch
     * that is started again would find the count and fire at once, so then it is read. */
    if (!(flags & LOOP_MORE)) {
        uint64_t count;
        (void)!read(queue->kick_fd, &count, sizeof(count));
        watch_kick(queue);
    }
    virtio_kicked(device, (unsigned)(queue - device->queues));
}

int virtio_watch_kicks(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->queue_count; q++) {
        struct virtio_queue *queue = &device->queues[q];
        queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (queue->kick_fd < 0)
            return fail_errno(-errno, "%s: eventfd", device->label);
        if (!device->ops->in_kernel)
            watch_kick(queue);
    }
    return 0;
}

int virtio_kick_fd(const struct virtio_device *device, unsigned q)
{
    return device->queues[q].kick_fd;
}

int virtio_call_fd(const struct virtio_device *device)
{
    return irq_event_fd(&device->irq);
}

void virtio_kick_again(struct virtio_device *device, unsigned q)
{
    static const uint64_t one = 1;
    CHECK(write(device->queues[q].kick_fd, &one, sizeof(one)) == sizeof(one));
}

/* False once the queues are to be forgotten or are: also for a handler that has just closed its device. */
static bool takes_results(const struct virtio_device *device, unsigned q)
{
    return !device->forget && device->queues[q].vq.ready;
}

void virtio_fill(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written)
{
    if (takes_results(device, q))
        virtqueue_fill(&device->queues[q].vq, head, written);
}

void virtio_publish(struct virtio_device *device, unsigned q)
{
    if (!takes_results(device, q))
        return;
    virtqueue_publish(&device->queues[q].vq);
    device->pushed |= 1u << q;
}

void virtio_push(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written)
{
    virtio_fill(device, q, head, written);
    virtio_publish(device, q);
}

/* Once per turn of the loop: one interrupt for all that the turn completed. */
static void interrupt_for_pushed(struct loop_prepare *prepare)
{
    struct virtio_device *device = container_of(prepare, struct virtio_device, prepare);
    uint32_t pushed = device->pushed;
    device->pushed = 0;
    for (unsigned q = 0; pushed; q++, pushed >>= 1)
        if ((pushed & 1) && virtqueue_wants_interrupt(&device->queues[q].vq))
            interrupt_driver(device, VIRTIO_MMIO_INT_VRING);
}

/* --- configuration space --- */

void virtio_set_config(struct virtio_device *device, const void *config, size_t size)
{
    uint32_t words[VIRTIO_CONFIG_MAX / 4] = {0};
    CHECK(size <= sizeof(words) && !device->mem);
    memcpy(words, config, size);
    device->config_size = (uint32_t)size;
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        atomic_store(&device->reg_page->config[i], words[i]);
}

void virtio_show_config_word(struct virtio_device *device, uint32_t offset, uint32_t value)
{
    CHECK(offset % 4 == 0 && offset < device->config_size);
    atomic_store(&device->reg_page->config[offset / 4], value);
}

void virtio_set_config_word(struct virtio_device *device, uint32_t offset, uint32_t value)
{
    struct virtio_reg_page *page = device->reg_page;
    atomic_fetch_add(&page->config_generation, 1);
    virtio_show_config_word(device, offset, value);
    atomic_fetch_add(&page->config_generation, 1);
    if (atomic_load(&page->status) & VIRTIO_CONFIG_S_DRIVER_OK)
        interrupt_driver(device, VIRTIO_MMIO_INT_CONFIG);
}

/* --- life --- */

static void end_timer_due(struct loop_op *op, int result, unsigned flags);

int virtio_init(struct virtio_device *device, const struct virtio_ops *ops, struct loop *loop,
                const char *label, uint64_t features)
{
    CHECK(ops->queue_count <= VIRTIO_QUEUES_MAX && ops->iov_max <= VIRTIO_IOV_MAX);
    struct virtio_queue *queues = calloc(ops->queue_count, sizeof(*queues));
    if (!queues)
        return fail(-ENOMEM, "%s: no memory for its queues", label);
    *device = (struct virtio_device){
        .ops = ops,
        .loop = loop,
        .offered = features | FEATURES_OF_ALL,
        .queue_count = ops->queue_count,
        .queues = queues,
        .prepare.run = interrupt_for_pushed,
        .end.op.done = end_timer_due,
    };
    device->reg_page = &device->reg_shadow;
    device->irq.pending = &device->reg_page->interrupt_status;
    /* No shared memory region has any id: all of them are of length -1 (4.2.2.1). */
    for (unsigned i = 0; i < ARRAY_SIZE(device->reg_page->shm); i++)
        atomic_store(&device->reg_page->shm[i], UINT32_MAX);
    snprintf(device->label, sizeof(device->label), "%s", label);
    for (unsigned q = 0; q < ops->queue_count; q++)
        queues[q] = (struct virtio_queue){.device = device, .kick_fd = -1, .kick_op.done = kick_seen};
    loop_prepare_add(loop, &device->prepare);
    return 0;
}

void virtio_write_back(struct virtio_device *device)
{
    if (device->ops->write_back)
        device->ops->write_back(device);
}

/* The second half of a close, when the device is quiet. The timer's completion comes in a later turn, so that
 * no handler of the device finds it gone when it returns. */
static void end_device(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->queue_count; q++)
        loop_cancel(device->loop, &device->queues[q].kick_op);
    loop_timer_start(device->loop, &device->end, 0);
}

/* Called by each completion of a closing device. */
static void destroy_if_ended(struct virtio_device *device)
{
    if (device->state != VIRTIO_IDLE || device->end.op.in_flight)
        return;
    for (unsigned q = 0; q < device->queue_count; q++)
        if (device->queues[q].kick_op.in_flight)
            return;
    for (unsigned q = 0; q < device->queue_count; q++)
        cleanup_fd(&device->queues[q].kick_fd);
    loop_prepare_remove(device->loop, &device->prepare);
    free(device->queues);
    virtio_done *done = device->close_done;
    void *context = device->close_context;
    device->ops->destroy(device);
    if (done)
        done(context);
}

static void end_timer_due(struct loop_op *op, int result, unsigned flags)
{
    (void)result, (void)flags;
    destroy_if_ended(container_of(op, struct virtio_device, end.op));
}

void virtio_close(struct virtio_device *device, virtio_done *done, void *context)
{
    if (!device) {
        if (done)
            done(context);
        return;
    }
    CHECK(!device->closing);
    device->closing = true;
    device->close_done = done;
    device->close_context = context;
    device->forget = device->state != VIRTIO_IDLE;
    if (device->state == VIRTIO_RUNNING) {
        quiesce_device(device);
    } else if (device->state != VIRTIO_QUIESCING) {
        end_device(device);
        settle(device);
    }
}
