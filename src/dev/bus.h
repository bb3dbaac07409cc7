/*
 * The bus: which device answers at which address.
 *
 *   vCPU thread: KVM_RUN exits with an access ──► bus_access() ──► device->read / device->write
 *        │ most registers are atomics or lie under the device's own lock: done, the loop is not disturbed
 *        │ bus_post(): the device has the loop do something; the vCPU goes on at once (order is kept)
 *        │ bus_call(): the same, and the vCPU sleeps until the device says bus_done()
 *        ▼
 *   loop thread: call->run, one after the other, in the order in which they were posted
 *
 * Coalesced writes stay in KVM until the loop drains them (bus_coalesce_mmio). They are ordered only among
 * themselves.
 *
 * Accesses that no device claims read as all ones, and writes to them have no effect, as on a PC.
 */
#pragma once

#include "loop/loop.h"
#include "loop/mailbox.h"
#include "vcpu/vcpu.h"

struct bus;

/* On vCPU threads, several at once: so a device answers from atomics, or under a lock of its own that it
 * holds over no wait and no callback. `length` is 1, 2, 4 or 8 bytes, inside the range. Both required. */
struct bus_ops {
    uint64_t (*read)(void *device, uint64_t offset, unsigned length);
    void (*write)(void *device, uint64_t offset, unsigned length, uint64_t value);
};

/* A vCPU that sleeps in bus_call(). */
struct bus_waiter;

/* What a device has the loop do with an access. It lives in the device, filled in before the vCPUs run. */
struct bus_call {
    /* Loop thread. `waiter` is NULL for bus_post(). */
    void (*run)(void *device, uint64_t offset, unsigned length, uint64_t value, struct bus_waiter *waiter);
    void *device;
};

/* `vm`: who keeps coalesced writes; lent, or NULL if there are none. */
int bus_new(struct loop *loop, struct vm *vm, struct bus **ret_bus);
void bus_free(struct bus *bus);

/* Before the vCPUs run. -EEXIST if the range overlaps another, -ENOSPC when the bus's table is full. */
int bus_add(struct bus *bus, enum vcpu_space space, uint64_t base, uint64_t size, const struct bus_ops *ops,
            void *device);

/*
 * Before the vCPUs run: the guest's writes to the four bytes at `address` need not exit. They reach the
 * device's write(), on the loop thread, at the next bus_drain_coalesced(); or at once, on the vCPU's thread,
 * where KVM has no room or cannot coalesce. For a register whose effect matters only at that point. Negative
 * errno with message from KVM.
 */
int bus_coalesce_mmio(struct bus *bus, gpa_t address);

/* Loop thread: the coalesced writes so far take effect. */
void bus_drain_coalesced(struct bus *bus);

/* The vCPU side, as a vcpu_access function; `bus` is the context. */
void bus_access(void *bus, struct vcpu_access *access);

/* vCPU threads, from read() or write(). bus_call() returns when the device has called bus_done(). */
void bus_post(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value);
void bus_call(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value);

/* Loop thread: what was posted so far takes effect. */
void bus_drain(struct bus *bus);

/* Loop thread: the vCPU that waits may go on. Once per bus_call(), from its run() or later. */
void bus_done(struct bus_waiter *waiter);
