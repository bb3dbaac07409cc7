/* store: ingest. What is stored of an image, what is pointed at, and that it reads as it was. */
#include "store/pageindex.h"
#include "store_rig.h"

static struct rig rig;
static void make(void)
{
    rig_make(&rig);
}
static void remove_all(void)
{
    rig_remove(&rig);
}
TestSuite(ingest, .timeout = 60, .init = make, .fini = remove_all);

enum { PAGES = 512 * 5 + 100 };
static uint64_t seeds[PAGES];

static void all_different(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        seeds[i] = i + 1;
}

struct outcome {
    struct ingest_report report;
    struct writer_report written;
};

static struct outcome import(const char *name, const char *base, unsigned threads, unsigned budget)
{
    struct outcome outcome;
    uint8_t *bytes = pages_make(seeds, PAGES);
    cr_assert_eq(rig_try_import(&rig, bytes, (uint64_t)PAGES * STORE_PAGE, name, base, threads, budget,
                                &outcome.report, &outcome.written),
                 0, "import: %s", fail_text());
    rig_expect(&rig, name, bytes, PAGES);
    free(bytes);
    return outcome;
}

Test(ingest, a_new_image_is_an_extent_an_object)
{
    all_different();
    struct outcome outcome = import("image", NULL, 0, 0);
    struct manifest *manifest = rig_manifest(&rig, "image");
    cr_assert_eq(manifest->object_count, 6, "%llu objects", (unsigned long long)manifest->object_count);
    cr_assert_eq(manifest->extent_count, 6, "%llu extents", (unsigned long long)manifest->extent_count);
    cr_assert_eq(outcome.written.bytes_new, (uint64_t)PAGES * STORE_PAGE, "stored more or less");
    manifest_free(manifest);
}

Test(ingest, zeros_are_not_stored)
{
    memset(seeds, 0, sizeof(seeds));
    seeds[700] = 7;
    seeds[PAGES - 1] = 8;
    struct outcome outcome = import("image", NULL, 0, 0);
    cr_assert_eq(outcome.written.bytes_new, 2 * STORE_PAGE, "%llu bytes stored",
                 (unsigned long long)outcome.written.bytes_new);
    cr_assert_eq(outcome.written.objects_new, 1, "two regions' pages were not packed");
}

Test(ingest, nothing_but_zeros_is_nothing)
{
    memset(seeds, 0, sizeof(seeds));
    cr_assert_eq(import("image", NULL, 0, 0).written.objects_new, 0, "stored zeros");
}

Test(ingest, the_number_of_threads_changes_nothing)
{
    struct object_id first, other;
    all_different();
    for (unsigned i = 0; i < PAGES; i += 3)
        seeds[i] = i / 512 % 2 ? 0 : seeds[i];
    import("base", NULL, 1, 0);
    for (unsigned i = 0; i < PAGES; i += 11)
        seeds[i] = 100000 + i;
    import("image", "base", 1, 0);
    cr_assert_eq(ref_read(rig.store, "image", &first), 0, "%s", fail_text());
    for (unsigned threads = 2; threads < 9; threads += 3) {
        import("image", "base", threads, 0);
        cr_assert_eq(ref_read(rig.store, "image", &other), 0, "%s", fail_text());
        cr_assert(object_id_equal(&first, &other), "another manifest with %u threads", threads);
    }
}

Test(ingest, of_a_changed_image_only_new_pages_are_stored)
{
    all_different();
    import("base", NULL, 0, 0);
    seeds[5] = seeds[600] = 9999; /* two pages, equal ones, in two regions */
    seeds[2000] = 0;
    struct outcome outcome = import("image", "base", 0, 0);
    cr_assert_eq(outcome.written.bytes_new, 2 * STORE_PAGE, "%llu bytes stored",
                 (unsigned long long)outcome.written.bytes_new);
    cr_assert_eq(outcome.report.pages_new, 2, "new pages");
}

Test(ingest, pages_that_moved_are_found)
{
    all_different();
    import("base", NULL, 0, 0);
    for (unsigned i = PAGES - 1; i > 40; i--) /* all of it by 7 pages, as when a file in front grew */
        seeds[i] = seeds[i - 7];
    struct outcome outcome = import("image", "base", 0, 0);
    cr_assert_eq(outcome.written.bytes_new, 0, "%llu bytes stored",
                 (unsigned long long)outcome.written.bytes_new);
    /* Once more with the index that the first time left in the cache. */
    cr_assert_eq(import("again", "base", 0, 0).written.bytes_new, 0, "stored with a cached index");
}

Test(ingest, an_unchanged_image_is_the_same_manifest)
{
    struct object_id base, image;
    all_different();
    import("base", NULL, 0, 0);
    import("image", "base", 0, 0);
    cr_assert(ref_read(rig.store, "base", &base) == 0 && ref_read(rig.store, "image", &image) == 0, "names");
    cr_assert(object_id_equal(&base, &image), "another manifest");
}

Test(ingest, a_region_over_budget_is_written_whole)
{
    all_different();
    import("base", NULL, 0, 0);
    for (unsigned i = 512; i < 1024; i += 2)
        seeds[i] = 50000 + i; /* 512 extents in the second region */
    struct outcome outcome = import("image", "base", 0, 128);
    struct manifest *manifest = rig_manifest(&rig, "image");
    cr_assert_eq(outcome.report.regions_over_budget, 1, "regions over budget");
    cr_assert_eq(outcome.written.bytes_new, STORE_OBJECT_BYTES, "%llu bytes stored",
                 (unsigned long long)outcome.written.bytes_new);
    cr_assert_eq(manifest->extent_count, 6, "%llu extents", (unsigned long long)manifest->extent_count);
    manifest_free(manifest);
    /* Without the budget's limit, half of it is pointed at. */
    outcome = import("fragmented", "base", 0, 512);
    cr_assert_eq(outcome.written.bytes_new, STORE_OBJECT_BYTES / 2, "%llu bytes stored",
                 (unsigned long long)outcome.written.bytes_new);
}

Test(ingest, an_image_may_end_anywhere)
{
    static const uint64_t lengths[] = {
        0, 512, 4096, 4608, STORE_OBJECT_BYTES - 512, STORE_OBJECT_BYTES + 512};
    uint8_t *bytes = calloc(514, STORE_PAGE), *read = malloc(514 * STORE_PAGE);
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct volume *volume = NULL;
        unsigned pages = (unsigned)(align_up(lengths[i], STORE_PAGE) / STORE_PAGE);
        memset(bytes, 0, 514 * STORE_PAGE);
        memset(bytes, 0x77, lengths[i]);
        rig_import(&rig, bytes, lengths[i], "image");
        cr_assert_eq(volume_open_image(rig.store, "image", NULL, &volume), 0, "%s", fail_text());
        cr_assert_eq(volume_bytes(volume), lengths[i], "length");
        cr_assert_eq(volume_read(volume, read, 0, pages), 0, "%s", fail_text());
        cr_assert_eq(memcmp(read, bytes, (size_t)pages * STORE_PAGE), 0, "%llu bytes read as others",
                     (unsigned long long)lengths[i]);
        volume_close(volume);
    }
    free(bytes);
    free(read);
}

Test(ingest, a_base_that_lost_an_object_is_no_obstacle)
{
    all_different();
    import("base", NULL, 0, 0);
    rig_damage(&rig, "base", true);
    import("image", "base", 0, 0);
}

Test(ingest, export_and_diff_agree_with_the_image)
{
    char path[128];
    struct image_difference difference;
    all_different();
    seeds[99] = seeds[100] = 0;
    import("a", NULL, 0, 0);
    seeds[3] = 77777;
    seeds[99] = 88888;
    import("b", "a", 0, 0);
    struct manifest *a = rig_manifest(&rig, "a"), *b = rig_manifest(&rig, "b");
    cr_assert_eq(image_diff(rig.store, a, b, NULL, NULL, &difference), 0, "%s", fail_text());
    cr_assert(difference.pages_different == 2 && difference.pages_same == PAGES - 2, "%llu different",
              (unsigned long long)difference.pages_different);
    rig_path(&rig, "raw", path);
    CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(ftruncate(fd, (off_t)b->image_bytes), 0, "truncate");
    cr_assert_eq(image_export(rig.store, b, fd, path, true, NULL, NULL), 0, "%s", fail_text());
    uint8_t *bytes = pages_make(seeds, PAGES), *read = malloc((size_t)PAGES * STORE_PAGE);
    cr_assert_eq(read_full_at(fd, read, (size_t)PAGES * STORE_PAGE, 0), 0, "read");
    cr_assert_eq(memcmp(read, bytes, (size_t)PAGES * STORE_PAGE), 0, "exported other bytes");
    manifest_free(a);
    manifest_free(b);
    free(bytes);
    free(read);
}

static unsigned refusals;

static int refuse_ring(const struct store_step *step)
{
    if (strcmp(step->name, "ring") != 0 || refusals == 0)
        return 0;
    return refusals-- % 2 ? -EAGAIN : -EBUSY;
}

Test(ingest, goes_on_when_the_ring_takes_no_requests_for_a_moment)
{
    uint64_t own[600];
    for (unsigned i = 0; i < 600; i++)
        own[i] = i + 1;
    uint8_t *bytes = pages_make(own, 600);
    refusals = 7;
    store_fault = refuse_ring;
    int r = rig_try_import(&rig, bytes, 600 * STORE_PAGE, "image", NULL, 1, 0, NULL, NULL);
    store_fault = NULL;
    cr_assert_eq(r, 0, "%s", fail_text());
    cr_assert_eq(refusals, 0, "%u refusals left", refusals);
    rig_expect(&rig, "image", bytes, 600);
    free(bytes);
}

/* Pages whose hashes fell to one place of the table took time squared. The seed is the store's own and
 * random. */
Test(ingest, the_page_index_has_a_seed_of_its_own)
{
    struct rig other;
    uint8_t page[STORE_PAGE];
    struct page_index *index[2] = {NULL};
    rig_make(&other);
    struct store *stores[2] = {rig.store, other.store};
    page_fill(page, 1);
    uint64_t hashes[2];
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(page_index_new(stores[i], NULL, 0, &index[i]), 0, "%s", fail_text());
        cr_assert_eq(page_index_need(index[i]), 0, "%s", fail_text());
        hashes[i] = page_hash(index[i], page);
        page_index_free(index[i]);
    }
    cr_assert_neq(hashes[0], hashes[1], "two stores hash alike");
    cr_assert_eq(page_index_new(rig.store, NULL, 0, &index[0]), 0, "%s", fail_text());
    cr_assert_eq(page_index_need(index[0]), 0, "%s", fail_text());
    cr_assert_eq(page_hash(index[0], page), hashes[0], "a store's seed changes");
    page_index_free(index[0]);
    rig_remove(&other);
}
