/* One region of an image on its way into the store: which of its pages are zeros, known, new. Private to
 * ingest. */
#pragma once

#include "store/ingest.h"
#include "store/pageindex.h"

enum piece_kind {
    PIECE_NEW,  /* of the region's new pages, from `at` on */
    PIECE_BASE, /* of object `object` of base `base`, from its page `at` on */
};

struct piece {
    enum piece_kind kind;
    uint16_t page, pages; /* in the region */
    uint16_t at;
    uint16_t base;
    uint32_t object;
};

struct region_plan {
    uint64_t first_page;
    unsigned piece_count;
    unsigned new_pages;
    bool own; /* the new pages are an object of their own, named `id` */
    struct object_id id;
    uint8_t *rest; /* else a copy of them, malloc()ed */
    struct piece pieces[REGION_PAGES];
};

#define SOURCE_FILES 32

/* What one thread keeps to read bases with. */
struct region_reader {
    struct store *store;
    struct store_writer *writer;
    const struct ingest_options *options;
    struct page_index *index;
    bool index_ready;
    struct {
        int fd;
        uint32_t object;
        unsigned base;
    } files[SOURCE_FILES];
    uint8_t *base_region; /* what the bases have at the region's own place, base after base in turn */
    uint64_t base_valid[REGION_WORDS];
    uint8_t *run; /* pages of an object read ahead, as pages that are found tend to follow each other */
    struct page_place run_place;
    unsigned run_pages;
    struct ingest_report report;
};

int region_reader_init(struct region_reader *reader, struct store *store, struct store_writer *writer,
                       const struct ingest_options *options, struct page_index *index);
void region_reader_free(struct region_reader *reader);

/*
 * Sorts the `pages` pages at `data`, of which `map` tells what is known, into `plan`, and moves the new ones
 * together at the front of `data`.
 */
int region_plan(struct region_reader *reader, uint8_t *data, uint64_t first_page, unsigned pages,
                const struct region_map *map, struct region_plan *plan);
