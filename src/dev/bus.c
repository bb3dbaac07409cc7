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
    struct vm *vm;              /* who keeps coalesced writes; NULL if there are none */
    struct bus_space spaces[2]; /* by enum vcpu_space */
};

/* What a message means; its sender is the waiting access for the last two. */
enum bus_message { BUS_WRITE, BUS_READ, BUS_WRITE_WAITED };

static inline uint32_t message_kind(enum bus_message what, enum vcpu_space space)
{
    return (uint32_t)what << 1 | (uint32_t)space;
}

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

/* Lets the vCPU that sleeps in wait_for_answer() go on. */
static void answer(struct vcpu_access *access)
{
    atomic_store_explicit(&access->answered, 1, memory_order_release);
    syscall(SYS_futex, &access->answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void wait_for_answer(struct vcpu_access *access)
{
    while (!atomic_load_explicit(&access->answered, memory_order_acquire))
        syscall(SYS_futex, &access->answered, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

/* The mailbox's deliver function: the loop's side of an access. */
static void bus_deliver(void *owner, const struct message *message)
{
    struct bus *bus = owner;
    enum vcpu_space space = (enum vcpu_space)(message->kind & 1);
    struct vcpu_access *access = message->payload;
    const struct bus_range *range = bus_find(bus, space, message->address, message->length);
    CHECK(range != NULL); /* the sender found it */
    uint64_t offset = message->address - range->base;

    switch ((enum bus_message)(message->kind >> 1)) {
    case BUS_WRITE: range->ops->write(range->device, offset, message->length, message->value); break;
    case BUS_READ:
        access->value = range->ops->read(range->device, offset, message->length);
        answer(access);
        break;
    case BUS_WRITE_WAITED:
        range->ops->write_waited(range->device, offset, message->length, message->value,
                                 (struct bus_waiter *)access);
        break;
    }
}

void bus_done(struct bus_waiter *waiter)
{
    answer((struct vcpu_access *)waiter);
}

static void bus_post(struct bus *bus, struct vcpu_access *access, enum bus_message what)
{
    struct message message = {
        .address = access->address,
        .value = access->value,
        .length = access->length,
        .kind = message_kind(what, access->space),
        .payload = access,
    };
    mailbox_post(bus->mailbox, &message);
}

void bus_access(void *context, struct vcpu_access *access)
{
    struct bus *bus = context;
    const struct bus_range *range = bus_find(bus, access->space, access->address, access->length);
    if (!range) {
        access->value = UINT64_MAX; /* an open bus */
        return;
    }
    const struct bus_ops *ops = range->ops;
    uint64_t offset = access->address - range->base;
    atomic_store_explicit(&access->answered, 0, memory_order_relaxed);

    if (access->is_write) {
        if (ops->fast_write && ops->fast_write(range->device, offset, access->length, access->value))
            return;
        bool waits =
            ops->write_waits && ops->write_waits(range->device, offset, access->length, access->value);
        bus_post(bus, access, waits ? BUS_WRITE_WAITED : BUS_WRITE);
        if (!waits)
            return;
    } else {
        if (ops->fast_read && ops->fast_read(range->device, offset, access->length, &access->value))
            return;
        bus_post(bus, access, BUS_READ);
    }
    wait_for_answer(access);
}

int bus_coalesce_mmio(struct bus *bus, struct vm *vm, gpa_t address)
{
    bus->vm = vm;
    return vm_coalesce_mmio(vm, address, sizeof(uint32_t));
}

void bus_drain_coalesced(struct bus *bus)
{
    struct vcpu_access access;
    /* As many as KVM keeps, and more: a guest that goes on writing is heard the next time. */
    unsigned budget = 256;
    while (bus->vm && budget-- > 0 && vm_pop_coalesced(bus->vm, &access)) {
        const struct bus_range *range = bus_find(bus, access.space, access.address, access.length);
        if (range)
            (void)range->ops->fast_write(range->device, access.address - range->base, access.length,
                                         access.value);
    }
}

void bus_drain(struct bus *bus)
{
    mailbox_drain(bus->mailbox);
}

int bus_new(struct loop *loop, struct bus **ret_bus)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    if (!bus)
        return fail(-ENOMEM, "no memory for the bus");
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
