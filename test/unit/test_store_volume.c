/* store: volumes. What was written is read, what was flushed is there after a crash, discarded pages are
 * zeros. */
#include "store_rig.h"

#include <sys/wait.h>

enum { PAGES = 1500 };
static struct rig rig;
static uint8_t *image;
static char path[128];

static void make(void)
{
    uint64_t seeds[PAGES];
    rig_make(&rig);
    for (unsigned i = 0; i < PAGES; i++)
        seeds[i] = i % 10 == 9 ? 0 : i + 1;
    image = pages_make(seeds, PAGES);
    rig_import(&rig, image, (uint64_t)PAGES * STORE_PAGE, "image");
    rig_path(&rig, "volume", path);
    cr_assert_eq(volume_create(rig.store, "image", 0, path), 0, "clone: %s", fail_text());
}
static void remove_all(void)
{
    rig_remove(&rig);
    free(image);
}
TestSuite(volume, .timeout = 30, .init = make, .fini = remove_all);

static struct volume *open_volume(bool read_only)
{
    struct volume *volume = NULL;
    cr_assert_eq(volume_open(rig.store, path, read_only, &volume), 0, "open: %s", fail_text());
    return volume;
}

static void expect_page(struct volume *volume, unsigned page, const uint8_t *bytes, const char *when)
{
    uint8_t read[STORE_PAGE];
    cr_assert_eq(volume_read(volume, read, page, 1), 0, "page %u %s: %s", page, when, fail_text());
    cr_assert_eq(memcmp(read, bytes, STORE_PAGE), 0, "page %u %s is something else", page, when);
}

static const uint8_t *of_image(unsigned page)
{
    return image + (size_t)page * STORE_PAGE;
}

/* In a child of fork(2) a volume lives in a file of its own, with what was written before. */
Test(volume, a_copy_has_what_was_written_and_keeps_the_rest_to_itself)
{
    uint8_t bytes[STORE_PAGE], other[STORE_PAGE];
    struct volume *volume = open_volume(false);
    page_fill(bytes, 4711);
    page_fill(other, 4712);
    cr_assert_eq(volume_write(volume, bytes, 100, 1), 0, "%s", fail_text());
    int scratch = open(rig.path, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    cr_assert_eq(volume_copy_delta(volume, scratch), 0, "%s", fail_text());
    pid_t child = fork();
    if (child == 0) {
        volume_copied(volume, scratch);
        expect_page(volume, 100, bytes, "written before");
        expect_page(volume, 101, of_image(101), "of the image");
        cr_assert_eq(volume_write(volume, other, 100, 1), 0, "%s", fail_text());
        cr_assert_eq(volume_write(volume, other, 200, 1), 0, "%s", fail_text());
        cr_assert(volume_flush(volume) == 0 && !volume_unsaved(volume) && volume_writable(volume), "whole");
        expect_page(volume, 200, other, "written by the copy");
        volume_close(volume);
        _exit(42);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child, "waited");
    cr_assert_eq(WEXITSTATUS(status), 42, "the copy is content");
    expect_page(volume, 100, bytes, "after the copy wrote it");
    expect_page(volume, 200, of_image(200), "after the copy wrote it");
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    volume_close(volume);
    volume = open_volume(false);
    expect_page(volume, 100, bytes, "opened again");
    volume_close(volume);
}

Test(volume, reads_the_image_until_it_is_written)
{
    uint8_t bytes[STORE_PAGE];
    struct volume *volume = open_volume(false);
    page_fill(bytes, 4711);
    for (unsigned page = 0; page < PAGES; page += 100)
        expect_page(volume, page, of_image(page), "before");
    cr_assert_eq(volume_write(volume, bytes, 100, 1), 0, "%s", fail_text());
    expect_page(volume, 100, bytes, "written");
    expect_page(volume, 99, of_image(99), "beside it");
    expect_page(volume, 101, of_image(101), "beside it");
    volume_close(volume);
}

Test(volume, what_was_flushed_is_there_and_what_was_not_is_the_image)
{
    uint8_t bytes[STORE_PAGE];
    page_fill(bytes, 4711);
    struct volume *volume = open_volume(false);
    cr_assert_eq(volume_write(volume, bytes, 100, 1), 0, "%s", fail_text());
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    cr_assert_eq(volume_write(volume, bytes, 200, 1), 0, "%s", fail_text());
    volume_close(volume); /* as a crash leaves it */
    volume = open_volume(true);
    expect_page(volume, 100, bytes, "flushed");
    expect_page(volume, 200, of_image(200), "not flushed");
    volume_close(volume);
}

Test(volume, a_page_of_zeros_is_not_the_image_s)
{
    static const uint8_t zeros[STORE_PAGE];
    struct volume *volume = open_volume(false);
    cr_assert_eq(volume_write(volume, zeros, 100, 1), 0, "%s", fail_text());
    cr_assert_eq(fallocate(volume_delta(volume), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 300 * STORE_PAGE,
                           5 * STORE_PAGE),
                 0, "punch");
    volume_mark(volume, 300, 5);
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    volume_close(volume);
    volume = open_volume(true);
    expect_page(volume, 100, zeros, "written as zeros");
    expect_page(volume, 302, zeros, "discarded");
    expect_page(volume, 305, of_image(305), "after the discarded");
    volume_close(volume);
}

Test(volume, a_flush_in_steps_leaves_later_writes_to_the_next)
{
    uint8_t bytes[STORE_PAGE];
    struct volume_checkpoint checkpoint;
    struct volume *volume = open_volume(false);
    page_fill(bytes, 4711);
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    cr_assert_eq(volume_write(volume, bytes, 7, 1), 0, "%s", fail_text());
    cr_assert_eq(volume_checkpoint_begin(volume, &checkpoint), 0, "%s", fail_text());
    cr_assert_eq(checkpoint.count, 1, "blocks");
    cr_assert_eq(volume_write(volume, bytes, 8, 1), 0, "%s", fail_text());
    cr_assert_eq(checkpoint.blocks[0].bytes[0], 0x80, "the block has page 8, which is not durable");
    cr_assert_eq(checkpoint.blocks[0].bytes[1], 0, "the block has page 8, which is not durable");
    volume_checkpoint_end(volume, &checkpoint, true);
    cr_assert_eq(volume_checkpoint_begin(volume, &checkpoint), 0, "%s", fail_text());
    cr_assert_eq(checkpoint.count, 1, "page 8 is due");
    volume_checkpoint_end(volume, &checkpoint, false);
    cr_assert_eq(volume_checkpoint_begin(volume, &checkpoint), 0, "%s", fail_text());
    cr_assert_eq(checkpoint.count, 1, "still due after a failed flush");
    volume_checkpoint_end(volume, &checkpoint, true);
    cr_assert_eq(volume_write(volume, bytes, 8, 1), 0, "%s", fail_text());
    cr_assert_eq(volume_checkpoint_begin(volume, &checkpoint), 0, "%s", fail_text());
    cr_assert_eq(checkpoint.count, 0, "a page in the delta costs a flush of the map");
    volume_checkpoint_end(volume, &checkpoint, true);
    volume_close(volume);
}

Test(volume, is_written_by_one_at_a_time)
{
    struct volume *second = NULL, *volume = open_volume(false);
    struct ingest_report report;
    cr_assert_eq(volume_open(rig.store, path, false, &second), -EBUSY, "opened twice");
    cr_assert_eq(volume_remove(rig.store, path), -EBUSY, "removed while open");
    cr_assert_eq(volume_commit(rig.store, path, "new", &report), -EBUSY, "committed while open");
    volume_close(volume);
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(access(path, F_OK), -1, "still there");
}

Test(volume, keeps_its_image_s_objects_and_gives_them_back)
{
    struct gc_report report;
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(report.objects_deleted, 0, "deleted what a volume stands on");
    struct volume *volume = open_volume(true);
    expect_page(volume, 1, of_image(1), "after gc");
    volume_close(volume);
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(report.objects_deleted, 3, "%llu deleted", (unsigned long long)report.objects_deleted);
}

Test(volume, a_commit_stores_what_was_written)
{
    struct ingest_report report;
    uint8_t bytes[2 * STORE_PAGE] = {0};
    struct volume *volume = open_volume(false);
    page_fill(bytes, 4711);
    cr_assert_eq(volume_write(volume, bytes, 100, 2), 0, "%s", fail_text()); /* and a page of zeros */
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    volume_close(volume);
    cr_assert_eq(volume_commit(rig.store, path, "new", &report), 0, "%s", fail_text());
    cr_assert_eq(report.bytes_read, 2 * STORE_PAGE, "%llu bytes read", (unsigned long long)report.bytes_read);
    cr_assert_eq(report.pages_new, 1, "%llu pages stored", (unsigned long long)report.pages_new);
    memcpy(image + 100 * STORE_PAGE, bytes, sizeof(bytes));
    rig_expect(&rig, "new", image, PAGES);
}

Test(volume, may_be_larger_than_its_image)
{
    static const uint8_t zeros[STORE_PAGE];
    char larger[128];
    struct volume *volume = NULL;
    rig_path(&rig, "larger", larger);
    cr_assert_eq(volume_create(rig.store, "image", 4096, larger), -EINVAL, "smaller than its image");
    cr_assert_eq(volume_create(rig.store, "image", 2000 * STORE_PAGE, larger), 0, "%s", fail_text());
    cr_assert_eq(volume_open(rig.store, larger, false, &volume), 0, "%s", fail_text());
    expect_page(volume, 1998, zeros, "beyond the image");
    expect_page(volume, 1498, of_image(1498), "of the image");
    volume_close(volume);
}

Test(volume, a_scratch_disk_forgets)
{
    uint8_t bytes[STORE_PAGE];
    struct volume *volume = NULL;
    page_fill(bytes, 4711);
    cr_assert_eq(volume_open_image(rig.store, "image", rig.path, &volume), 0, "%s", fail_text());
    cr_assert(volume_writable(volume), "not writable");
    cr_assert_eq(volume_write(volume, bytes, 5, 1), 0, "%s", fail_text());
    expect_page(volume, 5, bytes, "written");
    volume_close(volume);
    rig_expect(&rig, "image", image, PAGES);
}

Test(volume, files_that_do_not_belong_together_are_refused)
{
    static const struct {
        const char *file;
        off_t length, at;
        uint8_t byte;
        int result;
    } damages[] = {
        {"map", 100, -1, 0, -EPIPE},           {"map", -1, 0, 'x', -EBADMSG},
        {"map", -1, 12, 2, -EBADMSG},          {"map", -1, 16, 1, -EBADMSG},
        {"map", -1, 24, 0xee, -EBADMSG},       {"map", -1, 56, 'z', -EBADMSG},
        {"map", -1, 4096 + 4000, 1, -EBADMSG}, {"delta", 4096, -1, 0, -EBADMSG},
        {"volume.json", 10, -1, 0, -EBADMSG},
    };
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        char file[256], clone[128];
        struct volume *volume = NULL;
        snprintf(clone, sizeof(clone), "%s/clone%zu", rig.path, i);
        cr_assert_eq(volume_create(rig.store, "image", 0, clone), 0, "%s", fail_text());
        snprintf(file, sizeof(file), "%s/%s", clone, damages[i].file);
        CLEANUP_FD int fd = open(file, O_RDWR | O_CLOEXEC);
        if (damages[i].length >= 0)
            cr_assert_eq(ftruncate(fd, damages[i].length), 0, "truncate");
        else
            cr_assert_eq(pwrite(fd, &damages[i].byte, 1, damages[i].at), 1, "write");
        cr_assert_eq(volume_open(rig.store, clone, false, &volume), damages[i].result, "%s, row %zu: %s",
                     damages[i].file, i, fail_text());
    }
}

Test(volume, another_store_s_volume_is_refused)
{
    struct rig other;
    struct volume *volume = NULL;
    rig_make(&other);
    cr_assert_eq(volume_open(other.store, path, false, &volume), -ENOENT, "opened");
    rig_remove(&other);
}

/* --- copies, moves and removals by hand --- */

static void copy_folder(const char *from, const char *to)
{
    char command[300];
    snprintf(command, sizeof(command), "cp -a '%s' '%s'", from, to);
    cr_assert_eq(system(command), 0, "%s", command);
}

static int count_state(void *opaque, const struct volume_listed *volume)
{
    unsigned *counts = opaque;
    counts[volume->state]++;
    return 0;
}

static unsigned volumes_that_are(enum volume_state state)
{
    unsigned counts[16] = {0};
    cr_assert_eq(store_each_volume(rig.store, count_state, counts), 0, "%s", fail_text());
    return counts[state];
}

Test(volume, removing_a_copy_takes_nothing_from_the_original)
{
    char copy[128];
    struct gc_report report;
    struct volume *volume = NULL;
    rig_path(&rig, "copy", copy);
    copy_folder(path, copy);
    cr_assert_eq(volume_open(rig.store, copy, false, &volume), -ESTALE, "a copy was opened");
    cr_assert_eq(volume_open(rig.store, copy, true, &volume), -ESTALE, "a copy was opened");
    cr_assert_eq(volume_remove(rig.store, copy), 0, "%s", fail_text());
    cr_assert_eq(access(copy, F_OK), -1, "the copy is still there");
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(report.objects_deleted, 0, "the original lost what it stands on");
    volume = open_volume(false);
    expect_page(volume, 1, of_image(1), "of the original");
    volume_close(volume);
}

Test(volume, an_adopted_copy_is_a_volume_of_its_own)
{
    char copy[128], id[33];
    struct gc_report report;
    struct volume *volume = NULL;
    uint8_t bytes[STORE_PAGE];
    page_fill(bytes, 4711);
    volume = open_volume(false);
    cr_assert_eq(volume_write(volume, bytes, 3, 1), 0, "%s", fail_text());
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    volume_close(volume);
    rig_path(&rig, "copy", copy);
    copy_folder(path, copy);
    cr_assert_eq(volume_adopt(rig.store, copy, id), 0, "%s", fail_text());
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(volume_open(rig.store, copy, false, &volume), 0, "%s", fail_text());
    cr_assert_str_eq(volume_id(volume), id, "another id than told");
    expect_page(volume, 3, bytes, "written before the copy");
    expect_page(volume, 4, of_image(4), "of the image");
    volume_close(volume);
    cr_assert_eq(volumes_that_are(VOLUME_READY), 1, "volumes");
}

Test(volume, one_that_is_gone_can_be_adopted_only_if_the_store_has_its_base)
{
    char id[33];
    struct gc_report report;
    struct volume *volume = open_volume(true);
    char original[33];
    memcpy(original, volume_id(volume), sizeof(original));
    volume_close(volume);
    cr_assert_eq(unlinkat(rig.store->volumes, original, 0), 0, "registered");
    cr_assert_eq(volume_open(rig.store, path, true, &volume), -ENOENT, "opened without a registration");
    cr_assert_eq(volume_adopt(rig.store, path, id), 0, "%s", fail_text());
    cr_assert_eq(unlinkat(rig.store->volumes, id, 0), 0, "registered");
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(volume_adopt(rig.store, path, id), -ENODATA, "adopted without its base");
}

Test(volume, a_moved_one_is_known_again)
{
    char moved[128];
    struct volume *volume = NULL;
    rig_path(&rig, "moved", moved);
    cr_assert_eq(rename(path, moved), 0, "rename");
    cr_assert_eq(volumes_that_are(VOLUME_MISSING), 1, "not missed");
    cr_assert_eq(volume_open(rig.store, moved, false, &volume), 0, "%s", fail_text());
    cr_assert_eq(volumes_that_are(VOLUME_IN_USE), 1, "not seen in use at its new place");
    volume_close(volume);
    cr_assert_eq(volumes_that_are(VOLUME_READY), 1, "not seen at its new place");
}

Test(volume, one_deleted_by_hand_keeps_its_base_until_it_is_forgotten)
{
    struct gc_report report;
    char command[200];
    snprintf(command, sizeof(command), "rm -r '%s'", path);
    cr_assert_eq(system(command), 0, "rm");
    cr_assert_eq(ref_remove(rig.store, "image"), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert(report.objects_deleted == 0 && report.volumes_missing == 1, "its disk may only not be mounted");
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(store_gc(rig.store, false, &report), 0, "%s", fail_text());
    cr_assert_eq(report.objects_deleted, 3, "still pinned");
    cr_assert_eq(volume_remove(rig.store, path), -ENOENT, "removed what never was");
}

Test(volume, a_registration_is_forgotten_by_its_id)
{
    char id[33], moved[128];
    struct volume *volume = open_volume(true);
    char original[33];
    memcpy(original, volume_id(volume), sizeof(original));
    volume_close(volume);
    rig_path(&rig, "moved", moved);
    cr_assert_eq(rename(path, moved), 0, "rename");
    original[9] = '\0';
    cr_assert_eq(volume_find(rig.store, original, id), 0, "%s", fail_text());
    cr_assert_eq(volume_forget(rig.store, id), 0, "%s", fail_text());
    cr_assert_eq(access(moved, F_OK), 0, "what was moved away is not to be deleted");
    cr_assert_eq(volume_find(rig.store, original, id), -ENOENT, "still registered");
    cr_assert_eq(volume_find(rig.store, "../../..", id), -ENOENT, "not an id");
}

Test(volume, a_removal_that_was_interrupted_can_be_repeated)
{
    static const char *const gone[] = {"", "delta", "map"};
    for (unsigned i = 0; i < ARRAY_SIZE(gone); i++) {
        char clone[128], file[200], removed[200];
        struct volume *volume = NULL;
        rig_path(&rig, "clone", clone);
        cr_assert_eq(volume_create(rig.store, "image", 0, clone), 0, "%s", fail_text());
        snprintf(file, sizeof(file), "%s/volume.json", clone);
        snprintf(removed, sizeof(removed), "%s/volume.json.removed", clone);
        cr_assert_eq(rename(file, removed), 0, "rename");
        snprintf(file, sizeof(file), "%s/%s", clone, gone[i]);
        cr_assert(!*gone[i] || unlink(file) == 0, "unlink");
        cr_assert_eq(volumes_that_are(VOLUME_HALF_REMOVED), 1, "not seen");
        cr_assert_eq(volume_open(rig.store, clone, false, &volume), -ENOENT, "opened");
        cr_assert_eq(volume_remove(rig.store, clone), 0, "%s", fail_text());
        cr_assert_eq(access(clone, F_OK), -1, "still there");
        cr_assert_eq(volumes_that_are(VOLUME_HALF_REMOVED), 0, "still registered");
    }
    /* As an earlier version of this program left one: without its description. */
    char file[200];
    snprintf(file, sizeof(file), "%s/volume.json", path);
    cr_assert_eq(unlink(file), 0, "unlink");
    cr_assert_eq(volumes_that_are(VOLUME_DAMAGED), 1, "not seen");
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(access(path, F_OK), -1, "still there");
}

Test(volume, somebody_s_file_in_its_folder_stays)
{
    char file[200];
    snprintf(file, sizeof(file), "%s/notes", path);
    close(open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    cr_assert_eq(volume_remove(rig.store, path), 0, "%s", fail_text());
    cr_assert_eq(access(file, F_OK), 0, "deleted");
    cr_assert_eq(volumes_that_are(VOLUME_READY) + volumes_that_are(VOLUME_DAMAGED), 0, "still registered");
}

Test(volume, a_registration_of_version_1_is_read_and_brought_up)
{
    char text[400], id[33], manifest[OBJECT_ID_TEXT], copy[128];
    struct volume *volume = open_volume(true);
    memcpy(id, volume_id(volume), sizeof(id));
    snprintf(text, sizeof(text), "%s\n%s\n", object_id_text(&volume_manifest(volume)->id, manifest), path);
    volume_close(volume);
    int fd = openat(rig.store->volumes, id, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text), "write");
    close(fd);
    rig_path(&rig, "copy", copy);
    copy_folder(path, copy);
    cr_assert_eq(volume_open(rig.store, copy, false, &volume), -ESTALE, "a copy was opened");
    volume_close(open_volume(false));
    cr_assert_eq(text_read(rig.store->volumes, id, text, sizeof(text)), 0, "read");
    cr_assert_not_null(strstr(text, "\ndirectory "), "not brought up");
}

Test(volume, a_commit_does_not_read_what_was_discarded)
{
    struct ingest_report report;
    struct volume *volume = open_volume(false);
    cr_assert_eq(fallocate(volume_delta(volume), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                           (off_t)PAGES * STORE_PAGE),
                 0, "punch");
    volume_mark(volume, 0, PAGES);
    cr_assert_eq(volume_flush(volume), 0, "%s", fail_text());
    volume_close(volume);
    cr_assert_eq(volume_commit(rig.store, path, "empty", &report), 0, "%s", fail_text());
    cr_assert_eq(report.bytes_read, 0, "%llu bytes read", (unsigned long long)report.bytes_read);
    memset(image, 0, (size_t)PAGES * STORE_PAGE);
    rig_expect(&rig, "empty", image, PAGES);
}
