/*
 * The bus: which device answers at which address, on which thread.
 *
 *   vcpu thread: KVM_RUN exits with an access ──► bus_access()
 *        │ the device can answer from atomics (fast_read, fast_write): done, the loop is not disturbed
 *        │ a write: posted to the mailbox, the vCPU goes on at once (order is kept)
 *        │ a read, or a write that the device marks as waited for: posted, the vCPU sleeps until the loop
 * answers ▼ loop thread: device->read / device->write, one after the other: no device needs a lock
 *
 * And some writes stay in KVM until the loop asks for them (bus_coalesce_mmio), in order among themselves
 * alone.
 *
 * Accesses that no device claims read as all ones and write into nothing, as on a PC.
 */
#pragma once

#include "loop/loop.h"
#include "loop/mailbox.h"
#include "vcpu/vcpu.h"

struct bus;

/* Tells a vCPU that waits for a write (write_waits) that it may go on. Kept by the device until then. */
struct bus_waiter;

struct bus_ops {
    /* Loop thread. Value of `length` (1, 2, 4, 8) bytes at `offset` in the range. Required. */
    uint64_t (*read)(void *device, uint64_t offset, unsigned length);
    /* Loop thread. Required. */
    void (*write)(void *device, uint64_t offset, unsigned length, uint64_t value);
    /* vCPU threads, several at once: answer from atomics alone and return true, or return false and the
     * access goes to the loop. Optional. */
    bool (*fast_read)(void *device, uint64_t offset, unsigned length, uint64_t *ret_value);
    bool (*fast_write)(void *device, uint64_t offset, unsigned length, uint64_t value);
    /* vCPU threads: true if the guest must not go on before the device has finished with this write (a reset:
     * the guest may reuse the memory of requests right after it). Such a write ends with write_waited(), not
     * write(), on the loop thread, and the device calls bus_done(waiter) at once or later. Both optional, but
     * together. */
    bool (*write_waits)(void *device, uint64_t offset, unsigned length, uint64_t value);
    void (*write_waited)(void *device, uint64_t offset, unsigned length, uint64_t value,
                         struct bus_waiter *waiter);
};

int bus_new(struct loop *loop, struct bus **ret_bus);
void bus_free(struct bus *bus);

/* Before the vCPUs run. -EEXIST if the range overlaps another, -ENOSPC when the bus's table is full. */
int bus_add(struct bus *bus, enum vcpu_space space, uint64_t base, uint64_t size, const struct bus_ops *ops,
            void *device);

/*
 * Before the vCPUs run: what the guest writes to the four bytes at `address` need not exit; it reaches the
 * device's fast_write at the loop's next bus_drain_coalesced(), or, where KVM has no room or no such thing, at
 * once on the vCPU's thread. For a register whose effect nobody looks for before that. Negative errno with
 * message from KVM.
 */
int bus_coalesce_mmio(struct bus *bus, struct vm *vm, gpa_t address);

/* Loop thread: the coalesced writes so far take effect. */
void bus_drain_coalesced(struct bus *bus);

/* The vCPU side, as a vcpu_access function; `bus` is the context. */
void bus_access(void *bus, struct vcpu_access *access);

/* Loop thread: the posted writes so far take effect. Devices call it before acting on a kick. */
void bus_drain(struct bus *bus);

/* Loop thread: the write that `waiter` waits for is done. Once per write_waited(). */
void bus_done(struct bus_waiter *waiter);
