/*
 * A snapshot in the store: an image like any other, so that pages are shared, and it is copied, listed and
 * collected as images are.
 *
 *   image    the guest's memory | the state, as in its file | zeros up to a page | one page: struct
 *            snapshot_trailer
 *
 * Going on from one maps the objects that its memory is made of.
 */
#pragma once

#include "snapshot.h"

struct guest_mem;
struct store;

/* "cas:NAME". */
bool snapshot_is_stored(const char *name);

/*
 * Opens what `name` is: a folder, or cas:NAME in the store at `store_path` (NULL: $STELLARIUM_STORE). A
 * stored one is leased until snapshot_close(), or to the end of the process. Errors as snapshot_open() and
 * those of the store, with a message.
 */
int snapshot_open_any(const char *name, const char *store_path, struct snapshot *ret_snapshot);

/* The guest's memory: mapped, where that is possible. Negative errno with a message. */
int snapshot_map_memory(struct snapshot *snapshot, enum guest_pages pages, struct guest_mem *ret_mem);

/* The same memory as it was after snapshot_map_memory(). No vCPU runs. After a failure it is of no use. */
int snapshot_revert_memory(struct snapshot *snapshot, struct guest_mem *mem);

/*
 * Stores what is in two files under `name` (without "cas:"), replacing what had it. `memory_fd` is changed on
 * the way. Pages that the store has are shared if they are those of an earlier snapshot that the state names,
 * or of `name`. `progress` as for ingest(). Any thread. Negative errno with a message.
 */
int snapshot_store(struct store *store, const char *name, int state_fd, int memory_fd,
                   void (*progress)(void *opaque, uint64_t done_bytes, uint64_t total_bytes), void *opaque,
                   uint64_t *ret_stored_bytes);
