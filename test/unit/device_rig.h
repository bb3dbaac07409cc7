/*
 * A machine of one virtio device without KVM, for tests and fuzzers: the test plays the vCPU (rig_read,
 * rig_write), KVM (rig_kick) and the loop (rig_run). The bus, the interrupt lines and the ioeventfds are
 * stood in for here; so this header is for one source file of a program.
 */
#pragma once

#include "dev/virtio.h"
#include "driver_rings.h"
#include "vcpu/layout.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <time.h>

#define RIG_RINGS_AT 0x10000u
#define RIG_DATA_AT  0x100000u

struct rig {
    struct loop *loop;
    struct guest_mem mem;
    struct vm vm;
    struct virtio_device *device;
    struct rings rings;
    const struct bus_ops *ops;
    void *opaque;
    unsigned interrupts; /* times that the line went up */
    bool exclusive;      /* the line is the device's alone */
    bool *answered;      /* a flag of the test's, which waits for a Status write itself */
    struct loop_timer timer;
};

static struct rig rig;

/* --- stand-ins --- */

int bus_add(struct bus *bus, enum vcpu_space space, uint64_t base, uint64_t size, const struct bus_ops *ops,
            void *device)
{
    (void)bus, (void)space, (void)base, (void)size;
    rig.ops = ops;
    rig.opaque = device;
    return 0;
}

/* The test is the vCPU and the loop, so a posted write takes effect at once. A waiter is a flag: the test
 * runs the loop until it is set, unless it said that it waits itself (rig_write_status_later). */
void bus_post(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value)
{
    (void)bus;
    call->run(call->device, offset, length, value, NULL);
}

static inline void rig_run(unsigned microseconds);

void bus_call(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value)
{
    bool answered = false, *flag = rig.answered ? rig.answered : &answered;
    (void)bus;
    call->run(call->device, offset, length, value, (struct bus_waiter *)flag);
    if (rig.answered)
        return;
    while (!answered)
        rig_run(200);
    rig_run(1); /* takes the stop of an answer at once back */
}

void bus_done(struct bus_waiter *waiter)
{
    *(bool *)waiter = true;
    loop_stop(rig.loop, 0);
}

int irq_connect(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    (void)lines, (void)gsi, (void)source;
    return 0;
}

int irq_connect_exclusive(struct irq_lines *lines, unsigned gsi, struct irq_source *source)
{
    (void)lines, (void)gsi;
    atomic_fetch_or(source->pending, source->always);
    rig.exclusive = true;
    return 0;
}

int irq_event_fd(const struct irq_source *source)
{
    (void)source;
    return -1;
}

void irq_raise(struct irq_source *source, uint32_t bits)
{
    if (bits & ~atomic_fetch_or(source->pending, bits))
        rig.interrupts++;
}

void irq_ack(struct irq_source *source, uint32_t bits)
{
    atomic_fetch_and(source->pending, ~(bits & ~source->always));
}

int bus_coalesce_mmio(struct bus *bus, gpa_t address)
{
    (void)bus, (void)address;
    return 0;
}

void bus_drain_coalesced(struct bus *bus)
{
    (void)bus;
}

void *vm_reg_page(const struct vm *vm, gpa_t at)
{
    (void)vm, (void)at;
    return NULL;
}

int vm_add_ioeventfd(struct vm *vm, gpa_t at, uint32_t datamatch, int event_fd)
{
    (void)vm, (void)at, (void)datamatch, (void)event_fd;
    return 0;
}

/* --- the loop --- */

static void rig_timer_done(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    loop_stop(rig.loop, 0);
}

/* Lets the loop run for `microseconds`. */
static inline void rig_run(unsigned microseconds)
{
    rig.timer.op.done = rig_timer_done;
    loop_timer_start(rig.loop, &rig.timer, microseconds * UINT64_C(1000));
    while (rig.timer.op.in_flight)
        CHECK(loop_run(rig.loop) == 0);
}

/* Lets the loop run until the device has given `count` chains back in all, or for five seconds. */
static inline bool rig_await_used(uint16_t count)
{
    for (unsigned i = 0; i < 25000; i++) {
        if (rings_used_idx(&rig.rings) == count)
            return true;
        rig_run(200);
    }
    return false;
}

/* --- registers --- */

static inline uint64_t rig_read_bytes(uint64_t offset, unsigned length)
{
    return rig.ops->read(rig.opaque, offset, length);
}

static inline void rig_write_bytes(uint64_t offset, unsigned length, uint64_t value)
{
    rig.ops->write(rig.opaque, offset, length, value);
}

/* Writes Status and does not wait: `*answered` tells when it has had its effect. */
static inline void rig_write_status_later(uint32_t value, bool *answered)
{
    rig.answered = answered;
    rig_write_bytes(VIRTIO_MMIO_STATUS, 4, value);
    rig.answered = NULL;
}

static inline uint32_t rig_read(uint64_t offset)
{
    return (uint32_t)rig_read_bytes(offset, 4);
}
static inline void rig_write(uint64_t offset, uint32_t value)
{
    rig_write_bytes(offset, 4, value);
}
static inline uint32_t rig_status(void)
{
    return rig_read(VIRTIO_MMIO_STATUS);
}

/* --- the driver's set-up (virtio 1.2, 3.1.1) --- */

static inline void rig_add_status(uint32_t bit)
{
    rig_write(VIRTIO_MMIO_STATUS, rig_status() | bit);
}

static inline uint64_t rig_offered(void)
{
    rig_write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    uint64_t high = rig_read(VIRTIO_MMIO_DEVICE_FEATURES);
    rig_write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    return high << 32 | rig_read(VIRTIO_MMIO_DEVICE_FEATURES);
}

static inline void rig_accept(uint64_t features)
{
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    rig_write(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

/* Up to FEATURES_OK, which is there if the device accepts. */
static inline void rig_negotiate(uint64_t features)
{
    rig_write(VIRTIO_MMIO_STATUS, 0);
    rig_add_status(VIRTIO_CONFIG_S_ACKNOWLEDGE);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER);
    rig_accept(features);
    rig_add_status(VIRTIO_CONFIG_S_FEATURES_OK);
}

static inline void rig_write_gpa(uint64_t low, gpa_t at)
{
    rig_write(low, (uint32_t)at.value);
    rig_write(low + 4, (uint32_t)(at.value >> 32));
}

static inline void rig_set_queue(unsigned queue, uint16_t size)
{
    rings_init(&rig.rings, &rig.mem, RIG_RINGS_AT, size);
    rig_write(VIRTIO_MMIO_QUEUE_SEL, queue);
    rig_write(VIRTIO_MMIO_QUEUE_NUM, size);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_DESC_LOW, rig.rings.desc);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_AVAIL_LOW, rig.rings.avail);
    rig_write_gpa(VIRTIO_MMIO_QUEUE_USED_LOW, rig.rings.used);
    rig_write(VIRTIO_MMIO_QUEUE_READY, 1);
}

/* All of it, with queue 0 of `size` entries. */
static inline void rig_start(uint64_t features, uint16_t size)
{
    rig_negotiate(features);
    rig_set_queue(0, size);
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
}

/* What KVM does when the driver writes QueueNotify. */
static inline void rig_kick(unsigned queue)
{
    static const uint64_t one = 1;
    CHECK(write(rig.device->queues[queue].kick_fd, &one, sizeof(one)) == sizeof(one));
}

/* --- life --- */

static inline void rig_new(uint64_t memory)
{
    rig = (struct rig){0};
    CHECK(guest_mem_new(memory, GUEST_PAGES_THP_OFF, &rig.mem) == 0);
    CHECK(loop_new(64, &rig.loop) == 0);
    rig.vm.mem = &rig.mem;
}

static inline void rig_attach(struct virtio_device *device)
{
    rig.device = device;
    CHECK(virtio_attach(device, 0, NULL, &rig.vm, NULL) == 0);
}

static inline void rig_closed(void *context)
{
    *(bool *)context = true;
}

static inline void rig_free(void)
{
    bool closed = false;
    virtio_close(rig.device, rig_closed, &closed);
    CHECK(!closed || !rig.device); /* not before it has returned, whatever the device's state */
    while (!closed)
        rig_run(100);
    loop_free(rig.loop);
    guest_mem_free(&rig.mem);
}
