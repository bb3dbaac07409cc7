/*
 * Where the bases of an ingest have a page with a given content. A hint, by a fast hash of 64 bits: the
 * caller compares the bytes. All threads that ask make it, at the first question. STORE/cache keeps the
 * hashes, 8 bytes for each page of each object of a manifest, in the manifest's order. Where they are
 * missing they are made again.
 */
#pragma once

#include "store/manifest.h"

struct page_index;

struct page_place {
    uint32_t object; /* in the manifest of `base` */
    uint16_t page;
    uint16_t base;
};

int page_index_new(struct store *store, const struct manifest *const *bases, unsigned count,
                   struct page_index **ret_index);
void page_index_free(struct page_index *index);

/* Makes the index unless it is made. Any number of threads; all return when it is done. Objects that cannot
 * be read are left out: their pages are not found. */
int page_index_need(struct page_index *index);

/* XXH3 with the store's seed. After page_index_need(). */
uint64_t page_hash(const struct page_index *index, const void *page);
bool page_index_find(const struct page_index *index, uint64_t hash, struct page_place *ret_place);
