/*
 * A volume: a writable disk that stands on a manifest. A directory of three files:
 *
 *   volume.json   {"format": "stellarium-volume", "version": 1, "id": ..., "manifest": ..., "bytes": ...}
 *   delta         sparse, as long as the disk: page n lies at n * 4096. Only pages whose bit is set in the
 *                 map count
 *   map           a header page, then a bit for each page of the disk, least significant bit first:
 *                 set, the page is read from the delta (a hole there is zeros: a discard leaves one);
 *                 clear, the page is read from the manifest
 *
 *      map header    0   8  magic "STELVMAP"
 *                    8   4  version, 1
 *                   12   4  1 once the volume's directory and registration are durable
 *                   16   8  bytes of the disk
 *                   24  32  the manifest it stands on
 *                   56  32  the volume's id, hexadecimal
 *                   88      zeros up to 4096
 *
 * A hole of the delta cannot itself mean "read the base": discarded pages are holes too, and file systems
 * and copying tools treat holes differently. The map has one bit a page: 32 KiB for a GiB of disk, and it is
 * sparse itself.
 *
 * Durability. A write goes to the delta, and when it is done its bits are set in memory. A flush makes the
 * delta durable, then writes the map blocks that changed, then makes those durable: a bit on disk never comes
 * before its page. A crash in between leaves each page either as of the last flush or newer, never other
 * bytes. A page that is in the delta already costs a flush nothing but the delta's own.
 *
 * A volume is registered in the store under its id, with its manifest, its path and the device and inode of
 * its directory. gc keeps what a registered volume stands on wherever that lies, and cannot tell one that
 * was deleted by hand from one that is not mounted. Moved within its file system, a volume is known again
 * by its inode. A copy is refused (-ESTALE) until it was adopted: with the original's id, its removal would
 * take the original's registration. A volume is open for writing once at a time (flock on the map).
 *
 * Threads: one thread at a time. Errors as in store.h.
 */
#pragma once

#include "store/manifest.h"

struct volume;

/* Makes the volume `path`, a directory that must not exist, on what `image` is now. `bytes` 0: the image's
 * size; more: the rest is zeros. Costs the same for any image, waits for no disk: durable with its first
 * flush. */
int volume_create(struct store *store, const char *image, uint64_t bytes, const char *path);

/* Opens a volume, holding it against other writers (-EBUSY), and takes a lease on what it stands on. */
int volume_open(struct store *store, const char *path, bool read_only, struct volume **ret_volume);

/* An image as a disk without a directory: read-only, or (`scratch`, a directory for one unnamed file)
 * writable until it is closed. */
int volume_open_image(struct store *store, const char *image, const char *scratch,
                      struct volume **ret_volume);

/* Unflushed writes are in the delta, but not in the map: flush first. */
void volume_close(struct volume *volume);

/* Deletes a closed volume: its files and its registration. After a failure it can be repeated. A copy's
 * removal leaves the original's registration; a path whose volume was deleted by hand loses its
 * registration. What it shares with images stays until gc. */
int volume_remove(struct store *store, const char *path);

/* What `stellarium ls` says of a registered volume. */
enum volume_state {
    VOLUME_READY,
    VOLUME_IN_USE,       /* open for writing */
    VOLUME_MISSING,      /* nothing is at its path: moved, not mounted, or deleted by hand */
    VOLUME_REPLACED,     /* another directory is at its path, or another volume in its directory */
    VOLUME_DAMAGED,      /* a file of it is missing or wrong, or the registration is */
    VOLUME_HALF_MADE,    /* by a clone that was interrupted; gc removes it */
    VOLUME_HALF_REMOVED, /* by a removal that was interrupted; another one, or gc, goes on */
};
struct volume_listed {
    char id[33]; /* 32 hexadecimal digits */
    struct object_id manifest;
    char path[4096]; /* "" if the registration is damaged */
    enum volume_state state;
    uint64_t bytes_written; /* blocks of the delta */
};

/* Calls `visit` with each registered volume, until one call does not return 0, which is returned. A file
 * that is no registration is warned of. */
int store_each_volume(struct store *store, int (*visit)(void *opaque, const struct volume_listed *volume),
                      void *opaque);

/* The whole id of the one volume whose id begins with `prefix`, of 8 digits or more. */
int volume_find(struct store *store, const char *prefix, char ret_id[33]);

/* Removes the volume `id` if it is at its path, and its registration. */
int volume_forget(struct store *store, const char *id);

/* Registers a volume that was copied, or moved from another file system, or restored, as one of its own
 * with a new id; one that is registered, at the path where it is now. Verifies that the store has what it
 * stands on. May be repeated after a failure. */
int volume_adopt(struct store *store, const char *path, char ret_id[33]);

uint64_t volume_bytes(const struct volume *volume);
bool volume_writable(const struct volume *volume);
/*
 * A copy of a writable volume, on the same manifest. volume_copy_delta() writes what was written to it so
 * far into `fd`, an empty file: shared where the file system can do that, else copied. volume_copied(), in a
 * child of fork(2), has it live in that file from now on, which it owns: what the child writes is lost at its
 * end, like that of an image with scratch. Negative errno with a message.
 */
int volume_copy_delta(const struct volume *volume, int fd);
void volume_copied(struct volume *volume, int fd);

/* Tells of each descriptor that it keeps open. */
void volume_each_fd(const struct volume *volume, void (*told)(void *context, int fd), void *context);
const char *volume_id(const struct volume *volume); /* 32 hexadecimal digits */
const struct manifest *volume_manifest(const struct volume *volume);
int volume_delta(const struct volume *volume); /* a descriptor, -1 if read-only */

/* Where a stretch of pages is, from the one asked for on; of at most `limit` pages. */
enum volume_place { VOLUME_ZERO, VOLUME_DELTA, VOLUME_OBJECT };
struct volume_run {
    enum volume_place place;
    uint64_t pages;
    uint32_t object, object_page; /* of volume_manifest(), if VOLUME_OBJECT */
};
struct volume_run volume_lookup(const struct volume *volume, uint64_t page, uint64_t limit);

/* These pages are now in the delta: written there whole, or punched out of it. */
void volume_mark(struct volume *volume, uint64_t first_page, uint64_t pages);

/*
 * A flush in steps, for callers that must not wait. One at a time:
 *   1 volume_checkpoint_begin(): what the map must say once all writes that are done by now are durable
 *   2 fdatasync() of volume_delta() and of each of `name_fds`: until a volume's first flush is over, the
 *     durability of its name, in its directory and in the store, depends on those
 *   3 if there are blocks: write each to volume_map() at its offset, then fdatasync() the map
 *   4 volume_checkpoint_end(), telling whether all went well; if not, the blocks stay due
 */
#define VOLUME_NAME_FDS 5
struct volume_block {
    uint64_t offset;
    uint8_t bytes[STORE_PAGE];
};
struct volume_checkpoint {
    struct volume_block *blocks;
    size_t count;
    const int *name_fds;
    unsigned name_fd_count;
};
int volume_checkpoint_begin(struct volume *volume, struct volume_checkpoint *ret_checkpoint);
void volume_checkpoint_end(struct volume *volume, struct volume_checkpoint *checkpoint, bool durable);
int volume_map(const struct volume *volume); /* -1: a scratch disk, of which nothing is to be durable */

/* Whether pages were marked since the last checkpoint: a volume that is closed so loses them. */
bool volume_unsaved(const struct volume *volume);

/* All four steps, waiting. */
int volume_flush(struct volume *volume);

/* Reads and writes whole pages, waiting; objects are hashed on first use. For tools and tests. */
int volume_read(struct volume *volume, void *buffer, uint64_t first_page, unsigned pages);
int volume_write(struct volume *volume, const void *buffer, uint64_t first_page, unsigned pages);

/* Publishes the volume, as it is now, as the image `name`; hashes only what its map has. -EBUSY while it is
 * in use. */
struct ingest_report;
int volume_commit(struct store *store, const char *path, const char *name, struct ingest_report *ret_report);
