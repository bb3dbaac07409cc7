#include "store/region.h"
#include "store/private.h"

#include <string.h>

/* In a region that is written out whole, a gap of fewer zero pages than this is stored: 64 KiB. */
#define WHOLE_GAP 16u

/* What is read ahead of a page that was found: 128 KiB. */
#define RUN_PAGES 32u

static bool bit(const uint64_t *bits, unsigned index)
{
    return bits[index / 64] >> (index % 64) & 1;
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, STORE_PAGE - 1) == 0;
}

int region_reader_init(struct region_reader *reader, struct store *store, struct store_writer *writer,
                       const struct ingest_options *options, struct page_index *index)
{
    *reader = (struct region_reader){.store = store, .writer = writer, .options = options, .index = index};
    for (unsigned i = 0; i < SOURCE_FILES; i++)
        reader->files[i].fd = -1;
    reader->base_region = malloc(STORE_OBJECT_BYTES);
    reader->run = malloc(RUN_PAGES * STORE_PAGE);
    if (!reader->base_region || !reader->run) {
        region_reader_free(reader);
        return fail(-ENOMEM, "no memory to read the bases");
    }
    return 0;
}

void region_reader_free(struct region_reader *reader)
{
    for (unsigned i = 0; i < SOURCE_FILES; i++)
        cleanup_fd(&reader->files[i].fd);
    free(reader->base_region);
    free(reader->run);
}

/*
 * A descriptor of a base's object, which stays the reader's; -1 if it is not to be had (deleted by gc,
 * damaged): its pages then count as new. The writer holds the object from here on, so what is found in it may
 * be pointed at.
 */
static int source_file(struct region_reader *reader, unsigned base, uint32_t object)
{
    unsigned slot = (object + base * 7) % SOURCE_FILES;
    if (reader->files[slot].fd >= 0 && reader->files[slot].object == object &&
        reader->files[slot].base == base)
        return reader->files[slot].fd;
    struct object_id id;
    unsigned pages;
    bool has = false, verified;
    int fd = -1;
    manifest_object(reader->options->bases[base], object, &id, &pages);
    if (writer_has(reader->writer, &id, pages, &has) < 0 || !has ||
        object_open(reader->store, &id, pages, &fd, &verified) < 0)
        return -1;
    cleanup_fd(&reader->files[slot].fd);
    reader->files[slot].fd = fd;
    reader->files[slot].object = object;
    reader->files[slot].base = base;
    return fd;
}

/* Fills base_region with what base `number` has of the wanted pages, and base_valid with which pages it
 * could read. */
static void load_in_place(struct region_reader *reader, unsigned number, uint64_t first_page, unsigned pages,
                          const uint64_t *wanted)
{
    const struct manifest *base = reader->options->bases[number];
    memset(reader->base_valid, 0, sizeof(reader->base_valid));
    for (unsigned page = 0; page < pages && first_page + page < base->image_pages;) {
        struct manifest_run run = manifest_lookup(base, first_page + page);
        unsigned count = (unsigned)MIN(run.pages, (uint64_t)(pages - page)), from = page, to = page + count;
        page = to;
        while (from < to && !bit(wanted, from))
            from++;
        while (to > from && !bit(wanted, to - 1))
            to--;
        if (run.zero || from == to)
            continue;
        int fd = source_file(reader, number, run.object);
        uint64_t offset = (uint64_t)(run.object_page + from - (page - count)) * STORE_PAGE;
        if (fd < 0 || read_full_at(fd, reader->base_region + (size_t)from * STORE_PAGE,
                                   (size_t)(to - from) * STORE_PAGE, offset) < 0)
            continue;
        for (unsigned i = from; i < to; i++)
            reader->base_valid[i / 64] |= UINT64_C(1) << (i % 64);
    }
}

/* Whether the page at `place` has these bytes. */
static bool same_at(struct region_reader *reader, struct page_place place, const uint8_t *data)
{
    const struct page_place *run = &reader->run_place;
    bool inside = reader->run_pages > 0 && run->base == place.base && run->object == place.object &&
                  place.page >= run->page && place.page < run->page + reader->run_pages;
    if (!inside) {
        struct object_id id;
        unsigned pages;
        reader->run_pages = 0;
        manifest_object(reader->options->bases[place.base], place.object, &id, &pages);
        if (place.page >= pages)
            return false;
        int fd = source_file(reader, place.base, place.object);
        unsigned count = MIN(RUN_PAGES, pages - place.page);
        if (fd < 0 ||
            read_full_at(fd, reader->run, (size_t)count * STORE_PAGE, (uint64_t)place.page * STORE_PAGE) < 0)
            return false;
        reader->run_place = place;
        reader->run_pages = count;
    }
    return memcmp(reader->run + (size_t)(place.page - run->page) * STORE_PAGE, data, STORE_PAGE) == 0;
}

/* Finds a page anywhere in the bases: first where the page before it was found to go on. */
static int find_anywhere(struct region_reader *reader, const struct piece *before, const uint8_t *data,
                         struct page_place *ret_place, bool *ret_found)
{
    *ret_found = true;
    if (before && before->kind == PIECE_BASE) {
        *ret_place =
            (struct page_place){before->object, (uint16_t)(before->at + before->pages), before->base};
        if (same_at(reader, *ret_place, data))
            return 0;
    }
    if (!reader->index_ready) {
        int r = page_index_need(reader->index);
        if (r < 0)
            return r;
        reader->index_ready = true;
    }
    *ret_found = page_index_find(reader->index, page_hash(reader->index, data), ret_place) &&
                 same_at(reader, *ret_place, data);
    return 0;
}

/* Adds one page to the plan, to its last piece if it continues that. */
static void add_page(struct region_plan *plan, unsigned page, enum piece_kind kind, struct page_place place)
{
    struct piece *last = plan->piece_count > 0 ? &plan->pieces[plan->piece_count - 1] : NULL;
    if (last && last->kind == kind && last->page + last->pages == page &&
        last->at + last->pages == place.page &&
        (kind == PIECE_NEW || (last->object == place.object && last->base == place.base)))
        last->pages++;
    else
        plan->pieces[plan->piece_count++] = (struct piece){.kind = kind,
                                                           .page = (uint16_t)page,
                                                           .pages = 1,
                                                           .at = place.page,
                                                           .base = place.base,
                                                           .object = place.object};
}

static void add_new(struct region_plan *plan, unsigned page)
{
    add_page(plan, page, PIECE_NEW, (struct page_place){.page = (uint16_t)plan->new_pages++});
}

/* Pages that the survey says are as in the first base: whatever that has there, unread. */
static void add_kept(struct region_reader *reader, struct region_plan *plan, unsigned page)
{
    const struct manifest *base = reader->options->bases[0];
    if (plan->first_page + page >= base->image_pages)
        return;
    struct manifest_run run = manifest_lookup(base, plan->first_page + page);
    if (!run.zero)
        add_page(plan, page, PIECE_BASE, (struct page_place){run.object, (uint16_t)run.object_page, 0});
}

/* Which of the pages that were read a base has at the same place; those are taken out of `unknown`. */
static void match_in_place(struct region_reader *reader, const uint8_t *data, uint64_t first_page,
                           unsigned pages, uint64_t *unknown, uint8_t *owner)
{
    for (unsigned base = 0; base < reader->options->base_count; base++) {
        uint64_t left = 0;
        for (unsigned i = 0; i < REGION_WORDS; i++)
            left |= unknown[i];
        if (left == 0)
            return;
        load_in_place(reader, base, first_page, pages, unknown);
        for (unsigned page = 0; page < pages; page++) {
            size_t at = (size_t)page * STORE_PAGE;
            if (bit(unknown, page) && bit(reader->base_valid, page) &&
                memcmp(reader->base_region + at, data + at, STORE_PAGE) == 0) {
                unknown[page / 64] &= ~(UINT64_C(1) << (page % 64));
                owner[page] = (uint8_t)(base + 1);
            }
        }
    }
}

static int sort_page(struct region_reader *reader, const uint8_t *data, struct region_plan *plan,
                     unsigned page, unsigned owner)
{
    struct page_place place;
    if (owner > 0) {
        struct manifest_run run = manifest_lookup(reader->options->bases[owner - 1], plan->first_page + page);
        add_page(plan, page, PIECE_BASE,
                 (struct page_place){run.object, (uint16_t)run.object_page, (uint16_t)(owner - 1)});
        reader->report.pages_known++;
        return 0;
    }
    bool found = false;
    if (reader->options->base_count > 0 && !reader->options->in_place_only) {
        const struct piece *before = plan->piece_count > 0 ? &plan->pieces[plan->piece_count - 1] : NULL;
        int r = find_anywhere(reader, before, data + (size_t)page * STORE_PAGE, &place, &found);
        if (r < 0)
            return r;
    }
    if (found) {
        add_page(plan, page, PIECE_BASE, place);
        reader->report.pages_known++;
    } else {
        add_new(plan, page);
    }
    return 0;
}

/* Over budget: everything from the source and the first base, and short stretches of zeros, as new pages. */
static int plan_whole(struct region_reader *reader, uint8_t *data, unsigned pages,
                      const struct region_map *map, struct region_plan *plan)
{
    uint64_t kept[REGION_WORDS];
    memcpy(kept, map->keep, sizeof(kept));
    if (reader->options->base_count > 0)
        load_in_place(reader, 0, plan->first_page, pages, kept);
    for (unsigned page = 0; page < pages; page++) {
        uint8_t *at = data + (size_t)page * STORE_PAGE;
        if (bit(kept, page) && bit(reader->base_valid, page))
            memcpy(at, reader->base_region + (size_t)page * STORE_PAGE, STORE_PAGE);
        else if (bit(kept, page) && plan->first_page + page < reader->options->bases[0]->image_pages &&
                 !manifest_lookup(reader->options->bases[0], plan->first_page + page).zero)
            return fail(-ENODATA, "an object of the base cannot be read (stellarium verify tells which)");
        else if (!bit(map->read, page))
            memset(at, 0, STORE_PAGE);
    }
    plan->piece_count = plan->new_pages = 0;
    for (unsigned page = 0; page < pages;) {
        unsigned zeros = 0;
        while (page + zeros < pages && is_zero(data + (size_t)(page + zeros) * STORE_PAGE))
            zeros++;
        if (zeros >= WHOLE_GAP || page + zeros == pages)
            page += zeros;
        else
            for (unsigned end = page + zeros + 1; page < end; page++)
                add_new(plan, page);
    }
    return 0;
}

int region_plan(struct region_reader *reader, uint8_t *data, uint64_t first_page, unsigned pages,
                const struct region_map *map, struct region_plan *plan)
{
    uint64_t unknown[REGION_WORDS] = {0};
    uint8_t owner[REGION_PAGES] = {0};
    unsigned budget = reader->options->budget ? reader->options->budget : INGEST_BUDGET;
    *plan = (struct region_plan){.first_page = first_page};
    for (unsigned page = 0; page < pages; page++)
        if (bit(map->read, page)) {
            bool zero = is_zero(data + (size_t)page * STORE_PAGE);
            unknown[page / 64] |= (uint64_t)!zero << (page % 64);
            reader->report.pages_zero += zero;
        }
    uint64_t stored[REGION_WORDS];
    memcpy(stored, unknown, sizeof(stored));
    match_in_place(reader, data, first_page, pages, unknown, owner);
    for (unsigned page = 0; page < pages; page++) {
        int r = 0;
        if (bit(map->keep, page))
            add_kept(reader, plan, page);
        else if (bit(stored, page))
            r = sort_page(reader, data, plan, page, owner[page]);
        if (r < 0)
            return r;
    }
    bool whole = plan->piece_count > budget;
    if (whole) {
        int r = plan_whole(reader, data, pages, map, plan);
        if (r < 0)
            return r;
        reader->report.regions_over_budget++;
    }
    reader->report.pages_new += plan->new_pages;
    plan->own = whole || 2 * plan->new_pages >= REGION_PAGES;
    for (unsigned i = 0; i < plan->piece_count; i++)
        if (plan->pieces[i].kind == PIECE_NEW)
            memmove(data + (size_t)plan->pieces[i].at * STORE_PAGE,
                    data + (size_t)plan->pieces[i].page * STORE_PAGE,
                    (size_t)plan->pieces[i].pages * STORE_PAGE);
    return 0;
}
