/*
 * Counts for ever, for snapshots: each round has its number in every one of `pages=` pages and, with a disk,
 * in a sector, and looks whether those of the round before were still there. "round N" is said when all is
 * right. With `every=` K only each Kth page is one of those; the ones between are written once and stay.
 * Those are looked at in turn, unless `check=0`. Nothing of it depends on time.
 */
#include "lib/block.h"

#define PAGE       4096u
#define PAGE_WORDS (PAGE / 4)
#define STEP       512u /* words between two that are looked at */
#define QUEUE      8u
#define SECTORS    64u /* of the disk, used one after the other */

static struct block disk;
static uint32_t sector[SECTOR / 4] __attribute__((aligned(512)));

static uint32_t word_of(uint32_t round, uint32_t page)
{
    return round * 2654435761u + page;
}

static uint32_t count, every; /* pages that change, and how far apart they are */

static uint32_t still_word(uint32_t page)
{
    return page * 2246822519u + 7;
}

static void fill_still(uint32_t *memory)
{
    for (uint32_t page = 0; page < count * every; page++)
        if (page % every)
            memory[page * PAGE_WORDS] = still_word(page);
}

/* Some of them, others in each round. */
static void check_still(const uint32_t *memory, uint32_t round)
{
    for (uint32_t page = round % 16; page < count * every; page += 16)
        if (page % every)
            EXPECT(memory[page * PAGE_WORDS] == still_word(page));
}

static void check_and_fill(uint32_t *memory, uint32_t round)
{
    for (uint32_t page = 0; page < count; page++)
        for (uint32_t i = 0; i < PAGE_WORDS; i += STEP) {
            uint32_t *word = &memory[page * every * PAGE_WORDS + i];
            EXPECT(*word == (round ? word_of(round, page) : 0));
            *word = word_of(round + 1, page);
        }
}

static void check_and_write(uint32_t round)
{
    if (round) {
        sector[0] = 0;
        EXPECT(block_do(&disk, BLOCK_IN, round % SECTORS, sector, SECTOR) == BLOCK_OK);
        EXPECT(sector[0] == round && sector[SECTOR / 4 - 1] == ~round);
    }
    sector[0] = round + 1;
    sector[SECTOR / 4 - 1] = ~(round + 1);
    EXPECT(block_do(&disk, BLOCK_OUT, (round + 1) % SECTORS, sector, SECTOR) == BLOCK_OK);
}

void guest_main(const struct start_info *info)
{
    (void)info;
    uint32_t spin = option_number("spin", 1000);
    bool has_disk = option_number("disk", 0), checks = option_number("check", 1);
    count = option_number("pages", 64);
    every = option_number("every", 1);
    uint32_t *memory = pages(count * every * PAGE);
    fill_still(memory);
    if (has_disk)
        block_start(&disk, QUEUE);
    for (uint32_t round = 0;; round++) {
        check_and_fill(memory, round);
        if (checks)
            check_still(memory, round);
        if (has_disk)
            check_and_write(round);
        say("round %u\n", round + 1);
        for (volatile uint32_t i = 0; i < spin; i++)
            ;
    }
}
