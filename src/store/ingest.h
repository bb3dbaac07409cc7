/*
 * Ingest: an image, or what changed of one, becomes objects and a manifest. Every core reads (io_uring),
 * looks at, hashes and writes regions of 2 MiB; the results are put together in the order of the image, so
 * that the same input on the same bases gives the same manifest, whatever the number of threads.
 *
 * In a region, a page of zeros is left out. A page that a base has (at the same place; else anywhere, by the
 * page index) is pointed at; both are compared byte for byte, no hash is trusted. What is new is packed: as
 * an object of its own if it is half a region or more, else together with the new pages of the regions before
 * and after. A region that would come to more extents than the budget is written out whole instead, with the
 * zeros between its pages.
 */
#pragma once

#include "store/writer.h"

#define REGION_PAGES STORE_OBJECT_PAGES
#define REGION_WORDS (REGION_PAGES / 64)

/* What is known of a region's pages before they are read, a bit each. A page in neither is zeros. */
struct region_map {
    uint64_t read[REGION_WORDS]; /* to be read from the source and looked at */
    uint64_t keep[REGION_WORDS]; /* the same as in the first base */
};
static inline void region_bit_set(uint64_t *bits, unsigned page)
{
    bits[page / 64] |= UINT64_C(1) << (page % 64);
}

struct ingest_source {
    const char *name; /* for messages */
    uint64_t bytes;   /* of the image */
    int fd;           /* page n lies at n * 4096 */
    /* Fills a zeroed map of the region that begins at `first_page`. Required. Any thread. */
    int (*survey)(const struct ingest_source *source, uint64_t first_page, struct region_map *map);
    const void *opaque;
};

/* A survey that asks the file system for the source's holes. */
int ingest_survey_holes(const struct ingest_source *source, uint64_t first_page, struct region_map *map);

#define INGEST_BUDGET                                                                                        \
    128 /* extents to a region: 16 KiB each on average; bench/store shows what it costs and gives */

struct ingest_options {
    const struct manifest *const *bases; /* the nearest first */
    unsigned base_count;
    unsigned threads;   /* 0: one per core */
    unsigned budget;    /* 0: INGEST_BUDGET */
    bool in_place_only; /* look for a page at its own place only, not all over the bases */
    void (*progress)(void *opaque, uint64_t done_bytes,
                     uint64_t total_bytes); /* some times a second; may be NULL */
    void *opaque;
};

struct ingest_report {
    uint64_t bytes_read;
    uint64_t pages_zero, pages_known, pages_new; /* of those not left out by the survey */
    uint64_t regions_over_budget;
};

/* Nothing is published but objects: the manifest is the caller's, to give to writer_publish() and to free. */
int ingest(struct store_writer *writer, struct store *store, const struct ingest_source *source,
           const struct ingest_options *options, struct manifest **ret_manifest,
           struct ingest_report *ret_report);
