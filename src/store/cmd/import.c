#include "store/cmd/cmd.h"
#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/*
 * What a file looked like when it was imported, so that importing it again need not read it: the trick of
 * borg, restic and git's index. Whoever changes a file without changing its inode's change time (only the
 * clock set back does that) wants --reread. A file changed within the last two seconds is not remembered, as
 * it may change again unnoticed.
 */
#define RACY_SECONDS 2
#define IDENTITY_MAX 1024

static int identity_of(int fd, const struct call *call, char identity[IDENTITY_MAX])
{
    struct stat status;
    struct timespec now;
    if (fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", call->arguments[0]);
    clock_gettime(CLOCK_REALTIME, &now);
    identity[0] = '\0';
    if (!S_ISREG(status.st_mode) || status.st_ctim.tv_sec + RACY_SECONDS > now.tv_sec)
        return 0;
    snprintf(identity, IDENTITY_MAX, "%llx %llu %lld %lld.%09ld %lld.%09ld budget %u %.80s %.80s",
             (unsigned long long)status.st_dev, (unsigned long long)status.st_ino, (long long)status.st_size,
             (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, (long long)status.st_ctim.tv_sec,
             status.st_ctim.tv_nsec, call->budget, call->image ? call->image : "-",
             call->platform ? call->platform : "-");
    return 0;
}

static void cache_path(const char *name, char path[STORE_NAME_MAX + 16])
{
    snprintf(path, STORE_NAME_MAX + 16, "%s.source", name);
}

/* Whether `name` is what this very file was imported as. */
static bool is_unchanged(const struct call *call, const char *identity, struct object_id *ret_manifest)
{
    char path[STORE_NAME_MAX + 16], remembered[IDENTITY_MAX + OBJECT_ID_TEXT],
        current[IDENTITY_MAX + OBJECT_ID_TEXT];
    char text[OBJECT_ID_TEXT];
    if (call->reread || !identity[0] || ref_read(call->store, call->arguments[1], ret_manifest) < 0)
        return false;
    cache_path(call->arguments[1], path);
    snprintf(current, sizeof(current), "%s %s\n", identity, object_id_text(ret_manifest, text));
    return text_read(call->store->cache, path, remembered, sizeof(remembered)) == 0 &&
           strcmp(remembered, current) == 0;
}

/* Not made durable: one that is missing or torn costs reading the file again. */
static void remember(const struct call *call, const char *identity, const struct object_id *manifest)
{
    char path[STORE_NAME_MAX + 16], text[OBJECT_ID_TEXT];
    cache_path(call->arguments[1], path);
    unlinkat(call->store->cache, path, 0);
    if (!identity[0])
        return;
    CLEANUP_FD int fd = openat(call->store->cache, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0)
        dprintf(fd, "%s %s\n", identity, object_id_text(manifest, text));
}

struct bases {
    const struct manifest *list[20];
    unsigned count;
};

static void bases_free(struct bases *bases)
{
    for (unsigned i = 0; i < bases->count; i++)
        manifest_free((struct manifest *)(uintptr_t)bases->list[i]);
}

/* The image's own earlier version, if there is one that can be read, then those of --base. */
static int load_bases(const struct call *call, struct bases *bases)
{
    struct object_id id;
    struct manifest *manifest;
    if (ref_read(call->store, call->arguments[1], &id) == 0 &&
        manifest_load(call->store, &id, &manifest) == 0)
        bases->list[bases->count++] = manifest;
    for (unsigned i = 0; i < call->base_count; i++) {
        int r = ref_read(call->store, call->bases[i], &id);
        if (r == 0)
            r = manifest_load(call->store, &id, &manifest);
        if (r != 0)
            return r;
        bases->list[bases->count++] = manifest;
    }
    return 0;
}

struct result {
    struct object_id manifest;
    uint64_t bytes;
    bool unchanged;
    struct ingest_report report;
    struct writer_report written;
    double seconds;
};

static int print_result(const struct call *call, const struct prepared *prepared, const struct result *result)
{
    char manifest[OBJECT_ID_TEXT], size[SIZE_TEXT_MAX], stored[SIZE_TEXT_MAX], speed[SIZE_TEXT_MAX];
    object_id_text(&result->manifest, manifest);
    if (call->json)
        return print_json(json_pack(
            "{s:s, s:s, s:s, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:f}", "name", call->arguments[1],
            "manifest", manifest, "source", prepared->kind, "bytes", (json_int_t)result->bytes, "unchanged",
            result->unchanged, "bytes_read", (json_int_t)result->report.bytes_read, "bytes_zero",
            page_bytes(result->report.pages_zero), "bytes_known", page_bytes(result->report.pages_known),
            "bytes_stored", (json_int_t)result->written.bytes_new, "objects_stored",
            (json_int_t)result->written.objects_new, "regions_over_budget",
            (json_int_t)result->report.regions_over_budget, "seconds", result->seconds));
    size_text(result->bytes, size);
    if (result->unchanged) {
        printf("%s: unchanged, %s (%.12s)\n", call->arguments[1], size, manifest);
        return 0;
    }
    size_text((uint64_t)((double)result->report.bytes_read / MAX(result->seconds, 1e-6)), speed);
    printf("%s: %s of %s, %s stored in %llu objects, %.2f s, %s/s read (%.12s)\n", call->arguments[1],
           prepared->kind, size, size_text(result->written.bytes_new, stored),
           (unsigned long long)result->written.objects_new, result->seconds, speed, manifest);
    return 0;
}

static int store_image(const struct call *call, const struct prepared *prepared, struct result *result)
{
    struct bases bases = {.count = 0};
    struct store_writer *writer = NULL;
    struct progress progress;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = writer_begin(call->store, &writer);
    if (r == 0)
        r = load_bases(call, &bases);
    if (r == 0) {
        struct ingest_source source = {.name = call->arguments[0],
                                       .bytes = prepared->bytes,
                                       .fd = prepared->fd,
                                       .survey = ingest_survey_holes};
        struct ingest_options options = {.bases = bases.list,
                                         .base_count = bases.count,
                                         .budget = call->budget,
                                         .progress = isatty(STDERR_FILENO) ? progress_update : NULL,
                                         .opaque = &progress};
        progress_begin(&progress, call->arguments[1], prepared->bytes);
        r = ingest(writer, call->store, &source, &options, &manifest, &result->report);
        progress_end(&progress);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, call->arguments[1]);
    if (r == 0) {
        result->manifest = manifest->id;
        result->written = writer_report(writer);
    }
    writer_end(writer);
    bases_free(&bases);
    return r;
}

int command_import(const struct call *call)
{
    struct prepared prepared = {.fd = -1};
    struct result result = {0};
    char identity[IDENTITY_MAX] = "";
    int64_t started = now_nanoseconds();
    int r = ref_check_name(call->arguments[1]);
    if (r == 0)
        r = source_prepare(call, &prepared);
    if (r == 0 && prepared.file)
        r = identity_of(prepared.fd, call, identity);
    if (r == 0) {
        result.bytes = prepared.bytes;
        result.unchanged = is_unchanged(call, identity, &result.manifest);
        if (!result.unchanged) {
            char after[IDENTITY_MAX] = "";
            r = store_image(call, &prepared, &result);
            if (r == 0 && prepared.file)
                r = identity_of(prepared.fd, call, after);
            /* Changed while it was read: what is stored may be a mixture, and is not to be taken for the
             * file. */
            if (r == 0)
                remember(call, strcmp(identity, after) == 0 ? identity : "", &result.manifest);
        }
    }
    cleanup_fd(&prepared.fd);
    if (r < 0)
        return r;
    result.seconds = seconds_since(started);
    return print_result(call, &prepared, &result);
}
