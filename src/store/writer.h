/*
 * A writer puts objects, one manifest and its name into the store, in the order that store.h gives. Its lease
 * carries an epoch: until it ends, gc deletes nothing that it has found or put.
 *
 * begin, has, create and stage may be called from many threads; publish and end from one, when no other is at
 * it.
 */
#pragma once

#include "store/manifest.h"

struct store_writer;

int writer_begin(struct store *store, struct store_writer **ret_writer);

/* Gives up the lease and removes what was staged and not published. If objects were published and no
 * manifest, gc takes them back. The last message stays. */
void writer_end(struct store_writer *writer);

/*
 * Whether the store holds this object, whole, so that it need not be written and may be pointed at. One that
 * this boot has not verified is hashed first; a corrupt one is replaced by the next writer_stage() of its
 * id.
 */
int writer_has(struct store_writer *writer, const struct object_id *id, unsigned pages, bool *ret_has);

/* Counts on a manifest that is there, and on its objects: gc keeps them as long as the writer lives.
 * -ENODATA if one is missing, -EBADMSG if one is corrupt. */
int writer_hold(struct store_writer *writer, const struct manifest *manifest);

/* An empty file for one object. With `direct`, it is written past the page cache where that is possible. */
struct staged_file {
    char name[64];
    int fd;
};
int writer_create(struct store_writer *writer, bool direct, struct staged_file *ret_file);

/* Removes a file that was not handed over. */
void writer_drop(struct store_writer *writer, struct staged_file *file);

/* Hands over a file that holds the object's bytes, all written. Some calls wait for the disk: a batch is made
 * durable and published by the thread that fills it. `file` is done with, also on failure. */
int writer_stage(struct store_writer *writer, const struct object_id *id, struct staged_file *file);

/* Publishes what is staged, the manifest, and then `name` for it. */
int writer_publish(struct store_writer *writer, const struct manifest *manifest, const char *name);

struct writer_report {
    uint64_t objects_new, bytes_new; /* written by this writer */
};
struct writer_report writer_report(const struct store_writer *writer);
