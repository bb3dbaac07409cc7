/* store: objects, names, leases, gc, and what is done about damage. */
#include "store_rig.h"

#include <sys/file.h>
#include <sys/wait.h>

static struct rig rig;
static void make(void)
{
    rig_make(&rig);
}
static void remove_all(void)
{
    rig_remove(&rig);
}
TestSuite(store, .timeout = 30, .init = make, .fini = remove_all);

static uint8_t *image_of(uint64_t seed, unsigned pages)
{
    uint64_t *seeds = malloc(pages * sizeof(*seeds));
    for (unsigned i = 0; i < pages; i++)
        seeds[i] = seed + i;
    uint8_t *bytes = pages_make(seeds, pages);
    free(seeds);
    return bytes;
}

static void import_seed(const char *name, uint64_t seed, unsigned pages)
{
    uint8_t *bytes = image_of(seed, pages);
    rig_import(&rig, bytes, (uint64_t)pages * STORE_PAGE, name);
    free(bytes);
}

static struct gc_report gc(void)
{
    struct gc_report report = {0};
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "gc: %s", fail_text());
    return report;
}

static void count_problem(void *opaque, const char *message)
{
    (void)message;
    ++*(unsigned *)opaque;
}

static unsigned problems(void)
{
    struct verify_report report;
    unsigned count = 0;
    cr_assert_eq(store_verify(rig.store, NULL, count_problem, NULL, &count, &report), 0, "verify: %s",
                 fail_text());
    return count;
}

Test(store, is_made_once_and_opened_only_if_it_is_one)
{
    char path[128];
    struct store *other = NULL;
    rig_path(&rig, "store", path);
    cr_assert_eq(store_init(path), -EEXIST, "made twice");
    cr_assert_eq(store_init(rig.path), -EEXIST, "made in a directory that has something in it");
    cr_assert_eq(store_open(rig.path, &other), -ENOENT, "opened a directory that is no store");
    cr_assert_null(other, "set on failure");
    int fd = openat(rig.store->root, "format", O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(write(fd, "stellarium 2 sha256 2097152\n", 28), 28, "write");
    close(fd);
    cr_assert_eq(store_open(path, &other), -EPROTO, "opened another version's store");
}

Test(store, names_are_listed_in_order_replaced_and_removed)
{
    struct ref *refs = NULL;
    size_t count = 0;
    struct object_id id;
    import_seed("b", 1, 3);
    import_seed("a", 100, 3);
    import_seed("b", 200, 3);
    cr_assert_eq(ref_list(rig.store, &refs, &count), 0, "%s", fail_text());
    cr_assert(count == 2 && strcmp(refs[0].name, "a") == 0 && strcmp(refs[1].name, "b") == 0, "%zu names",
              count);
    free(refs);
    cr_assert_eq(ref_remove(rig.store, "a"), 0, "%s", fail_text());
    cr_assert_eq(ref_remove(rig.store, "a"), -ENOENT, "removed twice");
    cr_assert_eq(ref_read(rig.store, "a", &id), -ENOENT, "still there");
}

Test(store, gc_deletes_what_has_no_name_and_keeps_the_rest)
{
    import_seed("keep", 1, 1000);
    import_seed("drop", 5000, 1000);
    cr_assert_eq(ref_remove(rig.store, "drop"), 0, "%s", fail_text());
    struct gc_report report = {0};
    cr_assert_eq(store_gc(rig.store, true, &report), 0, "%s", fail_text());
    cr_assert_eq(report.objects_deleted, 2, "a dry run counts %llu",
                 (unsigned long long)report.objects_deleted);
    report = gc();
    cr_assert(report.objects_deleted == 2 && report.manifests_deleted == 1 && report.objects_kept == 2,
              "%llu %llu %llu", (unsigned long long)report.objects_deleted,
              (unsigned long long)report.manifests_deleted, (unsigned long long)report.objects_kept);
    uint8_t *bytes = image_of(1, 1000);
    rig_expect(&rig, "keep", bytes, 1000);
    free(bytes);
    cr_assert_eq(gc().objects_deleted, 0, "a second gc found more");
    cr_assert_eq(problems(), 0, "verify found something");
}

Test(store, gc_spares_what_a_live_writer_has_found_or_put)
{
    struct store_writer *writer = NULL;
    struct object_id id;
    bool has = false;
    import_seed("image", 1, 300);
    struct manifest *manifest = rig_manifest(&rig, "image");
    unsigned pages;
    manifest_object(manifest, 0, &id, &pages);
    manifest_free(manifest);
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(writer_begin(rig.store, &writer), 0, "%s", fail_text());
    cr_assert_eq(writer_has(writer, &id, pages, &has), 0, "%s", fail_text());
    cr_assert(has, "not found");
    for (unsigned i = 0; i < 3; i++) /* epochs pass, the writer's stays the oldest */
        cr_assert_eq(gc().objects_deleted, 0, "deleted what a writer counts on");
    writer_end(writer);
    cr_assert_eq(gc().objects_deleted, 1, "kept it for ever");
}

Test(store, gc_spares_what_a_lease_holds_until_its_process_ends)
{
    struct store_lease *lease = NULL;
    struct object_id id;
    import_seed("image", 1, 300);
    int ready[2], end[2];
    cr_assert(pipe(ready) == 0 && pipe(end) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        char byte = 0;
        bool good = store_lease_name(rig.store, "image", &id, &lease) == 0;
        if (write(ready[1], &byte, 1) == 1 && read(end[0], &byte, 1) == 1 && good)
            raise(SIGKILL);
        _exit(1);
    }
    char byte = 0;
    cr_assert_eq(read(ready[0], &byte, 1), 1, "the child did not come so far");
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(gc().objects_deleted, 0, "deleted what a running process leases");
    cr_assert_eq(write(end[1], &byte, 1), 1, "write");
    int status;
    waitpid(child, &status, 0);
    cr_assert(WIFSIGNALED(status), "the lease was not taken");
    cr_assert_eq(gc().objects_deleted, 1, "a dead process's lease still holds");
}

static void count_warning(void *opaque, const char *message)
{
    unsigned *count = opaque;
    *count += strlen(message) > 0;
}

Test(store, gc_deletes_nothing_when_it_cannot_know_what_is_needed)
{
    struct gc_report report;
    unsigned warnings = 0;
    store_on_warning(rig.store, count_warning, &warnings);
    import_seed("image", 1, 300);
    int fd = openat(rig.store->refs, "image", O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(write(fd, "nonsense\n", 9), 9, "write");
    close(fd);
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert(report.objects_deleted == 0 && report.manifests_deleted == 0, "deleted what a name may need");
    cr_assert_geq(warnings, 1, "and does not say why");
    fd = openat(rig.store->refs, "image", O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(dprintf(fd, "%064d\n", 1), 65, "write");
    close(fd);
    cr_assert_eq(store_gc(rig.store, false, &report), -ENODATA, "went on without a manifest");
}

Test(store, only_one_gc_is_at_work)
{
    struct gc_report report;
    int fd = openat(rig.store->root, "objects", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(flock(fd, LOCK_EX), 0, "flock");
    cr_assert_eq(store_gc(rig.store, false, &report), -EBUSY, "two at once");
    close(fd);
}

Test(store, a_changed_object_is_found_and_never_handed_out)
{
    struct volume *volume = NULL;
    uint8_t page[STORE_PAGE];
    import_seed("image", 1, 300);
    rig_damage(&rig, "image", false);
    cr_assert_eq(volume_open_image(rig.store, "image", NULL, &volume), 0, "%s", fail_text());
    cr_assert_eq(volume_read(volume, page, 200, 1), -EBADMSG, "read from a corrupt object");
    volume_close(volume);
    cr_assert_eq(problems(), 1, "verify counts");
}

Test(store, a_short_object_is_found_and_a_missing_one_named)
{
    struct volume *volume = NULL;
    uint8_t page[STORE_PAGE];
    import_seed("image", 1, 300);
    rig_damage(&rig, "image", true);
    cr_assert_eq(volume_open_image(rig.store, "image", NULL, &volume), 0, "%s", fail_text());
    cr_assert_eq(volume_read(volume, page, 0, 1), -EBADMSG, "read from a short object");
    volume_close(volume);
    cr_assert_geq(problems(), 1, "verify counts");
}

Test(store, importing_again_heals_what_is_damaged)
{
    uint8_t *bytes = image_of(1, 300);
    for (int round = 0; round < 4; round++) {
        bool cut = round % 2;
        rig_import(&rig, bytes, 300 * STORE_PAGE, "image");
        rig_damage(&rig, "image", cut);
        /* Also on the damaged image as its base: most of that would compare equal, and is not to be pointed
         * at. */
        cr_assert_eq(rig_try_import(&rig, bytes, 300 * STORE_PAGE, "image", round < 2 ? NULL : "image", 0, 0,
                                    NULL, NULL),
                     0, "import: %s", fail_text());
        rig_expect(&rig, "image", bytes, 300);
        cr_assert_eq(problems(), 0, "still damaged (%s)", cut ? "cut" : "changed");
    }
    free(bytes);
}

Test(store, what_was_verified_is_hashed_after_a_boot)
{
    bool verified;
    struct object_id id;
    unsigned pages;
    int fd = -1;
    import_seed("image", 1, 300);
    struct manifest *manifest = rig_manifest(&rig, "image");
    manifest_object(manifest, 0, &id, &pages);
    manifest_free(manifest);
    cr_assert_eq(object_open(rig.store, &id, pages, &fd, &verified), 0, "%s", fail_text());
    cr_assert(verified, "just written, and not verified");
    close(fd);
    rig.store->boot_tag++; /* as another boot's */
    cr_assert_eq(object_open(rig.store, &id, pages, &fd, &verified), 0, "%s", fail_text());
    cr_assert(!verified, "verified by another boot");
    uint8_t *buffer = malloc(STORE_OBJECT_BYTES);
    cr_assert_eq(object_verify(rig.store, &id, pages, fd, buffer), 0, "%s", fail_text());
    close(fd);
    cr_assert_eq(object_open(rig.store, &id, pages, &fd, &verified), 0, "%s", fail_text());
    cr_assert(verified, "hashed, and not verified");
    close(fd);
    free(buffer);
}

Test(store, usage_counts_what_is_shared_and_what_is_alone)
{
    struct store_usage usage;
    uint64_t seeds[1024];
    for (unsigned i = 0; i < 1024; i++)
        seeds[i] = i < 512 ? 1 + i : 7000 + i;
    uint8_t *bytes = pages_make(seeds, 1024);
    import_seed("a", 1, 512);
    rig_import(&rig, bytes, 1024 * STORE_PAGE, "b");
    free(bytes);
    cr_assert_eq(store_usage(rig.store, &usage), 0, "%s", fail_text());
    cr_assert_eq(usage.image_count, 2, "images");
    cr_assert_eq(usage.stored, 2 * STORE_OBJECT_BYTES, "stored %llu", (unsigned long long)usage.stored);
    cr_assert_eq(usage.images[0].exclusive, 0, "a alone");
    cr_assert_eq(usage.images[1].exclusive, STORE_OBJECT_BYTES, "b alone");
    cr_assert(usage.images[0].nearest == 1 && usage.images[0].nearest_shared == STORE_OBJECT_BYTES,
              "a and b");
    free(usage.images);
}

Test(store, gc_spares_what_is_read_by_one_who_may_not_write)
{
    struct store_lease *lease = NULL;
    struct object_id id;
    import_seed("image", 1, 300);
    rig.store->read_only = true;
    cr_assert_eq(store_lease_name(rig.store, "image", &id, &lease), 0, "%s", fail_text());
    rig.store->read_only = false;
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(gc().objects_deleted, 0, "deleted what a process reads");
    uint8_t *bytes = image_of(1, 300); /* importing the same leaves the locked manifest where it is */
    rig.store->boot_tag++;
    rig_import(&rig, bytes, 300 * STORE_PAGE, "again");
    free(bytes);
    cr_assert_eq(ref_remove(rig.store, "again"), 0, "%s", fail_text());
    cr_assert_eq(gc().objects_deleted, 0, "deleted what a process reads");
    store_lease_end(lease);
    cr_assert_eq(gc().objects_deleted, 1, "kept for nobody");
}

static void manifest_path(const char *name, char path[SHARD_PATH_MAX])
{
    struct object_id id;
    cr_assert_eq(ref_read(rig.store, name, &id), 0, "%s", fail_text());
    shard_path(&id, path);
}

/* As a file system's or an administrator's mistake would: also with its times, which carry the stamp. */
Test(store, a_manifest_under_another_s_name_is_refused)
{
    char one[SHARD_PATH_MAX], two[SHARD_PATH_MAX];
    import_seed("one", 1, 300);
    import_seed("two", 1000, 300);
    manifest_path("one", one);
    manifest_path("two", two);
    for (unsigned keeps_times = 0; keeps_times < 2; keeps_times++) {
        struct object_id id;
        struct manifest *manifest = NULL;
        char command[400];
        snprintf(command, sizeof(command), "cd '%s/manifests' && cp -f %s %s %s", store_path(rig.store),
                 keeps_times ? "-p" : "", one, two);
        cr_assert_eq(system(command), 0, "%s", command);
        cr_assert_eq(ref_read(rig.store, "two", &id), 0, "%s", fail_text());
        cr_assert_eq(manifest_load(rig.store, &id, &manifest), -EBADMSG, "one is served as two");
    }
}

Test(store, files_that_do_not_belong_there_are_passed_over)
{
    static const char *const strays[] = {
        "refs/notes~",   "refs/.hidden",     "volumes/notes",   "leases/notes",   "tmp/notes",  "tmp/a.b",
        "objects/notes", "objects/00/notes", "manifests/notes", "manifests/00/a", "cache/notes"};
    struct store_usage usage;
    struct ref *refs = NULL;
    size_t count;
    unsigned warnings = 0;
    import_seed("image", 1, 300);
    for (unsigned i = 0; i < ARRAY_SIZE(strays); i++)
        close(openat(rig.store->root, strays[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    cr_assert_eq(mkdirat(rig.store->refs, "folder", 0755), 0, "mkdir");
    cr_assert_eq(mkdirat(rig.store->volumes, "folder", 0755), 0, "mkdir");
    cr_assert_eq(mkdirat(rig.store->tmp, "folder", 0755), 0, "mkdir");
    cr_assert_eq(mkfifoat(rig.store->refs, "fifo", 0644), 0, "mkfifo");
    store_on_warning(rig.store, count_warning, &warnings);
    cr_assert_eq(ref_list(rig.store, &refs, &count), 0, "%s", fail_text());
    cr_assert_eq(count, 1, "%zu images", count);
    cr_assert_eq(warnings, 4, "%u warnings", warnings);
    free(refs);
    cr_assert_eq(store_usage(rig.store, &usage), 0, "%s", fail_text());
    free(usage.images);
    cr_assert_eq(problems(), 0, "verify");
    cr_assert_eq(gc().objects_deleted, 0, "gc");
    import_seed("image", 2, 300);
}

/* What a writer that was killed has left goes with the next one; what a writer that failed has stored, at
 * once. */
Test(store, nothing_stays_of_writers_that_end)
{
    struct store_writer *writer = NULL;
    bool has;
    uint8_t *bytes = image_of(1, 512);
    struct object_id id;
    close(openat(rig.store->leases, "l.0123456789abcdef", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    close(
        openat(rig.store->tmp, "l.0123456789abcdef.0123456789abcdef", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    cr_assert_eq(writer_begin(rig.store, &writer), 0, "%s", fail_text());
    cr_assert_eq(faccessat(rig.store->leases, "l.0123456789abcdef", F_OK, 0), -1, "a dead lease stays");
    cr_assert_eq(faccessat(rig.store->tmp, "l.0123456789abcdef.0123456789abcdef", F_OK, 0), -1,
                 "a dead file stays");
    for (unsigned i = 0; i < 300; i++) { /* more than a batch, so that some are published */
        struct staged_file file;
        bytes[0] = (uint8_t)i;
        bytes[1] = (uint8_t)(i >> 8);
        object_hash(bytes, STORE_PAGE, &id);
        cr_assert_eq(writer_create(writer, false, &file), 0, "%s", fail_text());
        cr_assert_eq(write_full_at(file.fd, bytes, STORE_PAGE, 0), 0, "write");
        cr_assert_eq(writer_stage(writer, &id, &file), 0, "%s", fail_text());
    }
    free(bytes);
    writer_end(writer);
    struct store_usage usage;
    cr_assert_eq(store_usage(rig.store, &usage), 0, "%s", fail_text());
    free(usage.images);
    cr_assert_eq(usage.stored, 0, "%llu bytes stay", (unsigned long long)usage.stored);
    cr_assert_eq(writer_begin(rig.store, &writer), 0, "%s", fail_text());
    cr_assert_eq(writer_has(writer, &id, 1, &has), 0, "%s", fail_text());
    cr_assert(!has, "stayed");
    writer_end(writer);
}
