/* The subcommands that only look. */
#include "store/cmd/cmd.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static void time_text(int64_t seconds, char text[32])
{
    time_t time = (time_t)seconds;
    struct tm local;
    localtime_r(&time, &local);
    strftime(text, 32, "%Y-%m-%d %H:%M", &local);
}

static const struct {
    const char *name, *remedy;
} states[] = {
    [VOLUME_READY] = {"ready", NULL},
    [VOLUME_IN_USE] = {"in use", NULL},
    [VOLUME_MISSING] = {"missing",
                        "not at its path. Mount its disk; or if it was moved, stellarium adopt NEWPATH; "
                        "or if it is gone, stellarium rm ID"},
    [VOLUME_REPLACED] = {"replaced",
                         "something else is at its path. stellarium adopt PATH makes a copy a volume of "
                         "its own; stellarium rm ID forgets what is gone"},
    [VOLUME_DAMAGED] = {"damaged", "a file of it is missing or wrong. stellarium rm ID removes what is left"},
    [VOLUME_HALF_MADE] = {"half made", "by a clone that was interrupted. stellarium gc removes it"},
    [VOLUME_HALF_REMOVED] = {"half removed", "stellarium rm PATH, or gc, goes on with it"},
};

struct listing {
    const struct call *call;
    json_t *volumes;
    bool heading;
    unsigned count[ARRAY_SIZE(states)];
};

static int list_volume(void *opaque, const struct volume_listed *volume)
{
    struct listing *listing = opaque;
    char written[SIZE_TEXT_MAX], manifest[OBJECT_ID_TEXT];
    const char *state = states[volume->state].name;
    object_id_text(&volume->manifest, manifest);
    if (listing->call->json) {
        json_array_append_new(listing->volumes,
                              json_pack("{s:s, s:o, s:s, s:s, s:b, s:I}", "id", volume->id, "path",
                                        json_bytes(volume->path), "manifest", manifest, "state", state,
                                        "present",
                                        volume->state == VOLUME_READY || volume->state == VOLUME_IN_USE,
                                        "bytes_written", (json_int_t)volume->bytes_written));
        return 0;
    }
    if (!listing->heading)
        printf("\n%-12s  %-12s  %10s  %-12s  %s\n", "VOLUME", "STANDS ON", "WRITTEN", "STATE", "PATH");
    listing->heading = true;
    listing->count[volume->state]++;
    printf("%.12s  %.12s  %10s  %-12s  %s\n", volume->id, manifest, size_text(volume->bytes_written, written),
           state, volume->path);
    return 0;
}

static int list_images(const struct call *call, json_t *images)
{
    CLEANUP_FREE struct ref *refs = NULL;
    size_t count = 0;
    int r = ref_list(call->store, &refs, &count);
    if (r == 0 && count > 0 && !call->json)
        printf("%-30s  %10s  %-16s  %s\n", "NAME", "SIZE", "CREATED", "MANIFEST");
    for (size_t i = 0; r == 0 && i < count; i++) {
        CLEANUP_MANIFEST struct manifest *manifest = NULL;
        char size[SIZE_TEXT_MAX] = "damaged", created[32], text[OBJECT_ID_TEXT];
        bool good = !refs[i].damaged && manifest_load(call->store, &refs[i].manifest, &manifest) == 0;
        if (good)
            size_text(manifest->image_bytes, size);
        time_text(refs[i].created, created);
        object_id_text(&refs[i].manifest, text);
        if (call->json)
            json_array_append_new(images,
                                  json_pack("{s:s, s:I, s:I, s:s, s:b}", "name", refs[i].name, "bytes",
                                            (json_int_t)(good ? manifest->image_bytes : 0), "created",
                                            (json_int_t)refs[i].created, "manifest", text, "good", good));
        else
            printf("%-30s  %10s  %-16s  %.12s\n", refs[i].name, size, created, refs[i].damaged ? "" : text);
    }
    return r;
}

int command_ls(const struct call *call)
{
    struct listing listing = {.call = call, .volumes = json_array()};
    json_t *images = json_array();
    int r = list_images(call, images);
    if (r == 0)
        r = store_each_volume(call->store, list_volume, &listing);
    if (r == 0 && call->json)
        return print_json(json_pack("{s:o, s:o}", "images", images, "volumes", listing.volumes));
    for (unsigned i = 0, first = 1; r == 0 && i < ARRAY_SIZE(states); i++)
        if (listing.count[i] > 0 && states[i].remedy) {
            printf("%s%s: %s\n", first ? "\n" : "", states[i].name, states[i].remedy);
            first = 0;
        }
    json_decref(images);
    json_decref(listing.volumes);
    return r;
}

int command_info(const struct call *call)
{
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    struct object_id id;
    uint64_t data = 0, objects = 0;
    int r = ref_read(call->store, call->arguments[0], &id);
    if (r == 0)
        r = manifest_load(call->store, &id, &manifest);
    if (r != 0)
        return r;
    for (uint64_t i = 0; i < manifest->extent_count; i++)
        data += (uint64_t)manifest_extent(manifest, i).pages * STORE_PAGE;
    for (uint64_t i = 0; i < manifest->object_count; i++) {
        struct object_id object;
        unsigned pages;
        manifest_object(manifest, i, &object, &pages);
        objects += (uint64_t)pages * STORE_PAGE;
    }
    char text[OBJECT_ID_TEXT], sizes[4][SIZE_TEXT_MAX];
    object_id_text(&id, text);
    if (call->json)
        return print_json(json_pack(
            "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "name", call->arguments[0], "manifest", text, "bytes",
            (json_int_t)manifest->image_bytes, "bytes_data", (json_int_t)data, "bytes_objects",
            (json_int_t)objects, "objects", (json_int_t)manifest->object_count, "extents",
            (json_int_t)manifest->extent_count, "manifest_bytes", (json_int_t)manifest->length));
    printf("name       %s\nmanifest   %s\nsize       %s (%llu bytes)\nnot zeros  %s\nobjects    %llu of %s "
           "in all\n"
           "extents    %llu, %s on average\n",
           call->arguments[0], text, size_text(manifest->image_bytes, sizes[0]),
           (unsigned long long)manifest->image_bytes, size_text(data, sizes[1]),
           (unsigned long long)manifest->object_count, size_text(objects, sizes[2]),
           (unsigned long long)manifest->extent_count,
           size_text(manifest->extent_count ? data / manifest->extent_count : 0, sizes[3]));
    return 0;
}

static int stat_json(const struct store_usage *usage)
{
    json_t *images = json_array();
    for (size_t i = 0; i < usage->image_count; i++) {
        const struct image_usage *image = &usage->images[i];
        json_array_append_new(images,
                              json_pack("{s:s, s:I, s:I, s:I, s:I, s:s?, s:I}", "name", image->ref.name,
                                        "bytes", (json_int_t)image->logical, "bytes_data",
                                        (json_int_t)image->data, "bytes_objects", (json_int_t)image->objects,
                                        "bytes_exclusive", (json_int_t)image->exclusive, "nearest",
                                        image->nearest == i ? NULL : usage->images[image->nearest].ref.name,
                                        "bytes_shared_with_nearest", (json_int_t)image->nearest_shared));
    }
    return print_json(json_pack("{s:I, s:I, s:I, s:I, s:o}", "bytes_logical", (json_int_t)usage->logical,
                                "bytes_unique", (json_int_t)usage->unique, "bytes_stored",
                                (json_int_t)usage->stored, "volumes", (json_int_t)usage->volumes, "images",
                                images));
}

int command_stat(const struct call *call)
{
    struct store_usage usage;
    char sizes[4][SIZE_TEXT_MAX];
    int r = store_usage(call->store, &usage);
    if (r < 0)
        return r;
    if (call->json) {
        r = stat_json(&usage);
        free(usage.images);
        return r;
    }
    printf("%-30s  %10s  %10s  %10s  %10s  %s\n", "NAME", "SIZE", "NOT ZEROS", "OBJECTS", "ALONE",
           "SHARES MOST WITH");
    for (size_t i = 0; i < usage.image_count; i++) {
        const struct image_usage *image = &usage.images[i];
        char shared[SIZE_TEXT_MAX];
        printf("%-30s  %10s  %10s  %10s  %10s  ", image->ref.name, size_text(image->logical, sizes[0]),
               size_text(image->data, sizes[1]), size_text(image->objects, sizes[2]),
               size_text(image->exclusive, sizes[3]));
        if (image->nearest == i)
            printf("-\n");
        else
            printf("%s (%s)\n", usage.images[image->nearest].ref.name,
                   size_text(image->nearest_shared, shared));
    }
    printf("\n%zu images and %llu volumes of %s in all; %s of objects needed, %s stored (%.1f for 1)\n",
           usage.image_count, (unsigned long long)usage.volumes, size_text(usage.logical, sizes[0]),
           size_text(usage.unique, sizes[1]), size_text(usage.stored, sizes[2]),
           usage.stored ? (double)usage.logical / (double)usage.stored : 0);
    free(usage.images);
    return 0;
}

struct verifying {
    struct progress progress;
    json_t *problems;
    bool json;
};

static void print_problem(void *opaque, const char *message)
{
    struct verifying *verifying = opaque;
    progress_end(&verifying->progress);
    if (verifying->json)
        json_array_append_new(verifying->problems, json_bytes(message));
    else
        fprintf(stderr, "%s\n", message);
}

static void verify_progress(void *opaque, uint64_t done)
{
    struct verifying *verifying = opaque;
    progress_bytes(&verifying->progress, done);
}

int command_verify(const struct call *call)
{
    struct verifying verifying = {.json = call->json, .problems = json_array()};
    struct verify_report report;
    struct store_usage usage;
    const char *name = call->argument_count > 0 ? call->arguments[0] : NULL;
    char size[SIZE_TEXT_MAX];
    uint64_t total = 0;
    if (isatty(STDERR_FILENO) && store_usage(call->store, &usage) == 0) {
        for (size_t i = 0; name && i < usage.image_count; i++)
            if (strcmp(usage.images[i].ref.name, name) == 0)
                total = usage.images[i].objects;
        total = name ? total : usage.stored;
        free(usage.images);
    }
    progress_begin(&verifying.progress, "verify", total);
    int r = store_verify(call->store, name, print_problem, verify_progress, &verifying, &report);
    progress_end(&verifying.progress);
    if (r == 0 && call->json)
        r = print_json(json_pack("{s:I, s:I, s:I, s:I, s:I, s:O}", "objects", (json_int_t)report.objects,
                                 "bytes", (json_int_t)report.bytes, "manifests", (json_int_t)report.manifests,
                                 "names", (json_int_t)report.names, "volumes", (json_int_t)report.volumes,
                                 "problems", verifying.problems));
    else if (r == 0)
        printf("%llu objects (%s), %llu manifests, %llu names, %llu volumes: %llu problems\n",
               (unsigned long long)report.objects, size_text(report.bytes, size),
               (unsigned long long)report.manifests, (unsigned long long)report.names,
               (unsigned long long)report.volumes, (unsigned long long)report.problems);
    json_decref(verifying.problems);
    return r < 0 ? r : report.problems > 0 ? EXIT_NO : EXIT_DONE;
}

struct differing {
    bool json;
    json_t *ranges;
};

static void print_range(void *opaque, uint64_t first_page, uint64_t pages)
{
    struct differing *differing = opaque;
    if (differing->json)
        json_array_append_new(differing->ranges,
                              json_pack("[I, I]", page_bytes(first_page), page_bytes(pages)));
    else
        printf("%lld +%lld\n", page_bytes(first_page), page_bytes(pages));
}

int command_diff(const struct call *call)
{
    CLEANUP_MANIFEST struct manifest *a = NULL, *b = NULL;
    struct store_lease *leases[2] = {NULL, NULL};
    struct differing differing = {.json = call->json, .ranges = json_array()};
    struct image_difference difference = {0};
    struct object_id id;
    char sizes[2][SIZE_TEXT_MAX];
    int r = store_lease_name(call->store, call->arguments[0], &id, &leases[0]);
    if (r == 0)
        r = manifest_load(call->store, &id, &a);
    if (r == 0)
        r = store_lease_name(call->store, call->arguments[1], &id, &leases[1]);
    if (r == 0)
        r = manifest_load(call->store, &id, &b);
    if (r == 0)
        r = image_diff(call->store, a, b, print_range, &differing, &difference);
    store_lease_end(leases[0]);
    store_lease_end(leases[1]);
    if (r == 0 && call->json)
        r = print_json(json_pack("{s:I, s:I, s:O}", "bytes_same", page_bytes(difference.pages_same),
                                 "bytes_different", page_bytes(difference.pages_different), "ranges",
                                 differing.ranges));
    else if (r == 0)
        fprintf(stderr, "%s the same, %s different\n",
                size_text(difference.pages_same * STORE_PAGE, sizes[0]),
                size_text(difference.pages_different * STORE_PAGE, sizes[1]));
    json_decref(differing.ranges);
    return r < 0 ? r : difference.pages_different > 0 ? EXIT_NO : EXIT_DONE;
}
