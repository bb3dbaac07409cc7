/*
 * Stellarium: a content-addressable store of disk images (and of whatever else is pages).
 *
 *   STORE/
 *     format            one line: "stellarium 1 sha256 2097152"
 *     epoch             a number; each gc adds one to it
 *     objects/ab/cd...  an object: 1 to 512 pages of 4 KiB, raw, named by the SHA-256 of its bytes
 *     manifests/ab/...  a manifest (manifest.h), named by the SHA-256 of its bytes
 *     refs/NAME         one line: the name of a manifest. The roots of gc
 *     volumes/ID        a registered volume (volume.h): its manifest and where it lies
 *     leases/ID         a live writer and its epoch: flock()ed as long as the process lives
 *     tmp/ID.N          what a lease's process is writing; swept when that lease is dead
 *     cache/            page indexes and source identities: may be thrown away at any time
 *     lock              flock()ed: shared to add a root or a lease, exclusive for gc to read all of them
 *
 * Publish order. A crash between any two of these steps leaves files that nothing refers to:
 *   1 objects are written under tmp/, and one syncfs() makes the batch durable
 *   2 they are renamed to their names, without replacing
 *   3 a second syncfs() makes their names and the manifest's bytes durable
 *   4 the manifest is renamed, and its directory synced
 *   5 the ref is written, synced and renamed, and its directory synced
 *
 * Epoch and touch. Files here need no modification time, so it carries a stamp. Its seconds are the epoch of
 * the last writer that counted on the file. Its nanoseconds are a tag of the boot in which the file's bytes
 * were last seen to match its name. Whatever writes to the file replaces the stamp by a real time, which
 * never counts as verified. A writer stamps what it finds already stored, under flock() of the shard
 * directory. gc begins a new epoch, reads the roots, and deletes what is neither reachable from them nor
 * stamped in or after the epoch of the oldest live writer.
 *
 * Threads: a store may be used by many threads at once, and by many processes. Functions return 0 or a
 * negative errno with a message in fail_text():
 *
 *   -ENOENT   no such store, name or volume
 *   -ENODATA  an object or manifest is missing
 *   -EBADMSG  bytes do not match their name, or a field of a file is impossible
 *   -EPROTO   another format or version than this program's
 *   -EBUSY    in use by another process
 *   -EEXIST   the name is taken
 *   -EINVAL   a bad argument
 *   -ESTALE   a copy of a volume, or one that came from another file system
 *   others    what the system said (ENOSPC, EROFS, EIO, ...)
 */
#pragma once

#include "base/base.h"

#define STORE_PAGE         4096u
#define STORE_OBJECT_PAGES 512u
#define STORE_OBJECT_BYTES (STORE_OBJECT_PAGES * STORE_PAGE) /* 2 MiB: one huge page, one read, one hash */

#define OBJECT_ID_BYTES 32
#define OBJECT_ID_TEXT  (2 * OBJECT_ID_BYTES + 1)
#define STORE_NAME_MAX  128 /* bytes of a ref's name, with the final 0 */

struct object_id {
    uint8_t bytes[OBJECT_ID_BYTES];
};

struct store;
struct manifest;

/* Makes an empty store at `path`, which must not exist or be an empty directory. */
int store_init(const char *path);

/* Opens the store at `path`. Costs a dozen system calls whatever the store holds. Works on a read-only file
 * system. The caller closes it. */
int store_open(const char *path, struct store **ret_store);
void store_close(struct store *store);

/* Tells of each descriptor that it keeps open. */
void store_each_fd(const struct store *store, void (*told)(void *context, int fd), void *context);
const char *store_path(const struct store *store);

/* Where a message goes about a file that does not belong into the store and was passed over. NULL:
 * nowhere. */
void store_on_warning(struct store *store, void (*warn)(void *opaque, const char *message), void *opaque);

/* SHA-256, by libcrypto. */
void object_hash(const void *bytes, size_t length, struct object_id *ret_id);
char *object_id_text(const struct object_id *id, char text[OBJECT_ID_TEXT]);
int object_id_parse(const char *text, struct object_id *ret_id);
bool object_id_equal(const struct object_id *a, const struct object_id *b);

/*
 * Opens an object of `pages` pages for reading. *ret_verified tells whether its bytes have been seen to match
 * its name in this boot. If not, object_verify() must return 0 before any byte of it is handed out.
 */
int object_open(struct store *store, const struct object_id *id, unsigned pages, int *ret_fd,
                bool *ret_verified);

/* Reads all of an open object and compares it with its name: 0 or -EBADMSG. `buffer` has STORE_OBJECT_BYTES
 * and holds the object afterwards. Success is remembered until the next boot, if the file system can be
 * written. Any thread. */
int object_verify(struct store *store, const struct object_id *id, unsigned pages, int fd, void *buffer);

/* The same in pieces, for a caller that must not hash 2 MiB in one go: begin, update with all bytes in order,
 * end. object_mark_verified() then remembers the answer; it never waits. */
struct object_hasher;
int object_hasher_begin(struct object_hasher **ret_hasher);
void object_hasher_update(struct object_hasher *hasher, const void *bytes, size_t length);
void object_hasher_end(struct object_hasher *hasher, struct object_id *ret_id); /* frees it */
void object_mark_verified(struct store *store, const struct object_id *id, bool good);

/* Names. A name is 1 to 127 of [A-Za-z0-9._:+@-], and does not begin with a dot or a dash. */
int ref_check_name(const char *name);
int ref_read(struct store *store, const char *name, struct object_id *ret_manifest);
int ref_remove(struct store *store, const char *name);

struct ref {
    char name[STORE_NAME_MAX];
    struct object_id manifest;
    int64_t created; /* seconds since 1970 */
    bool damaged;    /* a file under a good name, which does not say a manifest */
    bool has_length; /* and is as long as if it did */
};

/* All refs in the order of their names. A file that is none is warned of. *ret_refs is the caller's to
 * free(). */
int ref_list(struct store *store, struct ref **ret_refs, size_t *ret_count);

/*
 * A lease: while it is held, gc deletes nothing that `manifest` reaches. It is a shared flock() on the
 * manifest's file, so it needs no right to write, and the kernel ends it with the process. -ENODATA without
 * that manifest.
 */
struct store_lease;
int store_lease_manifest(struct store *store, const struct object_id *manifest,
                         struct store_lease **ret_lease);

/* The same for the manifest that `name` stands for at this moment: reading the name and leasing are one
 * step. */
int store_lease_name(struct store *store, const char *name, struct object_id *ret_manifest,
                     struct store_lease **ret_lease);
void store_lease_end(struct store_lease *lease);

struct gc_report {
    uint64_t objects_kept, objects_deleted, bytes_deleted, manifests_deleted;
    uint64_t leftovers_deleted; /* files of commands that were killed */
    uint64_t volumes_missing;   /* registered, not at their path, and keeping what they need */
};

/* Deletes what nothing needs. One at a time (-EBUSY); everything else may go on meanwhile. While a
 * file under refs/ or volumes/ cannot be read, nothing is known to be garbage: it warns and deletes no
 * object. Without a manifest that is needed it fails. */
int store_gc(struct store *store, bool dry_run, struct gc_report *ret_report);
