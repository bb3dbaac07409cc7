/* The subcommands that change something, but for import. */
#include "store/cmd/cmd.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int command_init(const struct call *call)
{
    int r = store_init(call->store_path);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:s}", "store", call->store_path));
    if (r == 0)
        printf("%s: an empty store\n", call->store_path);
    return r;
}

/* Written under another name first, so that a failed or interrupted export leaves no half image. A device or
 * a pipe is written as it is. */
static int open_target(const char *path, uint64_t bytes, bool full, char *temporary, size_t size, int *ret_fd)
{
    struct stat status;
    temporary[0] = '\0';
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        *ret_fd = open(path, O_WRONLY | O_CLOEXEC);
        return *ret_fd < 0 ? fail_errno(-errno, "%s", path) : 0;
    }
    snprintf(temporary, size, "%s.partial", path);
    *ret_fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (*ret_fd < 0)
        return fail_errno(-errno, "%s", temporary);
    return !full && ftruncate(*ret_fd, (off_t)bytes) < 0 ? fail_errno(-errno, "%s", temporary) : 0;
}

int command_export(const struct call *call)
{
    const char *name = call->arguments[0], *path = call->arguments[1];
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    CLEANUP_FD int fd = -1;
    struct store_lease *lease = NULL;
    struct object_id id;
    struct progress progress;
    struct stat status;
    char temporary[4096] = "", size[SIZE_TEXT_MAX];
    uint64_t data = 0;
    int r = store_lease_name(call->store, name, &id, &lease);
    if (r == 0)
        r = manifest_load(call->store, &id, &manifest);
    if (r == 0)
        r = open_target(path, manifest->image_bytes, call->full, temporary, sizeof(temporary), &fd);
    if (r == 0 && manifest) {
        for (uint64_t i = 0; i < manifest->extent_count; i++)
            data += (uint64_t)manifest_extent(manifest, i).pages * STORE_PAGE;
        progress_begin(&progress, name, data);
        /* What a device held before shows through holes, so it is given its zeros. */
        bool sparse = !call->full && fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
        r = image_export(call->store, manifest, fd, path, sparse, progress.terminal ? progress_bytes : NULL,
                         &progress);
        progress_end(&progress);
    }
    if (r == 0 && temporary[0] && rename(temporary, path) < 0)
        r = fail_errno(-errno, "%s", path);
    if (r < 0 && fd >= 0 && temporary[0])
        unlink(temporary);
    store_lease_end(lease);
    if (r != 0)
        return r;
    if (call->json)
        return print_json(json_pack("{s:s, s:s, s:I, s:I}", "name", name, "file", path, "bytes",
                                    (json_int_t)manifest->image_bytes, "bytes_data", (json_int_t)data));
    printf("%s: %s written to %s\n", name, size_text(manifest->image_bytes, size), path);
    return 0;
}

int command_clone(const struct call *call)
{
    int64_t started = now_nanoseconds();
    int r = volume_create(call->store, call->arguments[0], call->size, call->arguments[1]);
    double seconds = seconds_since(started);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:s, s:s, s:f}", "image", call->arguments[0], "volume",
                                    call->arguments[1], "seconds", seconds));
    if (r == 0)
        printf("%s: a clone of %s, made in %.2f ms\n", call->arguments[1], call->arguments[0], seconds * 1e3);
    return r;
}

int command_commit(const struct call *call)
{
    struct ingest_report report;
    struct object_id id = {0};
    char manifest[OBJECT_ID_TEXT], size[SIZE_TEXT_MAX];
    int64_t started = now_nanoseconds();
    int r = volume_commit(call->store, call->arguments[0], call->arguments[1], &report);
    if (r == 0)
        r = ref_read(call->store, call->arguments[1], &id);
    if (r < 0)
        return r;
    double seconds = seconds_since(started);
    object_id_text(&id, manifest);
    if (call->json)
        return print_json(json_pack("{s:s, s:s, s:s, s:I, s:f}", "volume", call->arguments[0], "name",
                                    call->arguments[1], "manifest", manifest, "bytes_new",
                                    page_bytes(report.pages_new), "seconds", seconds));
    printf("%s: %s new, %.2f s (%.12s)\n", call->arguments[1], size_text(report.pages_new * STORE_PAGE, size),
           seconds, manifest);
    return 0;
}

int command_rm(const struct call *call)
{
    const char *what = call->arguments[0];
    bool is_volume = strchr(what, '/') != NULL;
    int r = is_volume ? volume_remove(call->store, what) : ref_remove(call->store, what);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:s}", is_volume ? "volume" : "name", what));
    if (r == 0)
        printf("%s: removed (stellarium gc gives its space back)\n", what);
    return r;
}

int command_gc(const struct call *call)
{
    struct gc_report report;
    char size[SIZE_TEXT_MAX];
    int r = store_gc(call->store, call->dry_run, &report);
    if (r < 0)
        return r;
    if (call->json)
        return print_json(json_pack(
            "{s:b, s:I, s:I, s:I, s:I, s:I}", "dry_run", call->dry_run, "objects_deleted",
            (json_int_t)report.objects_deleted, "manifests_deleted", (json_int_t)report.manifests_deleted,
            "leftovers_deleted", (json_int_t)report.leftovers_deleted, "bytes_deleted",
            (json_int_t)report.bytes_deleted, "objects_kept", (json_int_t)report.objects_kept));
    printf("%s %s in %llu objects and %llu manifests; %llu objects stay\n",
           call->dry_run ? "would delete" : "deleted", size_text(report.bytes_deleted, size),
           (unsigned long long)report.objects_deleted, (unsigned long long)report.manifests_deleted,
           (unsigned long long)report.objects_kept);
    return 0;
}
