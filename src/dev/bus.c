#include "dev/bus.h"
#include "vcpu/layout.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define BUS_RANGES_MAX (LAYOUT_VIRTIO_MAX + 8u)

struct bus_range {
    uint64_t base, size;
    const struct bus_ops *ops;
    void *device;
};

struct bus_space {
    struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by base; fixed once the vCPUs run */
    unsigned count;
};

struct bus {
    struct mailbox *mailbox;
    struct vm *vm;              /* NULL: no coalesced writes */
    struct bus_space spaces[2]; /* by enum vcpu_space */
};

struct bus_waiter {
    struct bus_call *call;
    _Atomic uint32_t answered; /* a futex word */
};

/* What the payload of a message is: a struct bus_call, or the struct bus_waiter of one that is waited for. */
enum bus_message { BUS_POST, BUS_CALL };

/* The range that holds the whole access, or NULL. */
static const struct bus_range *bus_find(const struct bus *bus, enum vcpu_space space, uint64_t address,
                                        unsigned length)
{
    const struct bus_space *table = &bus->spaces[space];
    unsigned low = 0, high = table->count;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        const struct bus_range *range = &table->ranges[middle];
        if (address < range->base)
            high = middle;
        else if (address - range->base >= range->size)
            low = middle + 1;
        else
            return length <= range->size - (address - range->base) ? range : NULL;
    }
    return NULL;
}

int bus_add(struct bus *bus, enum vcpu_space space, uint64_t base, uint64_t size, const struct bus_ops *ops,
            void *device)
{
    struct bus_space *table = &bus->spaces[space];
    if (table->count == BUS_RANGES_MAX)
        return fail(-ENOSPC, "too many devices: the bus has room for %u", BUS_RANGES_MAX);
    unsigned at = table->count;
    while (at > 0 && table->ranges[at - 1].base > base)
        at--;
    if ((at > 0 && base - table->ranges[at - 1].base < table->ranges[at - 1].size) ||
        (at < table->count && table->ranges[at].base - base < size))
        return fail(-EEXIST, "two devices at address 0x%llx", (unsigned long long)base);
    for (unsigned i = table->count; i > at; i--)
        table->ranges[i] = table->ranges[i - 1];
    table->ranges[at] = (struct bus_range){.base = base, .size = size, .ops = ops, .device = device};
    table->count++;
    return 0;
}

/* The mailbox's deliver function. */
static void bus_deliver(void *owner, const struct message *message)
{
    (void)owner;
    struct bus_waiter *waiter = NULL;
    struct bus_call *call = message->payload;
    if (message->kind == BUS_CALL) {
        waiter = message->payload;
        call = waiter->call;
    }
    call->run(call->device, message->address, message->length, message->value, waiter);
}

void bus_post(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value)
{
    const struct message message = {
        .address = offset, .value = value, .length = length, .kind = BUS_POST, .payload = call};
    mailbox_post(bus->mailbox, &message);
}

void bus_call(struct bus *bus, struct bus_call *call, uint64_t offset, unsigned length, uint64_t value)
{
    struct bus_waiter waiter = {.call = call};
    const struct message message = {
        .address = offset, .value = value, .length = length, .kind = BUS_CALL, .payload = &waiter};
    mailbox_post(bus->mailbox, &message);
    while (!atomic_load_explicit(&waiter.answered, memory_order_acquire))
        syscall(SYS_futex, &waiter.answered, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

void bus_done(struct bus_waiter *waiter)
{
    /* After the store the waiter may be gone. Waking an address that is nobody's any more is harmless. */
    _Atomic uint32_t *answered = &waiter->answered;
    atomic_store_explicit(answered, 1, memory_order_release);
    syscall(SYS_futex, answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void bus_access(void *context, struct vcpu_access *access)
{
    struct bus *bus = context;
    const struct bus_range *range = bus_find(bus, access->space, access->address, access->length);
    if (!range) {
        access->value = UINT64_MAX; /* an open bus */
        return;
    }
    uint64_t offset = access->address - range->base;
    if (access->is_write)
        range->ops->write(range->device, offset, access->length, access->value);
    else
        access->value = range->ops->read(range->device, offset, access->length);
}

int bus_coalesce_mmio(struct bus *bus, gpa_t address)
{
    return bus->vm ? vm_coalesce_mmio(bus->vm, address, sizeof(uint32_t)) : 0;
}

void bus_drain_coalesced(struct bus *bus)
{
    struct vcpu_access access;
    /* As many as KVM keeps, and more: a guest that goes on writing is heard the next time. */
    unsigned budget = 256;
    while (bus->vm && budget-- > 0 && vm_pop_coalesced(bus->vm, &access))
        bus_access(bus, &access);
}

void bus_drain(struct bus *bus)
{
    mailbox_drain(bus->mailbox);
}

int bus_new(struct loop *loop, struct vm *vm, struct bus **ret_bus)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return fail(-ENOMEM, "no memory for the bus");
    bus->vm = vm;
    int r = mailbox_new(loop, bus_deliver, bus, &bus->mailbox);
    if (r < 0) {
        free(bus);
        return r;
    }
    *ret_bus = bus;
    return 0;
}

void bus_free(struct bus *bus)
{
    if (!bus)
        return;
    mailbox_free(bus->mailbox);
    free(bus);
}
