/*
 * The driver's side of virtio-mmio (virtio 1.2, 4.2) and of split virtqueues (2.7), polled. Small on purpose
 * and open: the hostile guests write into the same structures what a driver must not.
 */
#pragma once

#include "lib/guest.h"

#define VIRTIO_BASE   0xc0001fa0u /* src/vcpu/layout.h */
#define VIRTIO_STRIDE 0x2000u
#define VIRTIO_SLOTS  64u

/* Registers (4.2.2). */
enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080, /* low, then high half; so the next two */
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    STATUS_NEEDS_RESET = 64,
    STATUS_FAILED = 128,
};

#define INTERRUPT_USED   1u
#define INTERRUPT_CONFIG 2u

#define FEATURE_INDIRECT  (1ull << 28)
#define FEATURE_EVENT_IDX (1ull << 29)
#define FEATURE_VERSION_1 (1ull << 32)

#define ID_BLOCK 2
#define ID_RNG   4

#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

struct avail {
    uint16_t flags, idx;
    uint16_t ring[];
};

struct used {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[];
};

struct queue {
    uintptr_t device;
    unsigned index;
    uint16_t size;
    uint16_t seen; /* used entries taken so far */
    volatile struct desc *desc;
    volatile struct avail *avail;
    volatile struct used *used;
};

static inline uint32_t mmio_read(uintptr_t device, uint32_t reg)
{
    return *(volatile uint32_t *)(device + reg);
}
static inline void mmio_write(uintptr_t device, uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(device + reg) = value;
}

/* A register whose read exits, as those from InterruptStatus on need not: it lets the monitor's threads run,
 * on one core too. */
static inline void device_pause(uintptr_t device)
{
    (void)mmio_read(device, REG_MAGIC);
}

/* The first device of this kind; the guest fails without. */
uintptr_t device_find(uint32_t device_id);
uintptr_t device_find_nth(uint32_t device_id, unsigned n); /* counted from 0 */

/* Writes 0 to the status and waits until it reads 0. */
void device_reset(uintptr_t device);

uint64_t device_features(uintptr_t device);

/* Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, which must stick. */
void device_begin(uintptr_t device, uint64_t features);

/* Sets queue `index` up with `size` entries (between device_begin and device_go), in memory of its own. */
void queue_setup(uintptr_t device, unsigned index, uint16_t size, struct queue *ret_queue);

void device_go(uintptr_t device);

/* Fills descriptor `i`. */
void desc_set(struct queue *queue, uint16_t i, const volatile void *buffer, uint32_t len, uint16_t flags,
              uint16_t next);

/* Makes the chain at `head` available, without a kick. */
void queue_offer(struct queue *queue, uint16_t head);
void queue_kick(struct queue *queue);

/* Waits for the next used entry, which must be `head`; its length. */
uint32_t queue_wait(struct queue *queue, uint16_t head);

/* Waits until the device asks for a reset, and checks that it announced it by a configuration interrupt. */
void device_expect_fault(uintptr_t device);
