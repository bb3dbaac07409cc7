/* The subcommands that change something, but for import. */
#include "store/cmd/cmd.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int command_init(const struct call *call)
{
    int r = store_init(call->store_path);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:o}", "store", json_bytes(call->store_path)));
    if (r == 0)
        printf("%s: an empty store\n", call->store_path);
    return r;
}

/* "-", or a path of what standard output is, as /dev/stdout is. A file would be replaced, so it does not
 * count. */
static bool is_output(const char *path)
{
    struct stat named, output;
    if (strcmp(path, "-") == 0)
        return true;
    return stat(path, &named) == 0 && fstat(STDOUT_FILENO, &output) == 0 && !S_ISREG(named.st_mode) &&
           named.st_dev == output.st_dev && named.st_ino == output.st_ino;
}

int command_export(const struct call *call)
{
    const char *name = call->arguments[0], *path = call->arguments[1];
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    struct store_lease *lease = NULL;
    struct object_id id;
    struct progress progress;
    char size[SIZE_TEXT_MAX];
    uint64_t data = 0;
    bool to_output = is_output(path);
    if (to_output && (call->json || isatty(STDOUT_FILENO)))
        return fail(-EINVAL, "%s: %s", path,
                    call->json ? "the image goes to standard output itself, so --json cannot"
                               : "an image is not for a terminal (send it to a pipe or a file)");
    int r = store_lease_name(call->store, name, &id, &lease);
    if (r == 0)
        r = manifest_load(call->store, &id, &manifest);
    if (r == 0) {
        for (uint64_t i = 0; i < manifest->extent_count; i++)
            data += (uint64_t)manifest_extent(manifest, i).pages * STORE_PAGE;
        progress_begin(&progress, name, data);
        r = image_export_to(call->store, manifest, path, !call->full,
                            progress.terminal ? progress_bytes : NULL, &progress);
        progress_end(&progress);
    }
    store_lease_end(lease);
    if (r != 0)
        return r;
    if (call->json)
        return print_json(json_pack("{s:s, s:o, s:I, s:I}", "name", name, "file", json_bytes(path), "bytes",
                                    (json_int_t)manifest->image_bytes, "bytes_data", (json_int_t)data));
    fprintf(to_output ? stderr : stdout, "%s: %s written to %s\n", name,
            size_text(manifest->image_bytes, size), path);
    return 0;
}

int command_clone(const struct call *call)
{
    int64_t started = now_nanoseconds();
    int r = volume_create(call->store, call->arguments[0], call->size, call->arguments[1]);
    double seconds = seconds_since(started);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:s, s:o, s:f}", "image", call->arguments[0], "volume",
                                    json_bytes(call->arguments[1]), "seconds", seconds));
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
        return print_json(json_pack("{s:o, s:s, s:s, s:I, s:f}", "volume", json_bytes(call->arguments[0]),
                                    "name", call->arguments[1], "manifest", manifest, "bytes_new",
                                    page_bytes(report.pages_new), "seconds", seconds));
    printf("%s: %s new, %.2f s (%.12s)\n", call->arguments[1], size_text(report.pages_new * STORE_PAGE, size),
           seconds, manifest);
    return 0;
}

int command_adopt(const struct call *call)
{
    const char *path = call->arguments[0];
    char id[33];
    int r = volume_adopt(call->store, path, id);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:o, s:s}", "volume", json_bytes(path), "id", id));
    if (r == 0)
        printf("%s: registered as the volume %.12s\n", path, id);
    return r;
}

/* What has a slash in it is a volume's path. Else an image's name comes before a volume's id. */
int command_rm(const struct call *call)
{
    const char *what = call->arguments[0];
    struct object_id manifest;
    char id[33];
    bool is_volume = strchr(what, '/') != NULL;
    int r = is_volume ? volume_remove(call->store, what) : ref_read(call->store, what, &manifest);
    if (!is_volume && r == -ENOENT && volume_find(call->store, what, id) == 0) {
        is_volume = true;
        r = volume_forget(call->store, id);
    } else if (!is_volume && r == -ENOENT) {
        r = fail(r,
                 "%s: no image of this name in %s (stellarium ls lists them; a volume is given by its path, "
                 "./%s, or "
                 "its id)",
                 what, store_path(call->store), what);
    } else if (!is_volume && r != -EINVAL) { /* a damaged one as well */
        r = ref_remove(call->store, what);
    }
    if (r == 0 && call->json)
        return print_json(json_pack("{s:o}", is_volume ? "volume" : "name", json_bytes(what)));
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
            "{s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "dry_run", call->dry_run, "objects_deleted",
            (json_int_t)report.objects_deleted, "manifests_deleted", (json_int_t)report.manifests_deleted,
            "leftovers_deleted", (json_int_t)report.leftovers_deleted, "bytes_deleted",
            (json_int_t)report.bytes_deleted, "objects_kept", (json_int_t)report.objects_kept,
            "volumes_missing", (json_int_t)report.volumes_missing));
    printf("%s %s in %llu objects and %llu manifests; %llu objects stay\n",
           call->dry_run ? "would delete" : "deleted", size_text(report.bytes_deleted, size),
           (unsigned long long)report.objects_deleted, (unsigned long long)report.manifests_deleted,
           (unsigned long long)report.objects_kept);
    if (report.volumes_missing > 0)
        printf("%llu volumes are not where they were registered, and keep what they need (stellarium ls "
               "shows them)\n",
               (unsigned long long)report.volumes_missing);
    return 0;
}
