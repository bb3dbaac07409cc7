/*
 * A driver that breaks the rules, one way a run (case=). Where the protocol is broken, the device must ask
 * for a reset; in every case the monitor lives, and the same device, reset and set up again, serves a read.
 */
#include "lib/block.h"

#define QUEUE 16

static struct block block;
static uint8_t *data; /* one page */

/* Nothing is at this address: the gap below 4 GiB, where devices live. */
#define HOLE 0xd0000000u

static void offer_and_expect_fault(uint16_t head)
{
    queue_offer(&block.queue, head);
    queue_kick(&block.queue);
    device_expect_fault(block.device);
}

/* A correct read at descriptors 0 to 2, for the cases to break. */
static struct queue *good_chain(void)
{
    block.header[0] = (struct block_header){.type = BLOCK_IN};
    desc_set(&block.queue, 0, &block.header[0], sizeof(struct block_header), DESC_NEXT, 1);
    desc_set(&block.queue, 1, data, SECTOR, DESC_NEXT | DESC_WRITE, 2);
    desc_set(&block.queue, 2, &block.status[0], 1, DESC_WRITE, 0);
    return &block.queue;
}

static void head_index(void)
{
    good_chain();
    offer_and_expect_fault(QUEUE);
}

static void head_index_far(void)
{
    good_chain();
    offer_and_expect_fault(0xffff);
}

static void next_index(void)
{
    good_chain()->desc[1].next = QUEUE;
    offer_and_expect_fault(0);
}

static void avail_jump(void)
{
    good_chain()->avail->idx = QUEUE + 1;
    queue_kick(&block.queue);
    device_expect_fault(block.device);
}

static void chain_loop(void)
{
    good_chain()->desc[2].next = 1;
    block.queue.desc[2].flags = DESC_NEXT | DESC_WRITE;
    offer_and_expect_fault(0);
}

static void chain_self(void)
{
    good_chain()->desc[0].next = 0;
    offer_and_expect_fault(0);
}

static void address_wrap(void)
{
    good_chain()->desc[1].addr = UINT64_MAX - 255;
    offer_and_expect_fault(0);
}

static void address_hole(void)
{
    good_chain()->desc[1].addr = HOLE;
    offer_and_expect_fault(0);
}

/* Starts in RAM and ends beyond it. */
static void address_edge(void)
{
    good_chain()->desc[1].addr = (uint64_t)option_number("memory_mib", 0) << 20;
    block.queue.desc[1].addr -= 16;
    offer_and_expect_fault(0);
}

static void length_huge(void)
{
    good_chain()->desc[1].len = UINT32_MAX;
    offer_and_expect_fault(0);
}

static void length_zero(void)
{
    good_chain()->desc[1].len = 0;
    offer_and_expect_fault(0);
}

static void header_hole(void)
{
    good_chain()->desc[0].addr = HOLE;
    offer_and_expect_fault(0);
}

static void status_hole(void)
{
    good_chain()->desc[2].addr = HOLE;
    offer_and_expect_fault(0);
}

static void header_short(void)
{
    good_chain()->desc[0].len = 15;
    offer_and_expect_fault(0);
}

static void no_status(void)
{
    good_chain()->desc[1].flags = 0;
    block.queue.desc[0].flags = DESC_NEXT;
    offer_and_expect_fault(0);
}

static void readable_after_writable(void)
{
    good_chain()->desc[2].flags = DESC_NEXT;
    block.queue.desc[2].next = 3;
    desc_set(&block.queue, 3, &block.status[0], 1, DESC_WRITE, 0);
    offer_and_expect_fault(0);
}

static void indirect_table(const volatile void *table, uint32_t len)
{
    desc_set(&block.queue, 0, table, len, DESC_INDIRECT, 0);
    offer_and_expect_fault(0);
}

static struct desc *good_table(void)
{
    struct desc *table = pages(4096);
    good_chain();
    for (unsigned i = 0; i < 3; i++)
        table[i] = (struct desc){block.queue.desc[i].addr, block.queue.desc[i].len, block.queue.desc[i].flags,
                                 block.queue.desc[i].next};
    return table;
}

static void indirect_nested(void)
{
    struct desc *table = good_table();
    struct desc *inner = good_table();
    table[0] = (struct desc){(uintptr_t)inner, 3 * sizeof(struct desc), DESC_INDIRECT, 0};
    indirect_table(table, 3 * sizeof(struct desc));
}

static void indirect_odd(void)
{
    indirect_table(good_table(), 3 * sizeof(struct desc) + 1);
}

static void indirect_empty(void)
{
    indirect_table(good_table(), 0);
}

static void indirect_hole(void)
{
    indirect_table((void *)HOLE, 3 * sizeof(struct desc));
}

static void indirect_huge(void)
{
    indirect_table(good_table(), 0xfffffff0u);
}

static void indirect_index(void)
{
    struct desc *table = good_table();
    table[1].next = 3;
    indirect_table(table, 3 * sizeof(struct desc));
}

static void indirect_loop(void)
{
    struct desc *table = good_table();
    table[1].next = 1;
    indirect_table(table, 3 * sizeof(struct desc));
}

/* Many reads, then a reset while they are in flight: after it, the memory is the driver's again. */
static void reset_in_flight(void)
{
    enum { SIZE = 64 * SECTOR };
    uint8_t *target = pages(SIZE);
    for (unsigned round = 0; round < 20; round++) {
        for (uint16_t head = 0; head + 3 <= QUEUE; head = (uint16_t)(head + 3))
            block_offer(&block, head, BLOCK_IN, 0, target, SIZE);
        queue_kick(&block.queue);
        device_reset(block.device);
        memset(target, 0xa5, SIZE);
        for (unsigned polls = 0; polls < 200; polls++)
            device_pause(block.device);
        for (unsigned i = 0; i < SIZE; i++)
            EXPECT(target[i] == 0xa5);
        block_start(&block, QUEUE);
    }
}

static void notify_early(void)
{
    for (unsigned step = 0; step < 4; step++) {
        static const uint8_t status[] = {0, STATUS_ACKNOWLEDGE, STATUS_ACKNOWLEDGE | STATUS_DRIVER,
                                         STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK};
        mmio_write(block.device, REG_STATUS, status[step]);
        for (uint32_t queue = 0; queue < 8; queue++)
            mmio_write(block.device, REG_QUEUE_NOTIFY, queue);
        mmio_write(block.device, REG_QUEUE_NOTIFY, UINT32_MAX);
    }
}

/* DRIVER_OK with a queue that cannot be. */
static void queue_broken(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
    device_begin(block.device, FEATURE_VERSION_1);
    mmio_write(block.device, REG_QUEUE_SEL, 0);
    mmio_write(block.device, REG_QUEUE_NUM, size);
    const uint64_t areas[] = {desc, avail, used};
    for (unsigned i = 0; i < 3; i++) {
        mmio_write(block.device, REG_QUEUE_DESC + i * 0x10, (uint32_t)areas[i]);
        mmio_write(block.device, REG_QUEUE_DESC + i * 0x10 + 4, (uint32_t)(areas[i] >> 32));
    }
    mmio_write(block.device, REG_QUEUE_READY, 1);
    device_go(block.device);
    mmio_write(block.device, REG_QUEUE_NOTIFY, 0);
    device_expect_fault(block.device);
}

#define DESC  0x300000u
#define AVAIL 0x301000u
#define USED  0x302000u

static void queue_size_odd(void)
{
    queue_broken(15, DESC, AVAIL, USED);
}

static void queue_size_huge(void)
{
    queue_broken(32768, DESC, AVAIL, USED);
}

static void queue_size_zero(void)
{
    queue_broken(0, DESC, AVAIL, USED);
}

static void queue_desc_hole(void)
{
    queue_broken(QUEUE, HOLE, AVAIL, USED);
}

static void queue_avail_wrap(void)
{
    queue_broken(QUEUE, DESC, UINT64_MAX - 1, USED);
}

static void queue_used_hole(void)
{
    queue_broken(QUEUE, DESC, AVAIL, 1ull << 52);
}

static void queue_misaligned(void)
{
    queue_broken(QUEUE, DESC + 8, AVAIL, USED);
}

/* Features that were not offered must not be accepted (3.1.1). */
static void features_wild(void)
{
    device_reset(block.device);
    mmio_write(block.device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    for (uint32_t select = 0; select < 4; select++) {
        mmio_write(block.device, REG_DRIVER_FEATURES_SEL, select);
        mmio_write(block.device, REG_DRIVER_FEATURES, UINT32_MAX);
    }
    mmio_write(block.device, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    EXPECT(!(mmio_read(block.device, REG_STATUS) & STATUS_FEATURES_OK));
}

/* Every register with every width, read and written, at every step of a linear congruential generator. */
static void registers_wild(void)
{
    uint32_t random = option_number("seed", 1);
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 1664525u + 1013904223u;
        uintptr_t at = block.device + (random >> 8) % 0x140;
        switch (random >> 29) {
        case 0: (void)*(volatile uint8_t *)at; break;
        case 1: (void)*(volatile uint16_t *)at; break;
        case 2: *(volatile uint8_t *)at = (uint8_t)random; break;
        case 3: *(volatile uint16_t *)at = (uint16_t)random; break;
        case 4: (void)*(volatile uint32_t *)(at & ~3u); break;
        case 5: *(volatile uint32_t *)(at & ~3u) = (random >> 4) & 0xf; break;
        default: *(volatile uint32_t *)(at & ~3u) = random; break;
        }
    }
}

/* More acknowledgements than KVM keeps (170): the rest go the long way, and the next interrupt is told all
 * the same. */
static void ack_flood(void)
{
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 1000; i++)
            mmio_write(block.device, REG_INTERRUPT_ACK,
                       i % 4 ? INTERRUPT_USED | INTERRUPT_CONFIG : UINT32_MAX);
        block_offer(&block, 0, BLOCK_IN, 0, data, SECTOR);
        queue_kick(&block.queue);
        while (block.queue.used->idx == block.queue.seen)
            device_pause(block.device);
        block.queue.seen++;
        for (unsigned polls = 0; !(mmio_read(block.device, REG_INTERRUPT_STATUS) & INTERRUPT_USED); polls++) {
            EXPECT(polls < 1000000);
            device_pause(block.device);
        }
    }
}

/* The registers from InterruptStatus to the end of their page: what is written there, by whatever
 * instruction, is a write to a device (and most of it to none), and never to memory. */
static void shown_writes(void)
{
    enum { FIRST = REG_QUEUE_DEVICE + 8, WORDS = (0x1000 + REG_INTERRUPT_STATUS - FIRST) / 4 };
    volatile uint32_t *page = (volatile uint32_t *)(block.device + FIRST);
    uint32_t *before = pages(WORDS * 4);
    for (unsigned i = 0; i < WORDS; i++)
        before[i] = page[i];
    for (unsigned i = 0; i < WORDS; i++) {
        uint32_t value = 0x5a5a5a5a;
        page[i] = value;
        *(volatile uint8_t *)&page[i] = 0xa5;
        __asm__ volatile("lock xaddl %0, %1" : "+r"(value), "+m"(page[i]));
        __asm__ volatile("andl $0, %0" : "+m"(page[i]));
    }
    for (unsigned i = 0; i < WORDS; i++)
        EXPECT(page[i] == before[i]);
}

/* Ports likewise, but those that end the machine: 0x64, and 0x600 to 0x602. */
static void ports_wild(void)
{
    uint32_t random = option_number("seed", 1);
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 1664525u + 1013904223u;
        uint16_t port = (uint16_t)(random >> 16);
        if (i % 2)
            port = (uint16_t)(0x3f8 + port % 8);
        if (port == 0x64 || (port >= 0x5fd && port <= 0x602) || port == 0xcf9 || port == 0x3f8)
            continue;
        if (random & 1)
            port_write8(port, (uint8_t)(random >> 8));
        else
            (void)port_read8(port);
    }
    /* The console as the rest of the guest needs it: no divisor latch, no loopback. */
    port_write8(0x3fb, 3);
    port_write8(0x3fc, 3);
    port_write8(0x3f9, 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"head-index", head_index},
    {"head-index-far", head_index_far},
    {"next-index", next_index},
    {"avail-jump", avail_jump},
    {"chain-loop", chain_loop},
    {"chain-self", chain_self},
    {"address-wrap", address_wrap},
    {"address-hole", address_hole},
    {"address-edge", address_edge},
    {"length-huge", length_huge},
    {"length-zero", length_zero},
    {"header-hole", header_hole},
    {"status-hole", status_hole},
    {"header-short", header_short},
    {"no-status", no_status},
    {"readable-after-writable", readable_after_writable},
    {"indirect-nested", indirect_nested},
    {"indirect-odd", indirect_odd},
    {"indirect-empty", indirect_empty},
    {"indirect-hole", indirect_hole},
    {"indirect-huge", indirect_huge},
    {"indirect-index", indirect_index},
    {"indirect-loop", indirect_loop},
    {"reset-in-flight", reset_in_flight},
    {"notify-early", notify_early},
    {"queue-size-odd", queue_size_odd},
    {"queue-size-huge", queue_size_huge},
    {"queue-size-zero", queue_size_zero},
    {"queue-desc-hole", queue_desc_hole},
    {"queue-avail-wrap", queue_avail_wrap},
    {"queue-used-hole", queue_used_hole},
    {"queue-misaligned", queue_misaligned},
    {"features-wild", features_wild},
    {"registers-wild", registers_wild},
    {"ports-wild", ports_wild},
    {"ack-flood", ack_flood},
    {"shown-writes", shown_writes},
};

void guest_main(const struct start_info *info)
{
    (void)info;
    data = pages(4096);
    const char *name = option("case");
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!same_text(name, cases[i].name))
            continue;
        block_start(&block, QUEUE);
        cases[i].run();
        block_start(&block, QUEUE);
        EXPECT(block_do(&block, BLOCK_IN, 0, data, SECTOR) == BLOCK_OK);
        EXPECT(memcmp(data, "first sector", 12) == 0);
        return;
    }
    say("case %s: ", name ? name : "");
    EXPECT(!"there is one");
}
