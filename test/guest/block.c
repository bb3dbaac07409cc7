/*
 * virtio-blk does what it says: size (sectors=), reads, writes, flush, serial number, discard, write zeroes,
 * refusals, many requests in flight, indirect descriptors. With ro=1 the disk must refuse writes. The test
 * compares the file afterwards: sector 64 and on hold the pattern.
 */
#include "lib/block.h"

#define QUEUE 64
#define AT    64u /* sectors */
#define SIZE  (16 * SECTOR)

static struct block block;

static void fill(uint8_t *bytes, uint32_t size, uint32_t seed)
{
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 7 + i / SECTOR + seed);
}

static void read_and_write(uint8_t *out, uint8_t *in)
{
    fill(out, SIZE, 1);
    EXPECT(block_do(&block, BLOCK_OUT, AT, out, SIZE) == BLOCK_OK);
    EXPECT(block_do(&block, BLOCK_FLUSH, 0, NULL, 0) == BLOCK_OK);
    EXPECT(block_do(&block, BLOCK_IN, AT, in, SIZE) == BLOCK_OK);
    EXPECT(memcmp(in, out, SIZE) == 0);
}

/* Data in four pieces of odd sizes that do not end at sectors. */
static void scattered(const uint8_t *out, uint8_t *in)
{
    static const uint32_t pieces[] = {100, 412, 1, SIZE - 513};
    struct queue *queue = &block.queue;
    memset(in, 0, SIZE);
    block.header[0] = (struct block_header){.type = BLOCK_IN, .sector = AT};
    block.status[0] = BLOCK_PENDING;
    desc_set(queue, 0, &block.header[0], sizeof(struct block_header), DESC_NEXT, 1);
    uint8_t *to = in;
    uint16_t i = 1;
    for (; i <= 4; to += pieces[i - 1], i++)
        desc_set(queue, i, to, pieces[i - 1], DESC_NEXT | DESC_WRITE, (uint16_t)(i + 1));
    desc_set(queue, i, &block.status[0], 1, DESC_WRITE, 0);
    queue_offer(queue, 0);
    queue_kick(queue);
    EXPECT(queue_wait(queue, 0) == SIZE + 1);
    EXPECT(block.status[0] == BLOCK_OK);
    EXPECT(memcmp(in, out, SIZE) == 0);
}

static void indirect(const uint8_t *out, uint8_t *in)
{
    if (!(block.features & FEATURE_INDIRECT))
        return;
    struct desc *table = pages(3 * sizeof(struct desc));
    memset(in, 0, SIZE);
    block.header[0] = (struct block_header){.type = BLOCK_IN, .sector = AT};
    block.status[0] = BLOCK_PENDING;
    table[0] = (struct desc){(uintptr_t)&block.header[0], sizeof(struct block_header), DESC_NEXT, 1};
    table[1] = (struct desc){(uintptr_t)in, SIZE, DESC_NEXT | DESC_WRITE, 2};
    table[2] = (struct desc){(uintptr_t)&block.status[0], 1, DESC_WRITE, 0};
    desc_set(&block.queue, 5, table, 3 * sizeof(struct desc), DESC_INDIRECT, 0);
    queue_offer(&block.queue, 5);
    queue_kick(&block.queue);
    EXPECT(queue_wait(&block.queue, 5) == SIZE + 1);
    EXPECT(block.status[0] == BLOCK_OK);
    EXPECT(memcmp(in, out, SIZE) == 0);
}

/* As many requests as the queue holds, with one kick; they may end in any order. */
static void in_flight(const uint8_t *out)
{
    enum { COUNT = QUEUE / 3 };
    uint8_t *in = pages(COUNT * SECTOR);
    for (uint16_t i = 0; i < COUNT; i++)
        block_offer(&block, (uint16_t)(i * 3), BLOCK_IN, AT + i % 16, in + i * SECTOR, SECTOR);
    queue_kick(&block.queue);
    uint64_t seen = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        while (block.queue.used->idx == block.queue.seen)
            device_pause(block.device);
        barrier();
        uint32_t head = block.queue.used->ring[block.queue.seen++ % QUEUE].id;
        EXPECT(head < 3 * COUNT);
        EXPECT(head % 3 == 0);
        EXPECT(!(seen >> (head / 3) & 1));
        seen |= 1ull << (head / 3);
        EXPECT(block.status[head] == BLOCK_OK);
        EXPECT(memcmp(in + head / 3 * SECTOR, out + head / 3 % 16 * SECTOR, SECTOR) == 0);
    }
}

static void refusals(uint8_t *buffer)
{
    uint64_t end = block_sectors(&block);
    EXPECT(block_do(&block, BLOCK_IN, end, buffer, SECTOR) == BLOCK_IOERR);
    EXPECT(block_do(&block, BLOCK_IN, end - 1, buffer, 2 * SECTOR) == BLOCK_IOERR);
    EXPECT(block_do(&block, BLOCK_IN, UINT64_MAX, buffer, SECTOR) == BLOCK_IOERR);
    EXPECT(block_do(&block, BLOCK_IN, UINT64_MAX / SECTOR, buffer, 2 * SECTOR) == BLOCK_IOERR);
    EXPECT(block_do(&block, BLOCK_IN, 0, buffer, 100) == BLOCK_IOERR);
    EXPECT(block_do(&block, BLOCK_OUT, end, buffer, SECTOR) == BLOCK_IOERR);
    EXPECT(block_do(&block, 99, 0, buffer, SECTOR) == BLOCK_UNSUPP);
    EXPECT(block_do(&block, BLOCK_IN, end - 1, buffer, SECTOR) == BLOCK_OK);
}

static void ranges(uint8_t *in)
{
    struct block_range *range = pages(sizeof(*range));
    *range = (struct block_range){.sector = AT + 32, .sectors = 8};
    fill(in, SIZE, 9);
    if (block.features & BLOCK_FEATURE_WRITE_ZEROES) {
        EXPECT(block_do(&block, BLOCK_OUT, range->sector, in, 8 * SECTOR) == BLOCK_OK);
        EXPECT(block_do(&block, BLOCK_WRITE_ZEROES, 0, range, sizeof(*range)) == BLOCK_OK);
        EXPECT(block_do(&block, BLOCK_IN, range->sector, in, 8 * SECTOR) == BLOCK_OK);
        for (unsigned i = 0; i < 8 * SECTOR; i++)
            EXPECT(in[i] == 0);
    }
    if (block.features & BLOCK_FEATURE_DISCARD) {
        EXPECT(block_do(&block, BLOCK_DISCARD, 0, range, sizeof(*range)) == BLOCK_OK);
        range->sector = block_sectors(&block) - 1;
        EXPECT(block_do(&block, BLOCK_DISCARD, 0, range, sizeof(*range)) == BLOCK_IOERR);
        range->sector = UINT64_MAX - 1;
        EXPECT(block_do(&block, BLOCK_DISCARD, 0, range, sizeof(*range)) == BLOCK_IOERR);
    }
}

void guest_main(const struct start_info *info)
{
    (void)info;
    block_start(&block, QUEUE);
    EXPECT(block.features & FEATURE_VERSION_1);
    EXPECT(block_sectors(&block) == option_number("sectors", 0));

    uint8_t *out = pages(SIZE), *in = pages(SIZE);
    EXPECT(block_do(&block, BLOCK_GET_ID, 0, in, 20) == BLOCK_OK);
    in[20] = '\0';
    say("serial '%s'\n", (const char *)in);

    if (option_number("ro", 0)) {
        EXPECT(block.features & BLOCK_FEATURE_RO);
        EXPECT(block_do(&block, BLOCK_OUT, AT, out, SECTOR) == BLOCK_IOERR);
        EXPECT(block_do(&block, BLOCK_IN, AT, in, SECTOR) == BLOCK_OK);
        return;
    }
    EXPECT(block.features & BLOCK_FEATURE_FLUSH);
    read_and_write(out, in);
    scattered(out, in);
    indirect(out, in);
    in_flight(out);
    refusals(in);
    ranges(in);
}
