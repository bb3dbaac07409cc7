/*
 * Writes and flushes for ever, until it is killed (test/store/test-store-kills.sh): generation after
 * generation of flusher.h, from the one on that sector 0 names, which may be there in part only. Half of a
 * generation's changes are done when a first flush begins, the others happen during it, and a second flush
 * makes all of them last: "flushing n" is said before that, "flushed n" after.
 */
#include "flusher.h"
#include "lib/block.h"

#define QUEUE        64u
#define FIRST_FLUSH  FLUSHER_CHANGES
#define SECOND_FLUSH (FLUSHER_CHANGES + 1)
#define ALL_CHANGES  ((1u << FLUSHER_CHANGES) - 1)
#define ALL          (~0u)
#define BUFFER_BYTES (FLUSHER_LENGTH_MAX * SECTOR)
#define RANGE_UNMAPS 1u /* the space may be given back: the volume punches a hole */

static struct block block;
static uint32_t pending; /* a bit for each request in flight */
static uint8_t buffers[FLUSHER_CHANGES][BUFFER_BYTES] __attribute__((aligned(4096)));

static void offer(uint32_t request, uint32_t type, uint32_t sector, void *data, uint32_t bytes)
{
    pending |= 1u << request;
    block_offer(&block, (uint16_t)(request * 3), type, sector, data, bytes);
}

/* Waits until none of these requests is in flight; they end in any order. */
static void wait_for(uint32_t requests)
{
    struct queue *queue = &block.queue;
    while (pending & requests) {
        while (queue->used->idx == queue->seen)
            device_pause(block.device);
        barrier();
        uint32_t head = queue->used->ring[queue->seen++ % QUEUE].id;
        EXPECT(head % 3 == 0 && head < QUEUE && (pending >> head / 3 & 1));
        EXPECT(block.status[head] == BLOCK_OK);
        pending &= ~(1u << head / 3);
    }
}

/* One instruction a sector: on an emulated CPU, a loop would take most of the time. */
static void fill(uint8_t *to, uint32_t word)
{
    uint32_t words = FLUSHER_SECTOR_WORDS;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(word) : "memory");
}

static void offer_changes(uint32_t generation, uint32_t first, uint32_t end)
{
    for (uint32_t number = first; number < end; number++) {
        struct flusher_change change = flusher_change(generation, number);
        uint8_t *buffer = buffers[number];
        if (change.zeroes) {
            *(struct block_range *)buffer = (struct block_range){
                .sector = change.sector, .sectors = change.sectors, .flags = RANGE_UNMAPS};
            offer(number, BLOCK_WRITE_ZEROES, 0, buffer, sizeof(struct block_range));
            continue;
        }
        for (uint32_t i = 0; i < change.sectors; i++)
            fill(buffer + i * SECTOR, flusher_word(generation, change.sector + i));
        offer(number, BLOCK_OUT, change.sector, buffer, change.sectors * SECTOR);
    }
    queue_kick(&block.queue);
}

static void offer_flush(uint32_t request)
{
    offer(request, BLOCK_FLUSH, 0, NULL, 0);
    queue_kick(&block.queue);
}

static uint32_t last_generation(void)
{
    EXPECT(block_do(&block, BLOCK_IN, 0, buffers[0], SECTOR) == BLOCK_OK);
    return flusher_generation(*(const uint32_t *)buffers[0]);
}

void guest_main(const struct start_info *info)
{
    (void)info;
    block_start(&block, QUEUE);
    EXPECT(block_sectors(&block) == FLUSHER_SECTORS);
    EXPECT(block.features & BLOCK_FEATURE_WRITE_ZEROES);
    uint32_t generation = last_generation();
    for (generation += generation == 0;; generation++) {
        offer_changes(generation, 0, FLUSHER_CHANGES / 2);
        wait_for(ALL_CHANGES);
        offer_flush(FIRST_FLUSH);
        offer_changes(generation, FLUSHER_CHANGES / 2, FLUSHER_CHANGES);
        wait_for(ALL_CHANGES);
        say("flushing %u\n", generation);
        offer_flush(SECOND_FLUSH);
        wait_for(ALL);
        say("flushed %u\n", generation);
    }
}
