/*
 * What flusher.c writes in each generation, for it and for the program that judges the volume afterwards
 * (test/store/flushed.c). A sector is 128 times one word, which names the sector and the generation; the
 * image that the volume stands on is generation 0; zeros are what a change that zeroes leaves.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FLUSHER_SECTORS      16384u /* of the disk: 8 MiB */
#define FLUSHER_SECTOR_WORDS 128u
#define FLUSHER_CHANGES      12u /* of a generation; the first is its number's, in sector 0 */
#define FLUSHER_LENGTH_MAX   24u /* sectors of a change */

struct flusher_change {
    bool zeroes;
    uint32_t sector, sectors;
};

/* Good for 262142 generations. */
static inline uint32_t flusher_word(uint32_t generation, uint32_t sector)
{
    return (generation + 1) * FLUSHER_SECTORS + sector;
}

static inline uint32_t flusher_generation(uint32_t word)
{
    return word / FLUSHER_SECTORS - 1;
}

/* Any bits from any number (the end of MurmurHash3). */
static inline uint32_t flusher_mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

/* Less than a page, a page or more, aligned to pages or not; they may overlap. */
static inline struct flusher_change flusher_change(uint32_t generation, uint32_t number)
{
    static const uint8_t lengths[] = {1, 1, 3, 8, 8, 11, FLUSHER_LENGTH_MAX, 13};
    if (number == 0)
        return (struct flusher_change){.sector = 0, .sectors = 1};
    uint32_t bits = flusher_mix(generation * FLUSHER_CHANGES + number), kind = bits % 8;
    uint32_t sector = 1 + (bits >> 4) % (FLUSHER_SECTORS - FLUSHER_LENGTH_MAX - 1);
    if (kind == 4 || kind == 6)
        sector = (sector + 7) & ~7u;
    return (struct flusher_change){.zeroes = kind == 7, .sector = sector, .sectors = lengths[kind]};
}
