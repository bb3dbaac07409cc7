#include "lib/block.h"

static bool device_writes(uint32_t type)
{
    return type == BLOCK_IN || type == BLOCK_GET_ID;
}

void block_start(struct block *block, uint16_t size)
{
    block_start_nth(block, 0, size);
}

void block_start_nth(struct block *block, unsigned n, uint16_t size)
{
    block->device = device_find_nth(ID_BLOCK, n);
    block->features = device_features(block->device);
    device_begin(block->device, block->features & ~FEATURE_EVENT_IDX);
    queue_setup(block->device, 0, size, &block->queue);
    block->header = pages(size * (uint32_t)sizeof(*block->header));
    block->status = pages(size);
    device_go(block->device);
}

void block_offer(struct block *block, uint16_t head, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
    struct queue *queue = &block->queue;
    block->header[head] = (struct block_header){.type = type, .sector = sector};
    block->status[head] = BLOCK_PENDING;
    uint16_t next = (uint16_t)(head + 1);
    desc_set(queue, head, &block->header[head], sizeof(struct block_header), DESC_NEXT, next);
    if (len) {
        desc_set(queue, next, data, len, (uint16_t)(DESC_NEXT | (device_writes(type) ? DESC_WRITE : 0)),
                 (uint16_t)(next + 1));
        next++;
    }
    desc_set(queue, next, &block->status[head], 1, DESC_WRITE, 0);
    queue_offer(queue, head);
}

uint8_t block_do(struct block *block, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
    block_offer(block, 0, type, sector, data, len);
    queue_kick(&block->queue);
    uint32_t written = queue_wait(&block->queue, 0);
    uint8_t status = block->status[0];
    EXPECT(status != BLOCK_PENDING);
    if (status == BLOCK_OK)
        EXPECT(written == 1 + (type == BLOCK_IN ? len : 0) || type == BLOCK_GET_ID);
    return status;
}

uint64_t block_sectors(const struct block *block)
{
    return mmio_read(block->device, REG_CONFIG) | (uint64_t)mmio_read(block->device, REG_CONFIG + 4) << 32;
}
