/*
 * Whether a volume has what a guest (test/guest/flusher.c) was told is flushed:
 *
 *   flushed make FILE                      the image to begin with: generation 0
 *   flushed check STORE VOLUME GENERATION  a volume after GENERATION was the last that was told to be flushed
 *
 * Each sector must be as one generation made it: as the last flushed one did that changed it, or a newer one,
 * of which only some can have gone unheard.
 */
#include "../guest/flusher.h"
#include "store/volume.h"

#include <stdio.h>
#include <string.h>

#define DISK_BYTES (FLUSHER_SECTORS * 512u)
#define DISK_PAGES (DISK_BYTES / STORE_PAGE)
/* Generations: one begun, and those whose words (25 bytes each) its UART still held (17 KiB). */
#define AHEAD 1000u

static uint32_t disk[FLUSHER_SECTORS][FLUSHER_SECTOR_WORDS];

/* The last flushed generations that wrote and that zeroed a sector. If they are one, either may be last. */
static uint32_t written[FLUSHER_SECTORS], zeroed[FLUSHER_SECTORS];

static int make(const char *path)
{
    for (uint32_t sector = 0; sector < FLUSHER_SECTORS; sector++)
        for (uint32_t i = 0; i < FLUSHER_SECTOR_WORDS; i++)
            disk[sector][i] = flusher_word(0, sector);
    FILE *file = fopen(path, "we");
    return file && fwrite(disk, sizeof(disk), 1, file) == 1 && fclose(file) == 0 ? 0 : 1;
}

static void replay(uint32_t flushed)
{
    for (uint32_t generation = 1; generation <= flushed; generation++)
        for (uint32_t number = 0; number < FLUSHER_CHANGES; number++) {
            struct flusher_change change = flusher_change(generation, number);
            for (uint32_t i = 0; i < change.sectors; i++)
                (change.zeroes ? zeroed : written)[change.sector + i] = generation;
        }
}

/* Whether this generation changes the sector so. */
static bool changes(uint32_t generation, uint32_t sector, bool zeroes)
{
    for (uint32_t number = 0; number < FLUSHER_CHANGES; number++) {
        struct flusher_change change = flusher_change(generation, number);
        if (change.zeroes == zeroes && sector - change.sector < change.sectors)
            return true;
    }
    return false;
}

static bool zeros_fit(uint32_t sector, uint32_t flushed)
{
    bool fit = zeroed[sector] > 0 && zeroed[sector] >= written[sector];
    for (uint32_t generation = flushed + 1; !fit && generation <= flushed + AHEAD; generation++)
        fit = changes(generation, sector, true);
    return fit;
}

static bool word_fits(uint32_t word, uint32_t sector, uint32_t flushed)
{
    uint32_t generation = flusher_generation(word);
    if (word != flusher_word(generation, sector) || generation > flushed + AHEAD)
        return false;
    if (generation > flushed)
        return changes(generation, sector, false);
    return generation == written[sector] && generation >= zeroed[sector];
}

static bool sector_fits(uint32_t sector, uint32_t flushed)
{
    const uint32_t *words = disk[sector];
    if (memcmp(words, words + 1, (FLUSHER_SECTOR_WORDS - 1) * sizeof(*words)) != 0)
        return false;
    return words[0] == 0 ? zeros_fit(sector, flushed) : word_fits(words[0], sector, flushed);
}

static int check(const char *store_path, const char *path, uint32_t flushed)
{
    struct store *store = NULL;
    struct volume *volume = NULL;
    if (store_open(store_path, &store) < 0 || volume_open(store, path, true, &volume) < 0 ||
        volume_bytes(volume) != DISK_BYTES || volume_read(volume, disk, 0, DISK_PAGES) < 0) {
        printf("%s: cannot be read: %s\n", path, fail_text());
        return 1;
    }
    volume_close(volume);
    store_close(store);
    replay(flushed);
    unsigned wrong = 0;
    for (uint32_t sector = 0; sector < FLUSHER_SECTORS; sector++) {
        if (sector_fits(sector, flushed))
            continue;
        if (wrong++ < 10)
            printf("sector %u, flushed %u: written in generation %u, zeroed in %u, but has words %08x ... "
                   "%08x\n",
                   sector, flushed, written[sector], zeroed[sector], disk[sector][0],
                   disk[sector][FLUSHER_SECTOR_WORDS - 1]);
    }
    if (wrong > 0)
        printf("%u sectors are wrong\n", wrong);
    return wrong > 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "make") == 0)
        return make(argv[2]);
    if (argc == 5 && strcmp(argv[1], "check") == 0)
        return check(argv[2], argv[3], (uint32_t)strtoul(argv[4], NULL, 10));
    fprintf(stderr, "Usage: flushed make FILE | flushed check STORE VOLUME GENERATION\n");
    return 2;
}
