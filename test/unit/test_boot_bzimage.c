#include "elf_file.h"

#include "boot/boot.h"
#include "boot/bzimage.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

TestSuite(boot_bzimage, .timeout = 30);

#define PAYLOAD_AT  (2 * 512 + 0x40) /* one set-up sector, and some code before the payload */
#define PACKED_MAX  (64 * KIB)
#define SETUP_SECTS 0x1f1

struct image {
    uint8_t bytes[PAYLOAD_AT + PACKED_MAX + 64];
    size_t length;
};

static void put(struct image *image, size_t at, uint32_t value, size_t size)
{
    memcpy(image->bytes + at, &value, size);
}

/* A bzImage around packed data, with the unpacked size behind it as kernels have it. */
static void wrap(struct image *image, const void *packed, size_t length, uint32_t unpacked_size)
{
    memset(image, 0, sizeof(*image));
    put(image, SETUP_SECTS, 1, 1);
    put(image, 0x1fe, 0xaa55, 2);
    memcpy(image->bytes + 0x202, "HdrS", 4);
    put(image, 0x206, 0x20f, 2);
    put(image, 0x248, 0x40, 4);
    put(image, 0x24c, (uint32_t)length + 4, 4);
    memcpy(image->bytes + PAYLOAD_AT, packed, length);
    put(image, PAYLOAD_AT + length, unpacked_size, 4);
    image->length = PAYLOAD_AT + length + 4 + 10; /* and something behind it: a checksum, a signature */
}

static size_t pack_gzip(const void *data, size_t length, uint8_t *packed)
{
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)data,
                       .avail_in = (uInt)length,
                       .next_out = packed,
                       .avail_out = PACKED_MAX};
    cr_assert_eq(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK,
                 "deflateInit2");
    cr_assert_eq(deflate(&stream, Z_FINISH), Z_STREAM_END, "deflate");
    deflateEnd(&stream);
    return PACKED_MAX - stream.avail_out;
}

static size_t pack_bzip2(const void *data, size_t length, uint8_t *packed)
{
    unsigned n = PACKED_MAX;
    cr_assert_eq(
        BZ2_bzBuffToBuffCompress((char *)packed, &n, (char *)(uintptr_t)data, (unsigned)length, 9, 0, 0),
        BZ_OK, "bzip2");
    return n;
}

static size_t pack_xz(const void *data, size_t length, uint8_t *packed)
{
    size_t n = 0;
    cr_assert_eq(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, data, length, packed, &n, PACKED_MAX),
                 LZMA_OK, "xz");
    return n;
}

static size_t pack_lzma(const void *data, size_t length, uint8_t *packed)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_options_lzma options;
    lzma_lzma_preset(&options, 6);
    cr_assert_eq(lzma_alone_encoder(&stream, &options), LZMA_OK, "lzma encoder");
    stream.next_in = data;
    stream.avail_in = length;
    stream.next_out = packed;
    stream.avail_out = PACKED_MAX;
    cr_assert_eq(lzma_code(&stream, LZMA_FINISH), LZMA_STREAM_END, "lzma");
    size_t n = PACKED_MAX - stream.avail_out;
    lzma_end(&stream);
    return n;
}

static size_t pack_lz4(const void *data, size_t length, uint8_t *packed)
{
    static const uint8_t magic[4] = {0x02, 0x21, 0x4c, 0x18};
    memcpy(packed, magic, 4);
    int n = LZ4_compress_default(data, (char *)packed + 8, (int)length, PACKED_MAX - 8);
    cr_assert_gt(n, 0, "lz4");
    memcpy(packed + 4, &n, 4);
    return (size_t)n + 8;
}

static size_t pack_zstd(const void *data, size_t length, uint8_t *packed)
{
    size_t n = ZSTD_compress(packed, PACKED_MAX, data, length, 19);
    cr_assert(!ZSTD_isError(n), "zstd");
    return n;
}

static const struct packer {
    const char *name;
    size_t (*pack)(const void *data, size_t length, uint8_t *packed);
} packers[] = {
    {"gzip", pack_gzip}, {"bzip2", pack_bzip2}, {"xz", pack_xz},
    {"lzma", pack_lzma}, {"lz4", pack_lz4},     {"zstd", pack_zstd},
};

static void pack_image(const struct packer *packer, const void *data, size_t length, struct image *image)
{
    static uint8_t packed[PACKED_MAX];
    size_t n = packer->pack(data, length, packed);
    wrap(image, packed, n, (uint32_t)length);
}

static struct image image; /* large: not on the stack */

Test(boot_bzimage, unpacks_every_kind)
{
    struct elf_file file = elf_file_valid();
    for (unsigned i = 0; i < ARRAY_SIZE(packers); i++) {
        void *vmlinux = NULL;
        size_t length = 0;
        pack_image(&packers[i], &file, sizeof(file), &image);
        cr_assert_eq(bzimage_unpack(image.bytes, image.length, &vmlinux, &length), 0, "%s: %s",
                     packers[i].name, fail_text());
        cr_assert_eq(length, sizeof(file), "%s: %zu bytes", packers[i].name, length);
        cr_assert_arr_eq(vmlinux, &file, sizeof(file), "%s: the bytes", packers[i].name);
        munmap(vmlinux, length);
    }
}

Test(boot_bzimage, does_not_believe_the_size_word)
{
    static const uint32_t lies[] = {0, 1, UINT32_MAX};
    struct elf_file file = elf_file_valid();
    for (unsigned i = 0; i < ARRAY_SIZE(packers); i++)
        for (unsigned lie = 0; lie < ARRAY_SIZE(lies); lie++) {
            void *vmlinux = NULL;
            size_t length = 0;
            pack_image(&packers[i], &file, sizeof(file), &image);
            put(&image, image.length - 14, lies[lie], 4);
            cr_assert_eq(bzimage_unpack(image.bytes, image.length, &vmlinux, &length), 0, "%s: %s",
                         packers[i].name, fail_text());
            cr_assert_eq(length, sizeof(file), "%s: %zu bytes", packers[i].name, length);
            munmap(vmlinux, length);
        }
}

/* Every kind, with a payload cut at any place or with any byte changed: an error, or what it was. */
Test(boot_bzimage, damaged_payloads)
{
    struct elf_file file = elf_file_valid();
    for (unsigned i = 0; i < ARRAY_SIZE(packers); i++) {
        pack_image(&packers[i], &file, sizeof(file), &image);
        size_t packed = image.length - PAYLOAD_AT - 14;
        for (size_t cut = 0; cut < packed; cut++) {
            void *vmlinux = NULL;
            size_t length = 1234;
            put(&image, 0x24c, (uint32_t)cut, 4);
            int error = bzimage_unpack(image.bytes, image.length, &vmlinux, &length);
            /* Some end with a checksum that a decoder need not read to have everything. */
            cr_expect(error == -ENOEXEC || (error == 0 && length == sizeof(file)),
                      "%s cut to %zu: %d, %zu bytes", packers[i].name, cut, error, length);
            cr_expect(error == 0 || length == 1234, "%s cut to %zu: the out-parameter is untouched",
                      packers[i].name, cut);
            if (error == 0)
                munmap(vmlinux, length);
        }
        for (size_t at = 0; at < packed; at++) {
            void *vmlinux = NULL;
            size_t length = 0;
            pack_image(&packers[i], &file, sizeof(file), &image);
            image.bytes[PAYLOAD_AT + at] ^= 0x55;
            if (bzimage_unpack(image.bytes, image.length, &vmlinux, &length) == 0)
                munmap(vmlinux, length);
        }
    }
}

Test(boot_bzimage, lying_headers)
{
    static const struct {
        size_t at, size;
        uint32_t value;
        const char *message;
    } rows[] = {
        {0x1fe, 2, 0x55aa, "not a bzImage"},
        {0x202, 1, 'h', "not a bzImage"},
        {0x206, 2, 0x207, "boot protocol 2.07"},
        {0x248, 4, UINT32_MAX, "truncated"},
        {0x248, 4, PACKED_MAX * 2, "truncated"},
        {0x24c, 4, UINT32_MAX, "truncated"},
        {0x24c, 4, 0, "unknown program"},
        {0x24c, 4, 7, "unknown program"},
        {SETUP_SECTS, 1, 255, "truncated"},
        {SETUP_SECTS, 1, 0, ""},
        {PAYLOAD_AT, 4, 0x464c457f, "unknown program"},
    };
    struct elf_file file = elf_file_valid();
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        void *vmlinux = NULL;
        size_t length = 0;
        pack_image(&packers[0], &file, sizeof(file), &image);
        put(&image, rows[i].at, rows[i].value, rows[i].size);
        cr_expect_eq(bzimage_unpack(image.bytes, image.length, &vmlinux, &length), -ENOEXEC, "row %u", i);
        cr_expect(strstr(fail_text(), rows[i].message), "row %u: '%s' does not say '%s'", i, fail_text(),
                  rows[i].message);
    }
}

Test(boot_bzimage, refuses_what_is_no_vmlinux)
{
    void *vmlinux = NULL;
    size_t length = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(packers); i++) {
        pack_image(&packers[i], "#!/bin/sh\n", 10, &image);
        cr_expect_eq(bzimage_unpack(image.bytes, image.length, &vmlinux, &length), -ENOEXEC, "%s",
                     packers[i].name);
        cr_expect(strstr(fail_text(), "something else"), "%s: %s", packers[i].name, fail_text());
    }
}

/* 1 GiB and more of zeros in a few bytes: blocks of lz4 that repeat one byte, 8 MiB each, in 33 KB. */
Test(boot_bzimage, stops_at_a_gibibyte)
{
    enum { BLOCKS = 129, BLOCK = 8 << 20 };
    char *zeros = calloc(1, BLOCK);
    int bound = LZ4_compressBound(BLOCK);
    char *packed = malloc((size_t)bound);
    int n = LZ4_compress_default(zeros, packed, BLOCK, bound);
    size_t payload = 4 + BLOCKS * ((size_t)n + 4) + 4, total = PAYLOAD_AT + payload;
    uint8_t *bomb = calloc(1, total);
    pack_image(&packers[4], zeros, 16, &image); /* for its header */
    memcpy(bomb, image.bytes, PAYLOAD_AT + 4);
    uint32_t size = (uint32_t)payload;
    memcpy(bomb + 0x24c, &size, 4);
    for (size_t i = 0; i < BLOCKS; i++) {
        uint8_t *block = bomb + PAYLOAD_AT + 4 + i * ((size_t)n + 4);
        memcpy(block, &n, 4);
        memcpy(block + 4, packed, (size_t)n);
    }
    void *vmlinux = NULL;
    size_t length = 0;
    cr_assert_eq(bzimage_unpack(bomb, total, &vmlinux, &length), -EFBIG, "%s", fail_text());
    free(bomb);
    free(packed);
    free(zeros);
}

Test(boot_bzimage, boots_as_its_vmlinux_would)
{
    struct elf_file file = elf_file_valid();
    pack_image(&packers[2], &file, sizeof(file), &image);
    CLEANUP_FD int fd = file_of(image.bytes, image.length);
    struct guest_mem mem;
    cr_assert_eq(guest_mem_new(4 * MIB, GUEST_PAGES_THP_OFF, &mem), 0, "%s", fail_text());
    struct boot_config config = {
        .kernel_fd = fd, .kernel_name = "bzImage", .initrd_fd = -1, .cmdline = "", .cpu_count = 1};
    struct boot_entry entry;
    cr_assert_eq(boot_load(&config, &mem, &entry), 0, "%s", fail_text());
    cr_assert_eq(entry.kernel_entry.value, ELF_ENTRY_GPA, "the entry point");
    cr_assert_arr_eq(guest_mem_at(&mem, gpa(ELF_TEXT_GPA), sizeof(file.text)), file.text, sizeof(file.text),
                     "text");
    guest_mem_free(&mem);
}

Test(boot_bzimage, words_name_the_file)
{
    pack_image(&packers[5], "nothing", 7, &image);
    CLEANUP_FD int fd = file_of(image.bytes, image.length);
    struct guest_mem mem;
    cr_assert_eq(guest_mem_new(4 * MIB, GUEST_PAGES_THP_OFF, &mem), 0, "%s", fail_text());
    struct boot_config config = {
        .kernel_fd = fd, .kernel_name = "vmlinuz", .initrd_fd = -1, .cmdline = "", .cpu_count = 1};
    struct boot_entry entry;
    cr_assert_eq(boot_load(&config, &mem, &entry), -ENOEXEC, "refused");
    cr_assert(strncmp(fail_text(), "vmlinuz: the bzImage holds", 26) == 0, "%s", fail_text());
    guest_mem_free(&mem);
}
