/*
 * Whether two disks have what a guest (test/guest/scribbler.c) did to them:
 *
 *   scribbled make IMAGE MODEL   the image to begin with, and what is known of two disks that are as it is
 *   scribbled check STORE VOLUME FILE MODEL SEED DONE KEPT UNHEARD
 *                                both disks after a run: the guest was told that DONE batches were done, and
 *                                of those the first KEPT must be on the volume; up to UNHEARD more may have
 *                                begun
 *
 * A sector must be as the model says, or as the last batch left it that must be there, or as a later one may
 * have left it; changes of one batch may have been done in any order. What the disks have becomes the model
 * of the next run.
 */
#include "../guest/scribbler.h"
#include "store/volume.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define DISK_BYTES (SCRIBBLER_SECTORS * UINT64_C(512))
#define DISK_PAGES ((unsigned)(align_up(DISK_BYTES, STORE_PAGE) / STORE_PAGE))

enum { VOLUME, RAW, DISKS };
static uint32_t sectors[SCRIBBLER_SECTORS + 8]
                       [SCRIBBLER_WORDS]; /* of a disk, and the rest of its last page */
static uint32_t model[DISKS][SCRIBBLER_SECTORS];

static int make(const char *image, const char *model_path)
{
    for (uint32_t sector = 0; sector < SCRIBBLER_SECTORS; sector++) {
        uint32_t word = sector / 64 % 3 == 0 ? 0 : scribbler_mix(sector) | 1;
        for (uint32_t i = 0; i < SCRIBBLER_WORDS; i++)
            sectors[sector][i] = word;
        model[VOLUME][sector] = model[RAW][sector] = word;
    }
    FILE *file = fopen(image, "we"), *models = fopen(model_path, "we");
    return file && models && fwrite(sectors, DISK_BYTES, 1, file) == 1 &&
                   fwrite(model, sizeof(model), 1, models) == 1 && fclose(file) == 0 && fclose(models) == 0
               ? 0
               : 1;
}

struct run {
    uint32_t seed, kept, possible; /* batches: that must be there, that may have begun */
};

/* Calls `visit` for each sector of each change of batches [first, end]. */
static void each_change(const struct run *run, uint32_t first, uint32_t end,
                        void (*visit)(uint32_t batch, uint32_t sector, uint32_t word))
{
    for (uint32_t batch = first; batch <= end; batch++)
        for (uint32_t number = 0; number < SCRIBBLER_CHANGES; number++) {
            struct scribbler_change change = scribbler_change(run->seed, batch, number);
            for (uint32_t sector = change.sector; sector < change.sector + change.sectors; sector++)
                visit(batch, sector, scribbler_word(run->seed, batch, number, change, sector));
        }
}

static uint32_t last[SCRIBBLER_SECTORS],
    kept; /* the last batch that must be there and changed the sector; or 0 */
static bool fits[SCRIBBLER_SECTORS];

static void note_last(uint32_t batch, uint32_t sector, uint32_t word)
{
    (void)word;
    last[sector] = batch;
}

static void note_fit(uint32_t batch, uint32_t sector, uint32_t word)
{
    if (word == sectors[sector][0] && (batch == last[sector] || batch > kept))
        fits[sector] = true;
}

static unsigned judge(const char *name, const struct run *run, uint32_t *words)
{
    unsigned wrong = 0;
    memset(last, 0, sizeof(last));
    memset(fits, 0, sizeof(fits));
    kept = run->kept;
    each_change(run, 1, run->kept, note_last);
    each_change(run, 1, run->possible, note_fit);
    for (uint32_t sector = 0; sector < SCRIBBLER_SECTORS; sector++) {
        const uint32_t *has = sectors[sector];
        bool whole = memcmp(has, has + 1, (SCRIBBLER_WORDS - 1) * sizeof(*has)) == 0;
        fits[sector] |= last[sector] == 0 && has[0] == words[sector];
        if ((!whole || !fits[sector]) && wrong++ < 10)
            printf("%s, sector %u: %08x ... %08x, was %08x, last changed by batch %u of %u\n", name, sector,
                   has[0], has[SCRIBBLER_WORDS - 1], words[sector], last[sector], run->kept);
        words[sector] = has[0];
    }
    return wrong;
}

static int read_volume(const char *store_path, const char *path)
{
    struct store *store = NULL;
    struct volume *volume = NULL;
    int r = store_open(store_path, &store);
    if (r == 0)
        r = volume_open(store, path, true, &volume);
    if (r == 0 && volume_bytes(volume) != DISK_BYTES)
        r = fail(-EINVAL, "has another size");
    if (r == 0)
        r = volume_read(volume, sectors, 0, DISK_PAGES);
    volume_close(volume);
    store_close(store);
    return r;
}

static int read_file(const char *path)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? fail_errno(-errno, "cannot be opened") : read_full_at(fd, sectors, DISK_BYTES, 0);
}

static uint32_t number(const char *text)
{
    return (uint32_t)strtoul(text, NULL, 10);
}

static int check(char **arguments)
{
    const char *volume = arguments[1], *file = arguments[2];
    uint32_t done = number(arguments[5]);
    struct run run = {.seed = number(arguments[4]), .possible = done + number(arguments[7])};
    CLEANUP_FD int fd = open(arguments[3], O_RDWR | O_CLOEXEC);
    if (fd < 0 || read_full_at(fd, model, sizeof(model), 0) < 0)
        return 1;
    unsigned wrong = 0;
    if (read_volume(arguments[0], volume) < 0) {
        printf("%s: %s\n", volume, fail_text());
        return 1;
    }
    run.kept = number(arguments[6]);
    wrong += judge(volume, &run, model[VOLUME]);
    if (read_file(file) < 0) {
        printf("%s: %s\n", file, fail_text());
        return 1;
    }
    run.kept = done; /* the page cache keeps it, whatever happens to the VM */
    wrong += judge(file, &run, model[RAW]);
    if (wrong > 0)
        printf("%u sectors are wrong\n", wrong);
    return wrong > 0 || write_full_at(fd, model, sizeof(model), 0) < 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "make") == 0)
        return make(argv[2], argv[3]);
    if (argc == 10 && strcmp(argv[1], "check") == 0)
        return check(argv + 2);
    fprintf(stderr,
            "Usage: scribbled make IMAGE MODEL | scribbled check STORE VOLUME FILE MODEL SEED DONE KEPT "
            "UNHEARD\n");
    return 2;
}
