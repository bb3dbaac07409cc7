/* Puts the plans of regions together in the order of the image, and packs small ones' new pages. Private to
 * ingest. */
#pragma once

#include "store/region.h"

struct assembly;

int assembly_new(struct store_writer *writer, const struct ingest_options *options, uint64_t image_bytes,
                 struct assembly **ret_assembly);
void assembly_free(struct assembly *assembly);

/*
 * The number of the next region to work on, in order, each once: 1 and *ret_region; 0 when there are none
 * left, or after a failure. If too many regions wait for a slower one before them: with `wait` until that has
 * changed; without, -EAGAIN, for a caller that has regions to go on with itself (the slow one may be among
 * them).
 */
int assembly_next(struct assembly *assembly, bool wait, uint64_t *ret_region);

/* Hands over the finished plan of a region (malloc()ed). Writes packs that it completes. */
int assembly_put(struct assembly *assembly, uint64_t region, struct region_plan *plan);

/* Ends the work early, for all threads. The first failure's message is kept. */
void assembly_fail(struct assembly *assembly, int negative_errno);

/* What went wrong, with a message, or 0. And how far the image is done, in regions. */
int assembly_result(struct assembly *assembly);
uint64_t assembly_done(struct assembly *assembly);

/* After every region has been put: writes the last pack and makes the manifest. */
int assembly_finish(struct assembly *assembly, struct manifest **ret_manifest);

/* Writes one object of the store from `data` (aligned to a page) unless it is there. Waits for the disk. */
int write_object(struct store_writer *writer, const struct object_id *id, const void *data, unsigned pages);
