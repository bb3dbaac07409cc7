/* store: manifests as bytes. What is written is what it was in every earlier version; what lies is
 * refused. */
#include "store/manifest.h"
#include "store/volume_files.h"
#include "store/wire.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>

TestSuite(format, .timeout = 20);

/* Two objects, three extents, an image that ends inside a page. Its bytes are test/golden/manifest-v1. */
static struct manifest *example(void)
{
    struct manifest_builder *builder = NULL;
    struct manifest *manifest = NULL;
    struct object_id ids[3];
    uint32_t objects[3];
    cr_assert_eq(manifest_builder_new(1600 * STORE_PAGE - 3584, &builder), 0, "%s", fail_text());
    for (unsigned i = 0; i < 3; i++) {
        memset(ids[i].bytes, 0xa0 + (int)(i % 2),
               sizeof(ids[i].bytes)); /* the third is the first once more */
        cr_assert_eq(manifest_builder_object(builder, &objects[i]), 0, "%s", fail_text());
        manifest_builder_name(builder, objects[i], &ids[i], i % 2 ? 40 : 512);
    }
    cr_assert_eq(manifest_builder_add(builder, 0, 200, objects[0], 0), 0, "%s", fail_text());
    cr_assert_eq(manifest_builder_add(builder, 200, 312, objects[2], 200), 0, "%s",
                 fail_text()); /* joins it */
    cr_assert_eq(manifest_builder_add(builder, 1000, 40, objects[1], 0), 0, "%s", fail_text());
    cr_assert_eq(manifest_builder_add(builder, 1599, 1, objects[0], 7), 0, "%s", fail_text());
    cr_assert_eq(manifest_builder_finish(builder, &manifest), 0, "%s", fail_text());
    manifest_builder_free(builder);
    return manifest;
}

Test(format, a_manifest_is_what_it_always_was)
{
    struct manifest *manifest = example();
    uint8_t golden[4096];
    int fd = open("test/golden/manifest-v1", O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0, "test/golden/manifest-v1 cannot be opened (tests run at the top of the tree)");
    ssize_t length = read(fd, golden, sizeof(golden));
    close(fd);
    cr_assert_eq((size_t)length, manifest->length, "%zd bytes in the golden file, %zu now", length,
                 manifest->length);
    cr_assert_eq(memcmp(golden, manifest->bytes, manifest->length), 0, "other bytes than in the golden file");
    manifest_free(manifest);
}

Test(format, a_lookup_finds_objects_and_zeros)
{
    struct manifest *manifest = example();
    static const struct {
        uint64_t page, pages;
        bool zero;
        uint32_t object, object_page;
    } rows[] = {
        {0, 512, false, 0, 0},   {511, 1, false, 0, 511}, {512, 488, true, 0, 0},  {999, 1, true, 0, 0},
        {1000, 40, false, 1, 0}, {1039, 1, false, 1, 39}, {1040, 559, true, 0, 0}, {1599, 1, false, 0, 7},
    };
    cr_assert_eq(manifest->object_count, 2, "the same object twice was kept twice");
    cr_assert_eq(manifest->extent_count, 3, "extents that continue each other were not joined");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct manifest_run run = manifest_lookup(manifest, rows[i].page);
        cr_assert(run.zero == rows[i].zero && run.pages == rows[i].pages, "page %llu: %llu pages",
                  (unsigned long long)rows[i].page, (unsigned long long)run.pages);
        if (!run.zero)
            cr_assert(run.object == rows[i].object && run.object_page == rows[i].object_page,
                      "page %llu: %u %u", (unsigned long long)rows[i].page, run.object, run.object_page);
    }
    manifest_free(manifest);
}

Test(format, a_manifest_that_lies_is_refused)
{
    static const struct {
        const char *what;
        unsigned at, bytes;
        uint64_t value;
    } lies[] = {
        {"magic", 0, 4, 0},
        {"version", 8, 4, 2},
        {"header length", 12, 4, 65},
        {"its own length", 16, 8, 1},
        {"image too large", 24, 8, UINT64_MAX},
        {"image shorter than its extents", 24, 8, 4096},
        {"page size", 32, 4, 512},
        {"object size", 36, 4, 4096},
        {"object count", 40, 8, 3},
        {"object count that wraps", 40, 8, UINT64_MAX / 40 + 2},
        {"extent count", 48, 8, 4},
        {"extent count that wraps", 48, 8, UINT64_MAX / 16 + 2},
        {"what is to be zero", 56, 8, 1},
        {"an object of no pages", 64 + 32, 4, 0},
        {"an object of too many pages", 64 + 32, 4, 513},
        {"an object's padding", 64 + 36, 4, 1},
        {"extents out of order", 144 + 16, 8, 3},
        {"an extent beyond the image", 144 + 32, 8, 1600},
        {"a first page that wraps", 144 + 32, 8, UINT64_MAX},
        {"an object that is not there", 144 + 8, 4, 7},
        {"objects not in order of use", 144 + 8, 4, 1},
        {"an extent of no pages", 144 + 12, 2, 0},
        {"an extent outside its object", 144 + 14, 2, 1},
        {"an unused object", 144 + 16 + 8, 4, 0},
    };
    struct manifest *good = example(), *bad = NULL;
    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        uint8_t *bytes = malloc(good->length);
        uint64_t value = htole64(lies[i].value);
        memcpy(bytes, good->bytes, good->length);
        memcpy(bytes + lies[i].at, &value, lies[i].bytes);
        int r = manifest_parse(bytes, good->length, false, &bad); /* the fields alone must do */
        cr_assert(r == -EBADMSG || r == -EPROTO, "%s: %d", lies[i].what, r);
        cr_assert_null(bad, "%s: set on failure", lies[i].what);
    }
    manifest_free(good);
}

Test(format, every_shorter_manifest_and_every_changed_byte_is_refused)
{
    struct manifest *good = example(), *bad = NULL;
    for (size_t length = 0; length < good->length; length++) {
        uint8_t *bytes = malloc(length + 1);
        memcpy(bytes, good->bytes, length);
        cr_assert_lt(manifest_parse(bytes, length, true, &bad), 0, "%zu bytes of it were taken", length);
    }
    for (size_t at = 0; at < good->length; at++) {
        uint8_t *bytes = malloc(good->length);
        memcpy(bytes, good->bytes, good->length);
        bytes[at] ^= 0x10;
        cr_assert_lt(manifest_parse(bytes, good->length, true, &bad), 0, "byte %zu may be anything", at);
    }
    manifest_free(good);
}

Test(format, an_empty_image_is_an_image)
{
    struct manifest_builder *builder = NULL;
    struct manifest *manifest = NULL;
    cr_assert_eq(manifest_builder_new(0, &builder), 0, "%s", fail_text());
    cr_assert_eq(manifest_builder_finish(builder, &manifest), 0, "%s", fail_text());
    cr_assert_eq(manifest->image_pages, 0, "it has pages");
    manifest_free(manifest);
    manifest_builder_free(builder);
}

Test(format, volume_descriptions_are_checked)
{
    static const char good[] =
        "{\"format\": \"stellarium-volume\", \"version\": 1, "
        "\"id\": \"00112233445566778899aabbccddeeff\", \"manifest\": "
        "\"0000000000000000000000000000000000000000000000000000000000000001\", \"bytes\": 4096}";
    static const struct {
        const char *text;
        int result;
    } rows[] = {
        {"", -EBADMSG},
        {"[]", -EBADMSG},
        {"{\"format\": \"other\", \"version\": 1}", -EBADMSG},
        {"{\"format\": \"stellarium-volume\", \"version\": 2}", -EPROTO},
        {"{\"format\": \"stellarium-volume\", \"version\": 1, \"id\": \"../../etc\", \"manifest\": \"00\", "
         "\"bytes\": 1}",
         -EBADMSG},
        {"{\"format\": \"stellarium-volume\", \"version\": 1, \"version\": 1}", -EBADMSG},
    };
    struct volume_description description;
    cr_assert_eq(volume_description_parse(good, "v", &description), 0, "%s", fail_text());
    cr_assert_eq(description.bytes, 4096, "bytes");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        cr_assert_eq(volume_description_parse(rows[i].text, "v", &description), rows[i].result, "%s",
                     rows[i].text);
}

Test(format, a_map_header_is_what_it_always_was)
{
    uint8_t header[STORE_PAGE], golden[128];
    struct volume_description description = {.bytes = 123 * 512};
    memset(&description.manifest, 0x5a, sizeof(description.manifest));
    strcpy(description.id, "00112233445566778899aabbccddeeff");
    volume_map_header(&description, true, header);
    int fd = open("test/golden/volume-map-v1", O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0, "test/golden/volume-map-v1 cannot be opened");
    cr_assert_eq(read(fd, golden, sizeof(golden)), sizeof(golden), "the golden file is too short");
    close(fd);
    cr_assert_eq(memcmp(golden, header, sizeof(golden)), 0, "other bytes than in the golden file");
}

Test(format, names_are_checked)
{
    static const char *const good[] = {"a", "debian-12", "reg.io:tag@1+b", "A_z.9"};
    static const char *const bad[] = {"", ".", "..", ".hidden", "-x", "a/b", "a b", "a\n", "\xc3\xa4"};
    char longest[STORE_NAME_MAX + 1];
    memset(longest, 'x', sizeof(longest));
    longest[STORE_NAME_MAX] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        cr_assert_eq(ref_check_name(good[i]), 0, "'%s' refused", good[i]);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        cr_assert_eq(ref_check_name(bad[i]), -EINVAL, "'%s' taken", bad[i]);
    cr_assert_eq(ref_check_name(longest), -EINVAL, "128 characters taken");
    longest[STORE_NAME_MAX - 1] = '\0';
    cr_assert_eq(ref_check_name(longest), 0, "127 characters refused");
}
