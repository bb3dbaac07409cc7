/*
 * What scribbler.c does to its two disks, for it and for the program that judges them afterwards
 * (test/store/scribbled.c): batch after batch of changes, all random by the run's seed. A sector is 128 times
 * one word, which names the change that wrote it; zeros are what a discard or a write of zeroes leaves.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SCRIBBLER_SECTORS    4093u /* the disk does not end with a page */
#define SCRIBBLER_WORDS      128u  /* of a sector */
#define SCRIBBLER_CHANGES    8u    /* of a batch; they are in flight together, and may overlap */
#define SCRIBBLER_LENGTH_MAX 24u   /* sectors of a change */

enum scribbler_kind { SCRIBBLER_WRITE, SCRIBBLER_ZERO, SCRIBBLER_UNMAP, SCRIBBLER_DISCARD };

struct scribbler_change {
    enum scribbler_kind kind;
    uint32_t sector, sectors;
};

/* Any bits from any number (the end of MurmurHash3). */
static inline uint32_t scribbler_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* Batches and changes are counted from 1 and 0. Parts of pages, whole pages, and some of each. */
static inline struct scribbler_change scribbler_change(uint32_t seed, uint32_t batch, uint32_t number)
{
    static const uint8_t lengths[] = {1, 1, 3, 8, 8, 11, SCRIBBLER_LENGTH_MAX, 13};
    uint32_t bits = scribbler_mix(scribbler_mix(seed) + batch * SCRIBBLER_CHANGES + number);
    struct scribbler_change change = {.sectors = lengths[bits % 8]};
    if (bits >> 4 & 1)
        change.kind = (enum scribbler_kind)((bits >> 5) % 4);
    change.sector = (bits >> 7) % (SCRIBBLER_SECTORS - change.sectors + 1);
    if (bits % 8 == 4 || bits % 8 == 6)
        change.sector &= ~7u;
    return change;
}

/* What the change leaves in this sector. */
static inline uint32_t scribbler_word(uint32_t seed, uint32_t batch, uint32_t number,
                                      struct scribbler_change change, uint32_t sector)
{
    if (change.kind != SCRIBBLER_WRITE)
        return 0;
    return scribbler_mix(scribbler_mix(scribbler_mix(seed) + batch * SCRIBBLER_CHANGES + number) + sector) |
           1;
}

/* Whether both disks are flushed after a batch. */
static inline bool scribbler_flushes(uint32_t seed, uint32_t batch)
{
    return scribbler_mix(scribbler_mix(seed) ^ batch) % 3 == 0;
}
