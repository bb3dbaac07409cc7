/* virtio-blk requests (virtio 1.2, 5.2), for the guests that need a device with requests in flight. */
#pragma once

#include "lib/virtio.h"

#define BLOCK_FEATURE_RO           (1ull << 5)
#define BLOCK_FEATURE_FLUSH        (1ull << 9)
#define BLOCK_FEATURE_DISCARD      (1ull << 13)
#define BLOCK_FEATURE_WRITE_ZEROES (1ull << 14)

enum {
    BLOCK_IN = 0,
    BLOCK_OUT = 1,
    BLOCK_FLUSH = 4,
    BLOCK_GET_ID = 8,
    BLOCK_DISCARD = 11,
    BLOCK_WRITE_ZEROES = 13
};
enum { BLOCK_OK = 0, BLOCK_IOERR = 1, BLOCK_UNSUPP = 2, BLOCK_PENDING = 0xff };

#define SECTOR 512u

struct block_header {
    uint32_t type, reserved;
    uint64_t sector;
};

/* Discard and write zeroes (5.2.6). */
struct block_range {
    uint64_t sector;
    uint32_t sectors, flags;
};

struct block {
    uintptr_t device;
    uint64_t features; /* offered, and all of them taken but EVENT_IDX */
    struct queue queue;
    struct block_header *header; /* one for each descriptor */
    volatile uint8_t *status;
};

/* Resets the first block device and sets it up, with a queue of `size` entries. May be called again. */
void block_start(struct block *block, uint16_t size);
void block_start_nth(struct block *block, unsigned n, uint16_t size); /* another one; counted from 0 */

/* Offers header, data (none if `len` is 0) and status at descriptors head to head + 2, without a kick. */
void block_offer(struct block *block, uint16_t head, uint32_t type, uint64_t sector, void *data,
                 uint32_t len);

/* One request, waited for; its status. */
uint8_t block_do(struct block *block, uint32_t type, uint64_t sector, void *data, uint32_t len);

uint64_t block_sectors(const struct block *block);
