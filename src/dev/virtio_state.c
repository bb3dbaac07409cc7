/* What of a virtio device goes into a snapshot: the driver's words, the queues' positions, and the device's
 * own parts. Host pointers are made again from the registers, with the checks that a driver's set-up gets. */
#include "dev/virtio_core.h"

#include <linux/virtio_config.h>

struct core_state {
    uint32_t device_id, queue_count;
    uint32_t status, interrupt_status, config_generation;
    uint32_t device_features_select, driver_features_select, queue_select;
    uint32_t driver_features[3];
    uint32_t active; /* 1: the queues are in use */
    uint64_t features, faults;
};
_Static_assert(sizeof(struct core_state) == 64, "no padding");

struct queue_state {
    uint32_t size, ready;
    uint32_t desc[2], avail[2], used[2];
    uint16_t next_avail, next_used, signalled, zero;
};
_Static_assert(sizeof(struct queue_state) == 40, "no padding");

static void save_halves(_Atomic uint32_t from[2], uint32_t to[2])
{
    to[0] = atomic_load(&from[0]);
    to[1] = atomic_load(&from[1]);
}

static void load_halves(const uint32_t from[2], _Atomic uint32_t to[2])
{
    atomic_store(&to[0], from[0]);
    atomic_store(&to[1], from[1]);
}

static int save_core(const void *owner, struct state_writer *to)
{
    const struct virtio_device *device = owner;
    struct virtio_reg_page *page = device->reg_page;
    struct core_state core = {
        .device_id = device->ops->device_id,
        .queue_count = device->queue_count,
        .status = atomic_load(&page->status),
        .interrupt_status = atomic_load(&page->interrupt_status),
        .config_generation = atomic_load(&page->config_generation),
        .device_features_select = atomic_load(&device->regs.device_features_select),
        .driver_features_select = atomic_load(&device->regs.driver_features_select),
        .queue_select = atomic_load(&device->regs.queue_select),
        .active = device->state == VIRTIO_QUIET,
        .features = device->features,
        .faults = atomic_load(&device->faults),
    };
    for (unsigned i = 0; i < ARRAY_SIZE(core.driver_features); i++)
        core.driver_features[i] = atomic_load(&device->regs.driver_features[i]);
    state_put(to, &core, sizeof(core));
    for (unsigned q = 0; q < device->queue_count; q++) {
        struct virtio_queue *queue = &device->queues[q];
        struct queue_state state = {
            .size = atomic_load(&queue->regs.size),
            .ready = atomic_load(&queue->regs.ready),
            .next_avail = queue->vq.next_avail,
            .next_used = queue->vq.next_used,
            .signalled = queue->vq.signalled,
        };
        save_halves(queue->regs.desc, state.desc);
        save_halves(queue->regs.avail, state.avail);
        save_halves(queue->regs.used, state.used);
        state_put(to, &state, sizeof(state));
    }
    return 0;
}

static int check_core(const struct virtio_device *device, const struct core_state *core)
{
    if (core->device_id != device->ops->device_id || core->queue_count != device->queue_count)
        return fail(-EINVAL, "%s: the saved state is of device type %u with %u queues", device->label,
                    core->device_id, core->queue_count);
    if (core->features & ~device->offered)
        return fail(-EINVAL, "%s: the guest uses features 0x%llx, of which 0x%llx are not offered here",
                    device->label, (unsigned long long)core->features,
                    (unsigned long long)(core->features & ~device->offered));
    bool running =
        (core->status & VIRTIO_CONFIG_S_DRIVER_OK) && (core->features & FEATURE(VIRTIO_F_VERSION_1));
    if (core->active > 1 || (core->active && !running) || core->status > UINT8_MAX ||
        core->config_generation % 2)
        return fail(-EBADMSG, "%s: saved state with status 0x%x is damaged", device->label, core->status);
    return 0;
}

static int load_queue(struct virtio_device *device, unsigned q, bool active, struct state_reader *from)
{
    struct virtio_queue *queue = &device->queues[q];
    struct queue_state state;
    int r = state_get(from, &state, sizeof(state));
    if (r < 0)
        return r;
    atomic_store(&queue->regs.size, state.size);
    atomic_store(&queue->regs.ready, state.ready & 1);
    load_halves(state.desc, queue->regs.desc);
    load_halves(state.avail, queue->regs.avail);
    load_halves(state.used, queue->regs.used);
    if (!active || !(state.ready & 1))
        return 0;
    /* Nothing was in flight, so each chain that was popped is in the used ring. */
    if (state.next_avail != state.next_used)
        return fail(-EBADMSG, "%s: saved state of queue %u with chains in flight", device->label, q);
    if (virtio_start_queue(device, q) < 0)
        return negative(-EBADMSG); /* with a message */
    queue->vq.next_avail = state.next_avail;
    queue->vq.next_used = state.next_used;
    queue->vq.signalled = state.signalled;
    return 0;
}

static int load_core(void *owner, struct state_reader *from, uint16_t version)
{
    struct virtio_device *device = owner;
    struct virtio_reg_page *page = device->reg_page;
    struct core_state core;
    (void)version; /* there is one */
    int r = state_get(from, &core, sizeof(core));
    if (r == 0)
        r = check_core(device, &core);
    if (r < 0)
        return r;
    device->features = core.features;
    atomic_store(&page->status, core.status);
    atomic_store(&page->interrupt_status, core.interrupt_status | device->irq.always);
    atomic_store(&page->config_generation, core.config_generation);
    atomic_store(&device->regs.device_features_select, core.device_features_select);
    atomic_store(&device->regs.driver_features_select, core.driver_features_select);
    atomic_store(&device->regs.queue_select, core.queue_select);
    for (unsigned i = 0; i < ARRAY_SIZE(core.driver_features); i++)
        atomic_store(&device->regs.driver_features[i], core.driver_features[i]);
    atomic_store(&device->faults, core.faults);
    for (unsigned q = 0; r == 0 && q < device->queue_count; q++)
        r = load_queue(device, q, core.active, from);
    if (r == 0 && core.active)
        device->state = VIRTIO_QUIET;
    return r;
}

static int save_own(const void *owner, struct state_writer *to)
{
    const struct virtio_device *device = owner;
    return state_save(device->ops->parts, device->ops->part_count, device, to);
}

static int load_own(void *owner, struct state_reader *from, uint16_t version)
{
    struct virtio_device *device = owner;
    (void)version;
    struct state_reader all = *from;
    *from = (struct state_reader){.bytes = from->bytes + from->length};
    return state_load(device->ops->parts, device->ops->part_count, device, all);
}

static const struct state_part parts[] = {
    {"CORE", 1, STATE_REQUIRED, save_core, load_core},
    {"OWN ", 1, STATE_OPTIONAL, save_own, load_own},
};

int virtio_save(const struct virtio_device *device, struct state_writer *to)
{
    CHECK(device->state == VIRTIO_QUIET || device->state == VIRTIO_IDLE);
    bus_drain_coalesced(device->bus); /* or bits that the guest has acknowledged would come back */
    return state_save(parts, ARRAY_SIZE(parts), device, to);
}

int virtio_load(struct virtio_device *device, struct state_reader from)
{
    CHECK(device->state == VIRTIO_IDLE && device->mem);
    device->held = true;
    return state_load(parts, ARRAY_SIZE(parts), device, from);
}
