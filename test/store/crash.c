/*
 * Crash tests of the store: each operation is run again and again in a child process, with a fault at its
 * first step, its second, and so on until it comes through without meeting one. Steps are the writes, syncs,
 * renames, links and the like that the store makes (src/store/sys.c). Four faults:
 *
 *   kill    the process ends before the step
 *   fail    the step returns EIO
 *   full    the step returns ENOSPC
 *   power   the process ends before the step, and with it everything that no sync has made durable: files
 * that were written lose their bytes, names that were given are taken back
 *
 * After each, in the parent: verify finds no problem; every image that was there before is there and reads as
 * it did; the name being published is as before or as it should become; flushed pages of the volume are
 * there; gc works, and verify again. Prints TAP: a test for each operation and fault.
 */
#include "store/image.h"
#include "store/ingest.h"
#include "store/private.h"
#include "store/volume.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define IMAGE_PAGES 1300u /* three regions, the last one in part */
#define STEPS_MAX   2000u

static char root[256]; /* where everything lies */

/* --- the power-cut model: what is not durable yet --- */

enum { LOST_MAX = 4096, PATH_BYTES = 512 };

/* In memory shared with the parent, which takes back what the child's death would have lost. */
struct change {
    enum { CHANGE_WRITTEN, CHANGE_NAMED, CHANGE_RENAMED } kind;
    bool durable;
    dev_t device;
    ino_t inode;             /* of the file; for names, of the directory */
    char path[PATH_BYTES];   /* of the name that was given */
    char before[PATH_BYTES]; /* a link to what it stood for before, or "" */
};

static struct shared {
    unsigned steps; /* that have been passed */
    unsigned fault_at;
    enum fault { FAULT_KILL, FAULT_FAIL, FAULT_FULL, FAULT_POWER } fault;
    bool met;
    unsigned count;
    struct change changes[LOST_MAX];
} * shared;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the child's threads */

static void full_path(int directory, const char *path, char text[PATH_BYTES])
{
    char link[64], base[PATH_BYTES - 1] = "";
    if (path && (path[0] == '/' || directory == AT_FDCWD)) {
        snprintf(text, PATH_BYTES, "%s", path);
        return;
    }
    snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
    ssize_t n = readlink(link, base, sizeof(base) - 1);
    base[n < 0 ? 0 : n] = '\0';
    CHECK(snprintf(text, PATH_BYTES, "%s%s%s", base, path ? "/" : "", path ? path : "") < PATH_BYTES);
}

static struct change *add_change(void)
{
    CHECK(shared->count < LOST_MAX);
    struct change *change = &shared->changes[shared->count++];
    *change = (struct change){0};
    return change;
}

static void identify(struct change *change, const char *path)
{
    struct stat status;
    if (stat(path, &status) == 0) {
        change->device = status.st_dev;
        change->inode = status.st_ino;
    }
}

/* The directory that holds `path`. */
static void identify_parent(struct change *change, const char *path)
{
    char parent[PATH_BYTES];
    snprintf(parent, sizeof(parent), "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash)
        *slash = '\0';
    identify(change, parent);
}

static void note_name(const struct store_step *step)
{
    bool rename = strcmp(step->name, "rename") == 0;
    char path[PATH_BYTES], backup[PATH_BYTES];
    full_path(rename ? step->to_fd : step->fd, rename ? step->to_path : step->path, path);
    if (access(path, F_OK) == 0 && !rename)
        return;
    struct change *change = add_change();
    change->kind = rename ? CHANGE_RENAMED : CHANGE_NAMED;
    snprintf(change->path, sizeof(change->path), "%s", path);
    identify_parent(change, path);
    snprintf(backup, sizeof(backup), "%s/lost.%u", root, shared->count);
    if (rename && link(path, backup) == 0)
        snprintf(change->before, sizeof(change->before), "%s", backup);
}

/* Where the bytes that a file surely has are kept. */
static void backup_path(const struct stat *status, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/durable.%llu", root, (unsigned long long)status->st_ino);
}

static void copy(const char *from, const char *to)
{
    static uint8_t bytes[IMAGE_PAGES * STORE_PAGE + 1];
    CLEANUP_FD int source = open(from, O_RDONLY | O_CLOEXEC);
    CLEANUP_FD int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = source < 0 ? -1 : read(source, bytes, sizeof(bytes));
    CHECK(n >= 0 && (size_t)n < sizeof(bytes) && target >= 0 &&
          write_full_at(target, bytes, (size_t)n, 0) == 0);
}

static void back_up(int fd, const struct stat *status)
{
    char from[PATH_BYTES], to[PATH_BYTES];
    full_path(fd, NULL, from);
    backup_path(status, to);
    copy(from, to);
}

/* A sync of a file saves its bytes, one of a directory the names in it; syncfs saves all. */
static void note_sync(const struct store_step *step)
{
    struct stat status;
    bool all = strcmp(step->name, "syncfs") == 0;
    CHECK(fstat(step->fd, &status) == 0);
    for (unsigned i = 0; i < shared->count; i++) {
        struct change *change = &shared->changes[i];
        if (all || (change->device == status.st_dev && change->inode == status.st_ino))
            change->durable = true;
    }
    if (!all && S_ISREG(status.st_mode))
        back_up(step->fd, &status);
}

static void note_write(const struct store_step *step)
{
    struct stat status;
    char backup[PATH_BYTES];
    CHECK(fstat(step->fd, &status) == 0);
    backup_path(&status, backup);
    if (status.st_blocks > 0 &&
        access(backup, F_OK) != 0) /* its bytes are from before this run, and durable */
        back_up(step->fd, &status);
    struct change *change = add_change();
    change->kind = CHANGE_WRITTEN;
    change->device = status.st_dev;
    change->inode = status.st_ino;
}

static int on_step(const struct store_step *step)
{
    pthread_mutex_lock(&mutex);
    int r = 0;
    if (++shared->steps == shared->fault_at) {
        shared->met = true;
        if (shared->fault == FAULT_KILL || shared->fault == FAULT_POWER)
            _exit(99);
        r = shared->fault == FAULT_FULL ? -ENOSPC : -EIO;
    } else if (shared->fault == FAULT_POWER) {
        if (strstr(step->name, "sync"))
            note_sync(step);
        else if (strcmp(step->name, "write") == 0)
            note_write(step);
        else if (strcmp(step->name, "create") == 0 || strcmp(step->name, "rename") == 0 ||
                 strcmp(step->name, "mkdir") == 0)
            note_name(step);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Loses the writes since the last sync: the bytes of that sync come back, or zeros if there was none. */
static int restore_if_lost(const char *path, const struct stat *status, int type, struct FTW *where)
{
    char backup[PATH_BYTES];
    (void)where;
    for (unsigned i = 0; type == FTW_F && i < shared->count; i++) {
        const struct change *change = &shared->changes[i];
        if (change->kind != CHANGE_WRITTEN || change->durable || change->inode != status->st_ino ||
            change->device != status->st_dev)
            continue;
        backup_path(status, backup);
        if (access(backup, F_OK) == 0)
            copy(backup, path);
        else if (truncate(path, 0) < 0 || truncate(path, status->st_size) < 0) /* its length came through */
            return -1;
    }
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

/* Takes back names first, the newest first, then the bytes of what is left. */
static void cut_power(void)
{
    for (unsigned i = shared->count; i-- > 0;) {
        const struct change *change = &shared->changes[i];
        if (change->durable || change->kind == CHANGE_WRITTEN)
            continue;
        if (change->before[0])
            CHECK(rename(change->before, change->path) == 0 || errno == ENOENT);
        else
            nftw(change->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    CHECK(nftw(root, restore_if_lost, 16, FTW_PHYS) == 0);
}

/* --- the store under test --- */

static struct store *store;
static uint8_t *first_image, *second_image; /* IMAGE_PAGES pages each */

static void path_in(const char *name, char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/%s", root, name);
}

static void fill_page(uint8_t *page, uint64_t seed)
{
    for (unsigned i = 0; i < STORE_PAGE; i += 8) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        memcpy(page + i, &seed, 8);
    }
}

static void write_image(const char *name, const uint8_t *bytes)
{
    char path[PATH_BYTES];
    path_in(name, path);
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(fd >= 0 && write_full_at(fd, bytes, (size_t)IMAGE_PAGES * STORE_PAGE, 0) == 0);
}

static int import(const char *file, const char *name, const char *base)
{
    char path[PATH_BYTES];
    path_in(file, path);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL, *base_manifest = NULL;
    struct object_id id;
    int r = writer_begin(store, &writer);
    if (r == 0 && base && (r = ref_read(store, base, &id)) == 0)
        r = manifest_load(store, &id, &base_manifest);
    if (r == 0) {
        const struct manifest *bases[] = {base_manifest};
        struct ingest_source source = {.name = file,
                                       .bytes = (uint64_t)IMAGE_PAGES * STORE_PAGE,
                                       .fd = fd,
                                       .survey = ingest_survey_holes};
        struct ingest_options options = {.bases = bases, .base_count = base ? 1 : 0, .threads = 1};
        r = ingest(writer, store, &source, &options, &manifest, NULL);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, name);
    writer_end(writer);
    return r;
}

static int operation_import(void)
{
    return import("second.raw", "new", NULL);
}
static int operation_import_over(void)
{
    return import("second.raw", "image", "image");
}
static int operation_clone(void)
{
    char path[PATH_BYTES];
    path_in("volume2", path);
    return volume_create(store, "image", 0, path);
}
static int operation_commit(void)
{
    char path[PATH_BYTES];
    struct ingest_report report;
    path_in("volume", path);
    return volume_commit(store, path, "new", &report);
}
static int operation_gc(void)
{
    struct gc_report report;
    return store_gc(store, false, &report);
}
static int operation_rm(void)
{
    return ref_remove(store, "other");
}
/* Pages 8 to 15 are written and flushed, then 16 to 23 written only. */
static int operation_write(void)
{
    char path[PATH_BYTES];
    struct volume *volume = NULL;
    path_in("volume", path);
    int r = volume_open(store, path, false, &volume);
    if (r == 0)
        r = volume_write(volume, second_image + 8 * STORE_PAGE, 8, 8);
    if (r == 0)
        r = volume_flush(volume);
    if (r == 0)
        r = volume_write(volume, second_image + 16 * STORE_PAGE, 16, 8);
    volume_close(volume);
    return r;
}

static const struct operation {
    const char *name;
    int (*run)(void);
    const char *publishes; /* a name that is afterwards as before, or `second`'s */
} operations[] = {
    {"import", operation_import, "new"},
    {"import over its earlier version", operation_import_over, "image"},
    {"clone", operation_clone, NULL},
    {"commit", operation_commit, "new"},
    {"gc", operation_gc, NULL},
    {"rm", operation_rm, NULL},
    {"write and flush", operation_write, NULL},
};

/* A store with the images "image" and "other", garbage, and a volume that has flushed pages 0 to 7. */
static void build(void)
{
    char path[PATH_BYTES];
    struct volume *volume;
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    CHECK(mkdir(root, 0755) == 0);
    write_image("first.raw", first_image);
    write_image("second.raw", second_image);
    path_in("store", path);
    CHECK(store_init(path) == 0 && store_open(path, &store) == 0);
    CHECK(import("first.raw", "image", NULL) == 0 && import("first.raw", "other", NULL) == 0);
    CHECK(import("second.raw", "garbage", NULL) == 0 && ref_remove(store, "garbage") == 0);
    path_in("volume", path);
    CHECK(volume_create(store, "image", 0, path) == 0 && volume_open(store, path, false, &volume) == 0);
    CHECK(volume_write(volume, second_image, 0, 8) == 0 && volume_flush(volume) == 0);
    volume_close(volume);
}

/* --- judging --- */

static char complaint[1024];

static void on_problem(void *opaque, const char *words)
{
    (void)opaque;
    snprintf(complaint, sizeof(complaint), "verify: %s", words);
}

static bool verifies(void)
{
    struct verify_report report = {0};
    complaint[0] = '\0';
    if (store_verify(store, NULL, on_problem, NULL, NULL, &report) < 0)
        snprintf(complaint, sizeof(complaint), "verify: %s", fail_text());
    return complaint[0] == '\0';
}

/* Whether the image `name` has exactly these bytes: 1, 0 if other ones, -ENOENT if there is none. */
static int image_is(const char *name, const uint8_t *bytes)
{
    struct volume *volume = NULL;
    int r = volume_open_image(store, name, NULL, &volume);
    CLEANUP_FREE uint8_t *read = malloc((size_t)IMAGE_PAGES * STORE_PAGE);
    CHECK(read);
    if (r == 0)
        r = volume_read(volume, read, 0, IMAGE_PAGES);
    if (r == 0)
        r = memcmp(read, bytes, (size_t)IMAGE_PAGES * STORE_PAGE) == 0;
    volume_close(volume);
    return r;
}

/* Flushed pages as flushed; the others as the image has them or as they were last written. */
static bool volume_is_right(void)
{
    char path[PATH_BYTES];
    struct volume *volume = NULL;
    uint8_t page[STORE_PAGE];
    path_in("volume", path);
    int r = volume_open(store, path, true, &volume);
    for (unsigned number = 0; r == 0 && number < 24; number++) {
        size_t at = (size_t)number * STORE_PAGE;
        r = volume_read(volume, page, number, 1);
        bool is_new = memcmp(page, second_image + at, STORE_PAGE) == 0;
        bool is_old = memcmp(page, first_image + at, STORE_PAGE) == 0;
        if (r == 0 && !is_new && (number < 8 || !is_old))
            r = fail(-EIO, "page %u of the volume is neither old nor new", number);
    }
    volume_close(volume);
    if (r < 0)
        snprintf(complaint, sizeof(complaint), "volume: %s", fail_text());
    return r == 0;
}

static bool images_are_right(const struct operation *operation)
{
    int image = image_is("image", first_image), other = image_is("other", first_image);
    if (operation->publishes) {
        bool named = strcmp(operation->publishes, "image") == 0;
        int published = image_is(operation->publishes, second_image);
        if (named && published == 1)
            image = 1;
        if (!named && published != -ENOENT && published != 1 && operation->run != operation_commit)
            image = published;
    }
    if (operation->run == operation_rm && other == -ENOENT)
        other = 1;
    if (image != 1 || other != 1)
        snprintf(complaint, sizeof(complaint), "images: %d %d: %s", image, other, fail_text());
    return image == 1 && other == 1;
}

static bool all_is_right(const struct operation *operation)
{
    struct gc_report report;
    if (!verifies() || !images_are_right(operation) || !volume_is_right())
        return false;
    if (store_gc(store, false, &report) < 0) {
        snprintf(complaint, sizeof(complaint), "gc: %s", fail_text());
        return false;
    }
    return verifies() && images_are_right(operation) && volume_is_right();
}

/* One run with a fault at one step: whether the fault was met. */
static bool run_with_fault(const struct operation *operation, enum fault fault, unsigned at)
{
    char path[PATH_BYTES];
    build();
    shared->steps = shared->count = 0;
    shared->fault_at = at;
    shared->fault = fault;
    shared->met = false;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        store_fault = on_step;
        _exit(operation->run() < 0 ? 1 : 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (shared->met && fault == FAULT_POWER) {
        cut_power();
        store_close(store); /* as after a boot: nothing is vouched for */
        path_in("store", path);
        CHECK(store_open(path, &store) == 0);
        store->boot_tag = 12345;
    }
    return shared->met;
}

int main(int argc, char **argv)
{
    static const char *const faults[] = {"kill", "fail", "full", "power"};
    unsigned number = 0, failed = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: crash DIRECTORY (to work in; it is made and removed)\n");
        return 2;
    }
    snprintf(root, sizeof(root), "%s", argv[1]);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    first_image = malloc((size_t)IMAGE_PAGES * STORE_PAGE);
    second_image = malloc((size_t)IMAGE_PAGES * STORE_PAGE);
    CHECK(first_image && second_image);
    for (unsigned page = 0; page < IMAGE_PAGES; page++) {
        fill_page(first_image + (size_t)page * STORE_PAGE, page);
        /* A few new pages in places, a region that is all new, some zeros. */
        fill_page(second_image + (size_t)page * STORE_PAGE,
                  page % 7 == 0 || page / 512 == 1 || page < 24 ? page + 10000 : page);
        if (page % 50 == 30)
            memset(second_image + (size_t)page * STORE_PAGE, 0, STORE_PAGE);
    }
    printf("1..%zu\n", ARRAY_SIZE(operations) * ARRAY_SIZE(faults));
    for (unsigned o = 0; o < ARRAY_SIZE(operations); o++)
        for (unsigned f = 0; f < ARRAY_SIZE(faults); f++) {
            unsigned at = 1;
            bool right = true;
            while (right && at < STEPS_MAX) {
                bool met = run_with_fault(&operations[o], (enum fault)f, at);
                right = all_is_right(&operations[o]);
                store_close(store);
                if (right && !met)
                    break;
                at += right;
            }
            printf("%sok %u - %s, %s at each of %u steps\n", right ? "" : "not ", ++number,
                   operations[o].name, faults[f], at - 1);
            if (!right)
                printf("# at step %u: %s\n", at, complaint);
            failed += !right;
        }
    nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed > 0;
}
