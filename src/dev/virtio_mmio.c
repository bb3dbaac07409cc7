/* The registers of virtio-mmio version 2 (virtio 1.2, 4.2.2), on vCPU threads. */
#include "dev/virtio_core.h"
#include "vcpu/layout.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stddef.h>
#include <string.h>

#define MMIO_MAGIC   0x74726976u /* "virt" */
#define MMIO_VERSION 2u
#define MMIO_VENDOR  0x746c6f56u /* "Volt": any value will do */

#define SHOWN_AT(member, offset)                                                                             \
    _Static_assert(LAYOUT_VIRTIO_SHOWN + offsetof(struct virtio_reg_page, member) == (offset), #member)
SHOWN_AT(interrupt_status, VIRTIO_MMIO_INTERRUPT_STATUS);
SHOWN_AT(status, VIRTIO_MMIO_STATUS);
SHOWN_AT(shm, VIRTIO_MMIO_SHM_LEN_LOW);
SHOWN_AT(config_generation, VIRTIO_MMIO_CONFIG_GENERATION);
SHOWN_AT(config, VIRTIO_MMIO_CONFIG);
_Static_assert(sizeof(struct virtio_reg_page) <= LAYOUT_VIRTIO_SIZE - LAYOUT_VIRTIO_SHOWN, "registers");

static struct virtio_queue_registers *selected_queue(struct virtio_device *device)
{
    uint32_t queue = atomic_load(&device->regs.queue_select);
    return queue < device->queue_count ? &device->queues[queue].regs : NULL;
}

/* --- reading --- */

static uint32_t read_offered(struct virtio_device *device)
{
    switch (atomic_load(&device->regs.device_features_select)) {
    case 0: return (uint32_t)device->offered;
    case 1: return (uint32_t)(device->offered >> 32);
    default: return 0;
    }
}

static uint32_t read_register(struct virtio_device *device, uint64_t offset)
{
    struct virtio_queue_registers *queue = selected_queue(device);
    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE: return MMIO_MAGIC;
    case VIRTIO_MMIO_VERSION: return MMIO_VERSION;
    case VIRTIO_MMIO_DEVICE_ID: return device->ops->device_id;
    case VIRTIO_MMIO_VENDOR_ID: return MMIO_VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES: return read_offered(device);
    case VIRTIO_MMIO_QUEUE_NUM_MAX: return queue ? VIRTQUEUE_SIZE_MAX : 0;
    case VIRTIO_MMIO_QUEUE_READY: return queue ? atomic_load(&queue->ready) : 0;
    default: return 0; /* write-only, and what is reserved */
    }
}

/* Registers that the guest reads as memory where KVM can do that. Each word is loaded once: a field of 32
 * bits is whole even while the loop changes it. */
static uint64_t read_shown(struct virtio_device *device, uint64_t offset, unsigned length)
{
    const uint64_t words = sizeof(*device->reg_page) / 4;
    _Atomic uint32_t *reg_page = (_Atomic uint32_t *)device->reg_page;
    uint64_t word = offset / 4, low = 0, high = 0;
    if (word < words)
        low = atomic_load(&reg_page[word]);
    if (word + 1 < words)
        high = atomic_load(&reg_page[word + 1]);
    uint64_t value = (high << 32 | low) >> (8 * (offset % 4));
    return length == 8 ? value : value & ((UINT64_C(1) << (8 * length)) - 1);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned length)
{
    struct virtio_device *device = opaque;
    if (offset >= LAYOUT_VIRTIO_SHOWN)
        return read_shown(device, offset - LAYOUT_VIRTIO_SHOWN, length);
    if (length != 4 || offset % 4) {
        virtio_warn_driver(device, "register 0x%llx read with %u bytes", (unsigned long long)offset, length);
        return 0;
    }
    return read_register(device, offset);
}

/* --- writing --- */

/* The states in which the driver may choose features, and set queues up: 3.1.1, steps 4 and 7. */
static bool may_choose_features(uint32_t status)
{
    return (status & VIRTIO_CONFIG_S_DRIVER) && !(status & VIRTIO_CONFIG_S_FEATURES_OK);
}
static bool may_set_queues_up(uint32_t status)
{
    return (status & VIRTIO_CONFIG_S_FEATURES_OK) && !(status & VIRTIO_CONFIG_S_DRIVER_OK);
}

static void write_driver_features(struct virtio_device *device, uint32_t value)
{
    struct virtio_registers *regs = &device->regs;
    uint32_t select = atomic_load(&regs->driver_features_select);
    if (select < 2)
        atomic_store(&regs->driver_features[select], value);
    else
        atomic_fetch_or(&regs->driver_features[2], value);
}

/* The word of a queue that `offset` is, or NULL. */
static _Atomic uint32_t *queue_register(struct virtio_queue_registers *queue, uint64_t offset)
{
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM: return &queue->size;
    case VIRTIO_MMIO_QUEUE_READY: return &queue->ready;
    case VIRTIO_MMIO_QUEUE_DESC_LOW: return &queue->desc[0];
    case VIRTIO_MMIO_QUEUE_DESC_HIGH: return &queue->desc[1];
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW: return &queue->avail[0];
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH: return &queue->avail[1];
    case VIRTIO_MMIO_QUEUE_USED_LOW: return &queue->used[0];
    case VIRTIO_MMIO_QUEUE_USED_HIGH: return &queue->used[1];
    default: return NULL;
    }
}

static void write_queue_register(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    struct virtio_queue_registers *queue = selected_queue(device);
    _Atomic uint32_t *reg = queue ? queue_register(queue, offset) : NULL;
    if (!reg || !may_set_queues_up(atomic_load(&device->reg_page->status)))
        virtio_warn_driver(device, "register 0x%llx of queue %u written in status 0x%x",
                           (unsigned long long)offset, atomic_load(&device->regs.queue_select),
                           atomic_load(&device->reg_page->status));
    else
        atomic_store(reg, offset == VIRTIO_MMIO_QUEUE_READY ? value & 1 : value);
}

static void write_register(struct virtio_device *device, uint64_t offset, uint32_t value)
{
    uint32_t status = atomic_load(&device->reg_page->status);
    switch (offset) {
    case VIRTIO_MMIO_STATUS:
        /* Waited for: what the write changes is read back, and a reset ends the use of the driver's
         * memory. */
        bus_call(device->bus, &device->status_call, offset, sizeof(value), value);
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        /* KVM turns those that fit into kicks; these are of the wrong width or value. */
        if (value < device->queue_count)
            bus_post(device->bus, &device->notify_call, offset, sizeof(value), value);
        else
            virtio_warn_driver(device, "queue %u notified, which there is not", value);
        break;
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL: atomic_store(&device->regs.device_features_select, value); break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL: atomic_store(&device->regs.driver_features_select, value); break;
    case VIRTIO_MMIO_QUEUE_SEL: atomic_store(&device->regs.queue_select, value); break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        irq_ack(&device->irq, value & (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG));
        break;
    case VIRTIO_MMIO_SHM_SEL: break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        if (may_choose_features(status))
            write_driver_features(device, value);
        else
            virtio_warn_driver(device, "features chosen in status 0x%x", status);
        break;
    default: write_queue_register(device, offset, value); break;
    }
}

static void mmio_write(void *opaque, uint64_t offset, unsigned length, uint64_t value)
{
    struct virtio_device *device = opaque;
    if (offset >= VIRTIO_MMIO_CONFIG) {
        uint64_t at = offset - VIRTIO_MMIO_CONFIG;
        if (device->ops->config_write && at < device->config_size && length <= device->config_size - at)
            bus_post(device->bus, &device->config_call, at, length, value);
    } else if (length != 4 || offset % 4) {
        virtio_warn_driver(device, "register 0x%llx written with %u bytes", (unsigned long long)offset,
                           length);
    } else {
        write_register(device, offset, (uint32_t)value);
    }
}

/* --- what the loop does with a write --- */

static void status_written(void *opaque, uint64_t offset, unsigned length, uint64_t value,
                           struct bus_waiter *waiter)
{
    (void)offset, (void)length;
    virtio_write_status(opaque, (uint32_t)value, waiter);
}

static void notified(void *opaque, uint64_t offset, unsigned length, uint64_t value,
                     struct bus_waiter *waiter)
{
    (void)offset, (void)length, (void)waiter;
    virtio_kicked(opaque, (unsigned)value);
}

static void config_written(void *opaque, uint64_t offset, unsigned length, uint64_t value,
                           struct bus_waiter *waiter)
{
    struct virtio_device *device = opaque;
    (void)waiter;
    device->ops->config_write(device, offset, length, value);
}

/* From here on the guest reads what we write into the page of `slot`, if KVM has one to give. */
static void show_registers(struct virtio_device *device, unsigned slot, const struct vm *vm)
{
    struct virtio_reg_page *page = vm_reg_page(vm, layout_virtio_reg_page_gpa(slot));
    if (!page)
        return;
    memcpy(page, device->reg_page, sizeof(*page));
    device->reg_page = page;
    device->irq.pending = &page->interrupt_status;
}

int virtio_attach(struct virtio_device *device, unsigned slot, struct bus *bus, struct vm *vm,
                  struct irq_lines *lines)
{
    static const struct bus_ops ops = {.read = mmio_read, .write = mmio_write};
    gpa_t base = layout_virtio_gpa(slot);
    device->mem = vm->mem;
    device->bus = bus;
    device->status_call = (struct bus_call){.run = status_written, .device = device};
    device->notify_call = (struct bus_call){.run = notified, .device = device};
    device->config_call = (struct bus_call){.run = config_written, .device = device};
    show_registers(device, slot, vm);
    device->irq.always = device->ops->in_kernel ? VIRTIO_MMIO_INT_VRING : 0;
    int r = device->ops->in_kernel ? irq_connect_exclusive(lines, layout_virtio_gsi(slot), &device->irq)
                                   : irq_connect(lines, layout_virtio_gsi(slot), &device->irq);
    if (r == 0)
        r = bus_add(bus, VCPU_MMIO, base.value, LAYOUT_VIRTIO_SIZE, &ops, device);
    if (r == 0)
        r = bus_coalesce_mmio(bus, gpa(base.value + VIRTIO_MMIO_INTERRUPT_ACK));
    if (r == 0)
        r = virtio_watch_kicks(device);
    for (unsigned q = 0; r == 0 && q < device->queue_count; q++)
        r = vm_add_ioeventfd(vm, gpa(base.value + VIRTIO_MMIO_QUEUE_NOTIFY), q, device->queues[q].kick_fd);
    return r;
}
