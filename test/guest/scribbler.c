/*
 * Changes two disks alike, batch after batch of scribbler.h: "done n" is said when a batch is done on both,
 * "flushed n" when they were flushed after it. `batches=` says how many, then the guest ends by `end=`; with
 * `abrupt=1` in the middle of one more batch. `seed=` makes them others.
 */
#include "scribbler.h"
#include "lib/block.h"

#define DISKS        2u
#define QUEUE        32u
#define FLUSH        SCRIBBLER_CHANGES /* the request after the changes */
#define RANGE_UNMAPS 1u

static struct block disks[DISKS];
static uint8_t buffers[SCRIBBLER_CHANGES][SCRIBBLER_LENGTH_MAX * SECTOR] __attribute__((aligned(4096)));
static uint32_t pending[DISKS]; /* a bit for each request in flight */

static void offer(uint32_t disk, uint32_t request, uint32_t type, uint32_t sector, void *data, uint32_t bytes)
{
    pending[disk] |= 1u << request;
    block_offer(&disks[disk], (uint16_t)(request * 3), type, sector, data, bytes);
}

static void wait_for_all(uint32_t disk)
{
    struct queue *queue = &disks[disk].queue;
    while (pending[disk]) {
        while (queue->used->idx == queue->seen)
            device_pause(disks[disk].device);
        barrier();
        uint32_t head = queue->used->ring[queue->seen++ % QUEUE].id;
        EXPECT(head % 3 == 0 && head < QUEUE && (pending[disk] >> head / 3 & 1));
        EXPECT(disks[disk].status[head] == BLOCK_OK);
        pending[disk] &= ~(1u << head / 3);
    }
}

/* One instruction a sector: on an emulated CPU, a loop would take most of the time. */
static void fill(uint8_t *to, uint32_t word)
{
    uint32_t words = SCRIBBLER_WORDS;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(word) : "memory");
}

static void offer_change(uint32_t seed, uint32_t batch, uint32_t number)
{
    static const uint32_t types[] = {BLOCK_OUT, BLOCK_WRITE_ZEROES, BLOCK_WRITE_ZEROES, BLOCK_DISCARD};
    struct scribbler_change change = scribbler_change(seed, batch, number);
    uint8_t *buffer = buffers[number];
    uint32_t bytes = change.sectors * SECTOR;
    if (change.kind == SCRIBBLER_WRITE) {
        for (uint32_t i = 0; i < change.sectors; i++)
            fill(buffer + i * SECTOR, scribbler_word(seed, batch, number, change, change.sector + i));
    } else {
        bytes = sizeof(struct block_range);
        *(struct block_range *)buffer = (struct block_range){
            .sector = change.sector,
            .sectors = change.sectors,
            .flags = change.kind == SCRIBBLER_UNMAP ? RANGE_UNMAPS : 0,
        };
    }
    for (uint32_t disk = 0; disk < DISKS; disk++)
        offer(disk, number, types[change.kind], change.kind == SCRIBBLER_WRITE ? change.sector : 0, buffer,
              bytes);
}

static void kick_both(void)
{
    for (uint32_t disk = 0; disk < DISKS; disk++)
        queue_kick(&disks[disk].queue);
}

static void offer_batch(uint32_t seed, uint32_t batch)
{
    for (uint32_t number = 0; number < SCRIBBLER_CHANGES; number++)
        offer_change(seed, batch, number);
    kick_both();
}

static void wait_for_both(void)
{
    for (uint32_t disk = 0; disk < DISKS; disk++)
        wait_for_all(disk);
}

void guest_main(const struct start_info *info)
{
    (void)info;
    uint32_t seed = option_number("seed", 1), batches = option_number("batches", 1);
    for (uint32_t disk = 0; disk < DISKS; disk++) {
        block_start_nth(&disks[disk], disk, QUEUE);
        EXPECT(block_sectors(&disks[disk]) == SCRIBBLER_SECTORS);
    }
    for (uint32_t batch = 1; batch <= batches; batch++) {
        offer_batch(seed, batch);
        wait_for_both();
        say("done %u\n", batch);
        if (!scribbler_flushes(seed, batch))
            continue;
        for (uint32_t disk = 0; disk < DISKS; disk++)
            offer(disk, FLUSH, BLOCK_FLUSH, 0, NULL, 0);
        kick_both();
        wait_for_both();
        say("flushed %u\n", batch);
    }
    if (option_number("abrupt", 0)) {
        bool reboot = same_text(option("end"), "reboot");
        offer_batch(seed, batches + 1);
        if (reboot)
            guest_reboot();
        guest_poweroff();
    }
}
