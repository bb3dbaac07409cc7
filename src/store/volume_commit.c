/* A volume becomes an image. */
#include "store/ingest.h"
#include "store/volume.h"

#include <fcntl.h>

/* Pages of the map that the delta has as data are read; those it has as holes are zeros, which need no
 * look. */
static void survey_delta(const struct ingest_source *source, uint64_t page, uint64_t end, uint64_t first_page,
                         struct region_map *map)
{
    uint64_t at = page * STORE_PAGE, stop = end * STORE_PAGE, data, hole;
    for (; at < stop && file_next_data(source->fd, at, stop, &data, &hole); at = hole)
        for (uint64_t byte = align_down(data, STORE_PAGE); byte < hole; byte += STORE_PAGE)
            region_bit_set(map->read, (unsigned)(byte / STORE_PAGE - first_page));
}

static int survey_volume(const struct ingest_source *source, uint64_t first_page, struct region_map *map)
{
    const struct volume *volume = source->opaque;
    uint64_t end = align_up(source->bytes, STORE_PAGE) / STORE_PAGE, page = first_page;
    end = MIN(end, first_page + REGION_PAGES);
    while (page < end) {
        struct volume_run run = volume_lookup(volume, page, end - page);
        uint64_t stop = MIN(end, page + run.pages);
        if (run.place == VOLUME_DELTA)
            survey_delta(source, page, stop, first_page, map);
        else
            for (uint64_t kept = page; kept < stop; kept++)
                region_bit_set(map->keep, (unsigned)(kept - first_page));
        page = stop;
    }
    return 0;
}

int volume_commit(struct store *store, const char *path, const char *name, struct ingest_report *ret_report)
{
    struct volume *volume = NULL;
    struct store_writer *writer = NULL;
    CLEANUP_MANIFEST struct manifest *manifest = NULL;
    int r = ref_check_name(name);
    if (r == 0) /* for writing: a running VM is kept out */
        r = volume_open(store, path, false, &volume);
    if (r == 0)
        r = writer_begin(store, &writer);
    if (r == 0) {
        const struct manifest *base = volume_manifest(volume);
        struct ingest_source source = {.name = path,
                                       .bytes = volume_bytes(volume),
                                       .fd = volume_delta(volume),
                                       .survey = survey_volume,
                                       .opaque = volume};
        struct ingest_options options = {.bases = &base, .base_count = 1, .in_place_only = true};
        r = ingest(writer, store, &source, &options, &manifest, ret_report);
    }
    if (r == 0)
        r = writer_publish(writer, manifest, name);
    writer_end(writer);
    volume_close(volume);
    return r;
}
