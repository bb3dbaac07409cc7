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

#define FEATURE(bit) (UINT64_C(1) << (bit))

#define FEATURES_OF_ALL                                                                                      \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_EVENT_IDX) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC))

#define STATUS_OF_DRIVER                                                                                     \
    ((uint32_t)(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |         \
                VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED))

/* --- what the driver does wrong --- */

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

/* The acknowledgements that KVM keeps come first: what the guest has taken is not pending any more. One that
 * comes after this look is harmless: the guest sends it before it looks at what the interrupt is for, and
 * that is in place by now. */
static void interrupt_driver(struct virtio_device *device, uint32_t bits)
{
    bus_drain_coalesced(device->bus);
    irq_raise(&device->irq, bits);
}

static void stop_device(struct virtio_device *device)
{
    device->state = VIRTIO_STOPPING;
    device->ops->stop(device);
}

void virtio_fail_device(struct virtio_device *device)
{
    count_fault(device, fail_text());
    atomic_fetch_or(&device->reg_page->status, VIRTIO_CONFIG_S_NEEDS_RESET);
    interrupt_driver(device, VIRTIO_MMIO_INT_CONFIG); /* virtio 1.2, 2.1.2 */
    if (device->state == VIRTIO_RUNNING)
        stop_device(device);
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
    for (unsigned q = 0; q < device->ops->queue_count; q++)
        virtqueue_end(&device->queues[q]);
    device->pushed = 0;
}

static void start_device(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->ops->queue_count; q++) {
        struct virtio_queue_registers *regs = &device->regs.queues[q];
        if (!atomic_load(&regs->ready))
            continue;
        uint32_t size = atomic_load(&regs->size);
        int r =
            virtqueue_start(&device->queues[q], device->mem, (uint16_t)MIN(size, UINT16_MAX),
                            registers_gpa(regs->desc), registers_gpa(regs->avail), registers_gpa(regs->used),
                            device->features & FEATURE(VIRTIO_RING_F_EVENT_IDX),
                            device->features & FEATURE(VIRTIO_RING_F_INDIRECT_DESC));
        if (r < 0) {
            end_queues(device);
            virtio_fail_device(device);
            return;
        }
    }
    device->state = VIRTIO_RUNNING;
    if (device->ops->start)
        device->ops->start(device);
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

static void finish_reset(struct virtio_device *device)
{
    for (size_t i = 0; i < sizeof(device->regs) / sizeof(uint32_t); i++)
        atomic_store((_Atomic uint32_t *)&device->regs + i, 0);
    device->features = 0;
    irq_ack(&device->irq, UINT32_MAX);
    atomic_store(&device->reg_page->status, 0);
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
    if (device->state == VIRTIO_RUNNING)
        stop_device(device);
    else if (device->state == VIRTIO_IDLE)
        finish_reset(device);
}

void virtio_stopped(struct virtio_device *device)
{
    CHECK(device->state == VIRTIO_STOPPING);
    device->state = VIRTIO_IDLE;
    end_queues(device);
    if (device->reset_waiter)
        finish_reset(device);
    if (device->closing)
        loop_stop(device->loop, 0);
}

/* --- notifications --- */

void virtio_kicked(struct virtio_device *device, unsigned queue)
{
    if (device->state == VIRTIO_RUNNING && device->queues[queue].ready)
        device->ops->kicked(device, queue);
    else if (!(atomic_load(&device->reg_page->status) & VIRTIO_CONFIG_S_NEEDS_RESET))
        virtio_warn_driver(device, "queue %u notified before it was set up", queue);
}

static void watch_kick(struct virtio_kick *kick)
{
    loop_watch(kick->device->loop, &kick->op, kick->fd, POLLIN);
}

/* What the driver has written to registers before needs no bus_drain(): it is in them, or was waited for
 * (Status). */
static void kick_seen(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_kick *kick = container_of(op, struct virtio_kick, op);
    struct virtio_device *device = kick->device;
    if (device->closing) {
        loop_stop(device->loop, 0);
        return;
    }
    CHECK(result >= 0);
    /* The eventfd's count is never read while the watch stands: each signal wakes it all the same. A watch
     * that is started again would find the count and fire at once, so then it is read. */
    if (!(flags & LOOP_MORE)) {
        uint64_t count;
        (void)!read(kick->fd, &count, sizeof(count));
        watch_kick(kick);
    }
    virtio_kicked(device, (unsigned)(kick - device->kicks));
}

int virtio_watch_kicks(struct virtio_device *device)
{
    for (unsigned q = 0; q < device->ops->queue_count; q++) {
        struct virtio_kick *kick = &device->kicks[q];
        kick->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (kick->fd < 0)
            return fail_errno(-errno, "%s: eventfd", device->label);
        watch_kick(kick);
    }
    return 0;
}

void virtio_kick_again(struct virtio_device *device, unsigned q)
{
    static const uint64_t one = 1;
    CHECK(write(device->kicks[q].fd, &one, sizeof(one)) == sizeof(one));
}

void virtio_push(struct virtio_device *device, unsigned q, uint16_t head, uint32_t written)
{
    virtqueue_push(&device->queues[q], head, written);
    device->pushed |= 1u << q;
}

/* Once per turn of the loop: one interrupt for all that the turn completed. */
static void interrupt_for_pushed(struct loop_prepare *prepare)
{
    struct virtio_device *device = container_of(prepare, struct virtio_device, prepare);
    uint32_t pushed = device->pushed;
    device->pushed = 0;
    for (unsigned q = 0; pushed; q++, pushed >>= 1)
        if ((pushed & 1) && virtqueue_wants_interrupt(&device->queues[q]))
            interrupt_driver(device, VIRTIO_MMIO_INT_VRING);
}

/* --- life --- */

void virtio_init(struct virtio_device *device, const struct virtio_ops *ops, struct loop *loop,
                 const char *label, uint64_t features)
{
    CHECK(ops->queue_count <= VIRTIO_QUEUES_MAX);
    *device = (struct virtio_device){.ops = ops, .loop = loop, .offered = features | FEATURES_OF_ALL};
    device->reg_page = &device->reg_shadow;
    device->irq.pending = &device->reg_page->interrupt_status;
    /* No shared memory region has any id: all of them are of length -1 (4.2.2.1). */
    for (unsigned i = 0; i < ARRAY_SIZE(device->reg_page->shm); i++)
        atomic_store(&device->reg_page->shm[i], UINT32_MAX);
    snprintf(device->label, sizeof(device->label), "%s", label);
    device->prepare.run = interrupt_for_pushed;
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
        device->kicks[q] = (struct virtio_kick){.device = device, .fd = -1, .op.done = kick_seen};
    loop_prepare_add(loop, &device->prepare);
}

void virtio_set_config(struct virtio_device *device, const void *config, size_t size)
{
    uint32_t words[VIRTIO_CONFIG_MAX / 4] = {0};
    struct virtio_reg_page *reg_page = device->reg_page;
    CHECK(size <= sizeof(words));
    CHECK(reg_page == &device->reg_shadow || device->state != VIRTIO_RUNNING);
    memcpy(words, config, size);
    device->config_size = (uint32_t)size;
    atomic_fetch_add(&reg_page->config_generation, 1);
    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        atomic_store(&reg_page->config[i], words[i]);
    atomic_fetch_add(&reg_page->config_generation, 1);
    if (device->state == VIRTIO_RUNNING)
        interrupt_driver(device, VIRTIO_MMIO_INT_CONFIG);
}

static bool kicks_in_flight(const struct virtio_device *device)
{
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
        if (device->kicks[q].op.in_flight)
            return true;
    return false;
}

void virtio_finish(struct virtio_device *device)
{
    device->closing = true;
    if (device->state == VIRTIO_RUNNING)
        stop_device(device);
    /* With a broken ring, what ended before is kept all the same. */
    while (device->state == VIRTIO_STOPPING && loop_run(device->loop) >= 0)
        ;
    if (device->ops->write_back)
        device->ops->write_back(device);
}

void virtio_close(struct virtio_device *device)
{
    if (!device)
        return;
    device->closing = true;
    if (device->state == VIRTIO_RUNNING)
        stop_device(device);
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
        loop_cancel(device->loop, &device->kicks[q].op);
    while (device->state == VIRTIO_STOPPING || kicks_in_flight(device))
        if (loop_run(device->loop) < 0)
            return; /* the ring is broken, and the kernel may still write into what would be freed */
    for (unsigned q = 0; q < VIRTIO_QUEUES_MAX; q++)
        cleanup_fd(&device->kicks[q].fd);
    loop_prepare_remove(device->loop, &device->prepare);
    device->ops->destroy(device);
}
