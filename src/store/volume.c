#include "store/volume.h"
#include "store/private.h"
#include "store/volume_files.h"
#include "store/wire.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#define BLOCK_PAGES (STORE_PAGE * UINT64_C(8)) /* of the disk, to one block of the map: 128 MiB */

struct volume {
    struct store *store;
    struct store_lease *lease;
    struct manifest *manifest;
    struct volume_description description;
    int directory, delta, map; /* -1: none of its own */
    uint64_t pages;
    uint8_t *bits;                 /* anonymous memory that is there when it is touched */
    size_t bits_length;            /* a multiple of a block */
    uint64_t *dirty;               /* a bit for each block of bits: changed since the last checkpoint */
    bool name_durable;             /* its directory and registration are durable */
    int name_fds[VOLUME_NAME_FDS]; /* what they depend on; -1 once they are */
};

static uint64_t block_count(const struct volume *volume)
{
    return volume->bits_length / STORE_PAGE;
}

static int make_bits(struct volume *volume)
{
    volume->pages = align_up(volume->description.bytes, STORE_PAGE) / STORE_PAGE;
    volume->bits_length = (size_t)align_up(MAX(volume->pages, UINT64_C(1)), BLOCK_PAGES) / 8;
    void *bits = mmap(NULL, volume->bits_length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    volume->bits = bits == MAP_FAILED ? NULL : bits;
    volume->dirty = calloc((size_t)(block_count(volume) + 63) / 64, sizeof(*volume->dirty));
    return volume->bits && volume->dirty ? 0 : fail(-ENOMEM, "no memory for a volume's map");
}

static bool same_description(const struct volume_description *a, const struct volume_description *b)
{
    return a->bytes == b->bytes && strcmp(a->id, b->id) == 0 && object_id_equal(&a->manifest, &b->manifest);
}

static int check_map_header(struct volume *volume, const char *path)
{
    struct volume_description in_map;
    struct stat map, delta;
    if (fstat(volume->map, &map) < 0 || fstat(volume->delta, &delta) < 0)
        return fail_errno(-errno, "%s/map", path);
    int r = volume_map_header_read(volume->map, path, &in_map, &volume->name_durable);
    if (r < 0)
        return r;
    if (!same_description(&in_map, &volume->description))
        return fail(-EBADMSG,
                    "%s/map: does not belong to this volume.json (was one of them copied here? was an "
                    "adoption interrupted? stellarium adopt %s repeats that)",
                    path, path);
    if ((uint64_t)map.st_size != STORE_PAGE + volume->bits_length ||
        (uint64_t)delta.st_size != volume->pages * STORE_PAGE)
        return fail(-EBADMSG, "%s: map or delta has another length than the disk (was it truncated?)", path);
    return 0;
}

/* Reads what is not holes: opening costs what was written, not what the disk could hold. */
static int load_bits(struct volume *volume, const char *path)
{
    uint64_t end = STORE_PAGE + volume->bits_length, data, hole;
    for (uint64_t at = STORE_PAGE; file_next_data(volume->map, at, end, &data, &hole); at = hole) {
        int r = read_full_at(volume->map, volume->bits + (data - STORE_PAGE), (size_t)(hole - data), data);
        if (r < 0)
            return fail_errno(r, "%s/map", path);
    }
    for (uint64_t page = volume->pages; page < volume->bits_length * UINT64_C(8); page++)
        if (volume->bits[page / 8] >> (page % 8) & 1)
            return fail(-EBADMSG, "%s/map: marks pages beyond the end of the disk (is it damaged?)", path);
    return 0;
}

static int open_files(struct volume *volume, const char *path, bool read_only)
{
    int mode = read_only ? O_RDONLY : O_RDWR;
    volume->map = openat(volume->directory, "map", mode | O_CLOEXEC | O_NOFOLLOW);
    volume->delta = openat(volume->directory, "delta", mode | O_CLOEXEC | O_NOFOLLOW);
    if (volume->map < 0 || volume->delta < 0)
        return fail_errno(-errno, "%s: map or delta cannot be opened", path);
    int r = flock_soon(volume->map, read_only ? LOCK_SH : LOCK_EX);
    if (r < 0)
        return fail(-EBUSY, "%s: in use (by a running VM, or a commit)", path);
    r = make_bits(volume);
    if (r == 0)
        r = check_map_header(volume, path);
    return r < 0 ? r : load_bits(volume, path);
}

static int volume_new(struct store *store, struct volume **ret_volume)
{
    struct volume *volume = calloc(1, sizeof(*volume));
    if (!volume)
        return fail(-ENOMEM, "no memory for a volume");
    *volume = (struct volume){.store = store, .directory = -1, .delta = -1, .map = -1};
    for (unsigned i = 0; i < VOLUME_NAME_FDS; i++)
        volume->name_fds[i] = -1;
    *ret_volume = volume;
    return 0;
}

int volume_open(struct store *store, const char *path, bool read_only, struct volume **ret_volume)
{
    struct volume *volume;
    int r = volume_new(store, &volume);
    if (r < 0)
        return r;
    volume->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = volume->directory < 0 ? fail_errno(-errno, "%s: cannot open the volume", path) : 0;
    if (r == 0)
        r = volume_description_read(volume->directory, path, VOLUME_DESCRIPTION, &volume->description);
    if (r == 0)
        r = volume_check_registered(store, path, volume->directory, read_only, &volume->description);
    if (r == 0)
        r = store_lease_manifest(store, &volume->description.manifest, &volume->lease);
    if (r == 0)
        r = manifest_load(store, &volume->description.manifest, &volume->manifest);
    if (r == 0)
        r = open_files(volume, path, read_only);
    if (r == 0 && !read_only && !volume->name_durable)
        r = volume_open_name_fds(store, volume->directory, &volume->description, volume->name_fds);
    if (r < 0) {
        volume_close(volume);
        return r;
    }
    if (read_only)
        cleanup_fd(&volume->directory);
    *ret_volume = volume;
    return 0;
}

int volume_open_image(struct store *store, const char *image, const char *scratch, struct volume **ret_volume)
{
    struct volume *volume;
    int r = volume_new(store, &volume);
    if (r < 0)
        return r;
    struct volume_description *description = &volume->description;
    r = store_lease_name(store, image, &description->manifest, &volume->lease);
    if (r == 0)
        r = manifest_load(store, &description->manifest, &volume->manifest);
    if (r == 0) {
        description->bytes = volume->manifest->image_bytes;
        object_id_text(&description->manifest, description->id); /* its first 32 digits */
        description->id[32] = '\0';
        r = make_bits(volume);
    }
    if (r == 0 && scratch) {
        volume->delta = open(scratch, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (volume->delta < 0 || ftruncate(volume->delta, (off_t)(volume->pages * STORE_PAGE)) < 0)
            r = fail_errno(-errno, "%s: cannot make a file for what the disk's guest writes", scratch);
    }
    if (r < 0) {
        volume_close(volume);
        return r;
    }
    volume->name_durable = true; /* nothing of it is meant to last */
    *ret_volume = volume;
    return 0;
}

static void close_name_fds(struct volume *volume)
{
    for (unsigned i = 0; i < VOLUME_NAME_FDS; i++)
        cleanup_fd(&volume->name_fds[i]);
}

void volume_close(struct volume *volume)
{
    if (!volume)
        return;
    cleanup_fd(&volume->directory);
    cleanup_fd(&volume->delta);
    cleanup_fd(&volume->map);
    close_name_fds(volume);
    if (volume->bits)
        munmap(volume->bits, volume->bits_length);
    free(volume->dirty);
    manifest_free(volume->manifest);
    store_lease_end(volume->lease);
    free(volume);
}

uint64_t volume_bytes(const struct volume *volume)
{
    return volume->description.bytes;
}

bool volume_writable(const struct volume *volume)
{
    return volume->delta >= 0 && (volume->directory >= 0 || volume->map < 0);
}

int volume_copy_delta(const struct volume *volume, int fd)
{
    int r = file_copy_sparse(volume->delta, fd, volume->pages * STORE_PAGE);
    return r < 0 ? fail_errno(r, "copying what was written to a disk") : 0;
}

void volume_copied(struct volume *volume, int fd)
{
    for (size_t i = 0; i < ARRAY_SIZE(volume->name_fds); i++)
        cleanup_fd(&volume->name_fds[i]);
    volume->name_durable = true;
    cleanup_fd(&volume->directory);
    cleanup_fd(&volume->map);
    cleanup_fd(&volume->delta);
    volume->delta = fd;
}

void volume_each_fd(const struct volume *volume, void (*told)(void *context, int fd), void *context)
{
    told(context, volume->lease ? volume->lease->fd : -1);
    told(context, volume->directory);
    told(context, volume->delta);
    told(context, volume->map);
    for (size_t i = 0; i < ARRAY_SIZE(volume->name_fds); i++)
        told(context, volume->name_fds[i]);
}

const char *volume_id(const struct volume *volume)
{
    return volume->description.id;
}

const struct manifest *volume_manifest(const struct volume *volume)
{
    return volume->manifest;
}

int volume_delta(const struct volume *volume)
{
    return volume->delta;
}

int volume_map(const struct volume *volume)
{
    return volume->map;
}

/* The first page from `page` on, below `end`, whose bit is `set`; or `end`. */
static uint64_t find_bit(const struct volume *volume, uint64_t page, uint64_t end, bool set)
{
    uint8_t skip = set ? 0 : 0xff;
    while (page < end) {
        if (page % 8 == 0 && volume->bits[page / 8] == skip)
            page += 8;
        else if ((volume->bits[page / 8] >> (page % 8) & 1) == set)
            return page;
        else
            page++;
    }
    return end;
}

struct volume_run volume_lookup(const struct volume *volume, uint64_t page, uint64_t limit)
{
    CHECK(page < volume->pages && limit > 0);
    uint64_t end = page + MIN(limit, volume->pages - page);
    if (volume->bits[page / 8] >> (page % 8) & 1)
        return (struct volume_run){.place = VOLUME_DELTA, .pages = find_bit(volume, page, end, false) - page};
    struct manifest_run run = {.pages = end - page, .zero = true};
    if (page < volume->manifest->image_pages)
        run = manifest_lookup(volume->manifest, page);
    end = find_bit(volume, page, MIN(page + run.pages, end), true);
    return (struct volume_run){.place = run.zero ? VOLUME_ZERO : VOLUME_OBJECT,
                               .pages = end - page,
                               .object = run.object,
                               .object_page = run.object_page};
}

static void set_bits(struct volume *volume, uint64_t page, uint64_t end)
{
    for (; page < end && page % 8; page++)
        volume->bits[page / 8] |= (uint8_t)(1u << (page % 8));
    if (page < end)
        memset(volume->bits + page / 8, 0xff, (size_t)((end - page) / 8));
    for (page = MAX(page, end - end % 8); page < end; page++)
        volume->bits[page / 8] |= (uint8_t)(1u << (page % 8));
}

void volume_mark(struct volume *volume, uint64_t first_page, uint64_t pages)
{
    CHECK(first_page <= volume->pages && pages <= volume->pages - first_page);
    uint64_t end = first_page + pages;
    for (uint64_t page = first_page, stop; page < end; page = stop) {
        uint64_t block = page / BLOCK_PAGES;
        stop = MIN(end, (block + 1) * BLOCK_PAGES);
        uint64_t from = find_bit(volume, page, stop, false);
        if (from == stop)
            continue; /* in the delta already: the map need not be written again */
        set_bits(volume, from, stop);
        volume->dirty[block / 64] |= UINT64_C(1) << (block % 64);
    }
}

/* The page that says that all else is durable; goes to disk with the blocks, after all else. */
static void header_block(const struct volume *volume, struct volume_block *block)
{
    block->offset = 0;
    volume_map_header(&volume->description, true, block->bytes);
}

int volume_checkpoint_begin(struct volume *volume, struct volume_checkpoint *ret_checkpoint)
{
    struct volume_checkpoint checkpoint = {.count = volume->name_durable ? 0 : 1,
                                           .name_fds = volume->name_fds};
    for (uint64_t word = 0; volume->map >= 0 && word < (block_count(volume) + 63) / 64; word++)
        checkpoint.count += (size_t)__builtin_popcountll(volume->dirty[word]);
    if (checkpoint.count > 0) {
        checkpoint.blocks = malloc(checkpoint.count * sizeof(*checkpoint.blocks));
        if (!checkpoint.blocks)
            return fail(-ENOMEM, "no memory to flush a volume's map");
    }
    size_t filled = 0;
    if (!volume->name_durable && checkpoint.blocks) {
        checkpoint.name_fd_count = VOLUME_NAME_FDS;
        header_block(volume, &checkpoint.blocks[filled++]);
    }
    for (uint64_t number = 0; filled < checkpoint.count; number++) {
        uint64_t mask = UINT64_C(1) << (number % 64);
        if (!(volume->dirty[number / 64] & mask))
            continue;
        struct volume_block *block = &checkpoint.blocks[filled++];
        block->offset = STORE_PAGE + number * STORE_PAGE;
        memcpy(block->bytes, volume->bits + number * STORE_PAGE, STORE_PAGE);
        volume->dirty[number / 64] &= ~mask;
    }
    *ret_checkpoint = checkpoint;
    return 0;
}

void volume_checkpoint_end(struct volume *volume, struct volume_checkpoint *checkpoint, bool durable)
{
    for (size_t i = 0; i < checkpoint->count && !durable; i++) {
        uint64_t number = checkpoint->blocks[i].offset / STORE_PAGE; /* 0 is the header */
        if (number > 0)
            volume->dirty[(number - 1) / 64] |= UINT64_C(1) << ((number - 1) % 64);
    }
    if (durable && checkpoint->name_fd_count > 0) {
        volume->name_durable = true;
        close_name_fds(volume);
    }
    free(checkpoint->blocks);
    *checkpoint = (struct volume_checkpoint){0};
}

bool volume_unsaved(const struct volume *volume)
{
    for (uint64_t word = 0; volume->map >= 0 && word < (block_count(volume) + 63) / 64; word++)
        if (volume->dirty[word])
            return true;
    return false;
}

int volume_flush(struct volume *volume)
{
    struct volume_checkpoint checkpoint;
    int r = volume_checkpoint_begin(volume, &checkpoint);
    if (r < 0)
        return r;
    r = sys_fdatasync(volume->delta);
    for (unsigned i = 0; r == 0 && i < checkpoint.name_fd_count; i++)
        r = sys_fdatasync(checkpoint.name_fds[i]);
    for (size_t i = 0; r == 0 && i < checkpoint.count; i++)
        r = sys_write(volume->map, checkpoint.blocks[i].bytes, STORE_PAGE, checkpoint.blocks[i].offset);
    if (r == 0 && checkpoint.count > 0)
        r = sys_fdatasync(volume->map);
    volume_checkpoint_end(volume, &checkpoint, r == 0);
    return r < 0 ? fail_errno(r, "a volume cannot be flushed") : 0;
}

static int read_object(struct volume *volume, const struct volume_run *run, void *buffer, unsigned pages)
{
    CLEANUP_FREE void *whole = malloc(STORE_OBJECT_BYTES);
    if (!whole)
        return fail(-ENOMEM, "no memory to read an object");
    return object_read_verified(volume->store, volume->manifest, run->object, run->object_page, pages, whole,
                                buffer);
}

int volume_read(struct volume *volume, void *buffer, uint64_t first_page, unsigned pages)
{
    uint8_t *at = buffer;
    while (pages > 0) {
        struct volume_run run = volume_lookup(volume, first_page, pages);
        unsigned count = (unsigned)MIN(run.pages, (uint64_t)pages);
        size_t length = (size_t)count * STORE_PAGE;
        int r = 0;
        if (run.place == VOLUME_ZERO)
            memset(at, 0, length);
        else if (run.place == VOLUME_OBJECT)
            r = read_object(volume, &run, at, count);
        else if ((r = read_full_at(volume->delta, at, length, first_page * STORE_PAGE)) < 0)
            fail_errno(r, "a volume's delta cannot be read");
        if (r < 0)
            return r;
        at += length;
        first_page += count;
        pages -= count;
    }
    return 0;
}

int volume_write(struct volume *volume, const void *buffer, uint64_t first_page, unsigned pages)
{
    int r = sys_write(volume->delta, buffer, (size_t)pages * STORE_PAGE, first_page * STORE_PAGE);
    if (r < 0)
        return fail_errno(r, "a volume's delta cannot be written");
    volume_mark(volume, first_page, pages);
    return 0;
}
