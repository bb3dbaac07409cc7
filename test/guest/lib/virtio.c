#include "lib/virtio.h"

/* Pauses, each an exit of some microseconds at least: a bound in the order of a minute, after which a wait
 * has failed. */
#define POLLS_MAX 2000000u

uintptr_t device_find(uint32_t device_id)
{
    return device_find_nth(device_id, 0);
}

uintptr_t device_find_nth(uint32_t device_id, unsigned n)
{
    for (unsigned slot = 0; slot < VIRTIO_SLOTS; slot++) {
        uintptr_t device = VIRTIO_BASE + slot * VIRTIO_STRIDE;
        if (mmio_read(device, REG_MAGIC) == 0x74726976 && mmio_read(device, REG_DEVICE_ID) == device_id &&
            n-- == 0) {
            EXPECT(mmio_read(device, REG_VERSION) == 2);
            return device;
        }
    }
    say("device kind %u: ", device_id);
    EXPECT(!"there is one");
    return 0;
}

void device_reset(uintptr_t device)
{
    mmio_write(device, REG_STATUS, 0);
    for (unsigned polls = 0; mmio_read(device, REG_STATUS) != 0; polls++) {
        EXPECT(polls < POLLS_MAX);
        device_pause(device);
    }
}

uint64_t device_features(uintptr_t device)
{
    mmio_write(device, REG_DEVICE_FEATURES_SEL, 1);
    uint64_t features = (uint64_t)mmio_read(device, REG_DEVICE_FEATURES) << 32;
    mmio_write(device, REG_DEVICE_FEATURES_SEL, 0);
    return features | mmio_read(device, REG_DEVICE_FEATURES);
}

void device_begin(uintptr_t device, uint64_t features)
{
    device_reset(device);
    mmio_write(device, REG_STATUS, STATUS_ACKNOWLEDGE);
    mmio_write(device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    EXPECT((device_features(device) & features) == features);
    mmio_write(device, REG_DRIVER_FEATURES_SEL, 1);
    mmio_write(device, REG_DRIVER_FEATURES, (uint32_t)(features >> 32));
    mmio_write(device, REG_DRIVER_FEATURES_SEL, 0);
    mmio_write(device, REG_DRIVER_FEATURES, (uint32_t)features);
    mmio_write(device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    EXPECT(mmio_read(device, REG_STATUS) & STATUS_FEATURES_OK);
}

void queue_setup(uintptr_t device, unsigned index, uint16_t size, struct queue *ret_queue)
{
    struct queue *queue = ret_queue;
    queue->device = device;
    queue->index = index;
    queue->size = size;
    queue->seen = 0;
    queue->desc = pages(size * (uint32_t)sizeof(struct desc));
    queue->avail = pages(6 + size * 2u);
    queue->used = pages(6 + size * 8u);
    mmio_write(device, REG_QUEUE_SEL, index);
    EXPECT(mmio_read(device, REG_QUEUE_READY) == 0);
    EXPECT(mmio_read(device, REG_QUEUE_NUM_MAX) >= size);
    mmio_write(device, REG_QUEUE_NUM, size);
    const volatile void *const areas[] = {queue->desc, queue->avail, queue->used};
    for (unsigned i = 0; i < 3; i++) {
        mmio_write(device, REG_QUEUE_DESC + i * 0x10, (uint32_t)(uintptr_t)areas[i]);
        mmio_write(device, REG_QUEUE_DESC + i * 0x10 + 4, 0);
    }
    mmio_write(device, REG_QUEUE_READY, 1);
    EXPECT(mmio_read(device, REG_QUEUE_READY) == 1);
}

void device_go(uintptr_t device)
{
    mmio_write(device, REG_STATUS,
               STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
}

void desc_set(struct queue *queue, uint16_t i, const volatile void *buffer, uint32_t len, uint16_t flags,
              uint16_t next)
{
    volatile struct desc *desc = &queue->desc[i];
    desc->addr = (uintptr_t)buffer;
    desc->len = len;
    desc->flags = flags;
    desc->next = next;
}

void queue_offer(struct queue *queue, uint16_t head)
{
    uint16_t idx = queue->avail->idx;
    queue->avail->ring[idx % queue->size] = head;
    barrier();
    queue->avail->idx = (uint16_t)(idx + 1);
    barrier();
}

void queue_kick(struct queue *queue)
{
    mmio_write(queue->device, REG_QUEUE_NOTIFY, queue->index);
}

uint32_t queue_wait(struct queue *queue, uint16_t head)
{
    for (unsigned polls = 0; queue->used->idx == queue->seen; polls++) {
        EXPECT(polls < POLLS_MAX);
        device_pause(queue->device);
        EXPECT(!(mmio_read(queue->device, REG_STATUS) & STATUS_NEEDS_RESET));
    }
    barrier();
    unsigned slot = queue->seen++ % queue->size;
    EXPECT(queue->used->ring[slot].id == head);
    mmio_write(queue->device, REG_INTERRUPT_ACK, mmio_read(queue->device, REG_INTERRUPT_STATUS));
    return queue->used->ring[slot].len;
}

void device_expect_fault(uintptr_t device)
{
    for (unsigned polls = 0; !(mmio_read(device, REG_STATUS) & STATUS_NEEDS_RESET); polls++) {
        EXPECT(polls < POLLS_MAX);
        device_pause(device);
    }
    for (unsigned polls = 0; !(mmio_read(device, REG_INTERRUPT_STATUS) & INTERRUPT_CONFIG); polls++) {
        EXPECT(polls < POLLS_MAX);
        device_pause(device);
    }
    mmio_write(device, REG_INTERRUPT_ACK, mmio_read(device, REG_INTERRUPT_STATUS));
}
