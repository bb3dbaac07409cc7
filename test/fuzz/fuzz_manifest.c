/* Manifests: whatever the bytes say, parsing refuses it or gives one in which every page can be looked up. */
#include "store/manifest.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    struct manifest *manifest;
    if (!bytes)
        return 0;
    memcpy(bytes, data, size);
    if (manifest_parse(bytes, size, false, &manifest) < 0)
        return 0;
    uint64_t page = 0, steps = 0;
    while (page < manifest->image_pages) {
        struct manifest_run run = manifest_lookup(manifest, page);
        CHECK(run.pages > 0 && run.pages <= manifest->image_pages - page);
        if (!run.zero) {
            struct object_id id;
            unsigned pages;
            manifest_object(manifest, run.object, &id, &pages);
            CHECK(run.object_page + run.pages <= pages);
        }
        page += run.pages;
        CHECK(++steps <= 2 * manifest->extent_count + 1);
    }
    manifest_free(manifest);
    return 0;
}
