/*
 * A bzImage is a boot sector, some more sectors of set-up code, and then 32-bit code that holds the
 * compressed vmlinux. The header in the first sectors says where (Documentation/arch/x86/boot.rst,
 * payload_offset and payload_length); the compressor is known by its first bytes. Behind the compressed data
 * stands a word with the unpacked size, which is not needed here: the output is an address range as large as
 * the bound, of which only what is written becomes memory.
 */
#include "boot/bzimage.h"

#include <bzlib.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define UNPACKED_MAX (1 * GIB)
/* The strongest setting of xz needs 64 MiB to unpack; kernels are packed with 32 (scripts/xz_wrap.sh). */
#define XZ_MEMORY_MAX (256 * MIB)

#define SECTOR 512u

/* Offsets into the file: boot.rst, "The Real-Mode Kernel Header". */
enum {
    AT_SETUP_SECTORS = 0x1f1,
    AT_BOOT_MAGIC = 0x1fe,
    AT_HEADER_MAGIC = 0x202,
    AT_VERSION = 0x206,
    AT_PAYLOAD_OFFSET = 0x248,
    AT_PAYLOAD_LENGTH = 0x24c,
    HEADER_END = 0x250,
};
#define VERSION_WITH_PAYLOAD 0x208

struct input {
    const uint8_t *bytes;
    size_t length;
};

struct output {
    uint8_t *bytes;
    size_t length; /* out: how much was written */
};

static int damaged(const char *compressor)
{
    return fail(-ENOEXEC, "the bzImage's %s data is damaged (is the file truncated?)", compressor);
}

static int too_large(void)
{
    return fail(-EFBIG, "the bzImage unpacks to more than %llu MiB: that is no kernel",
                (unsigned long long)(UNPACKED_MAX / MIB));
}

static int unpack_gzip(struct input input, struct output *output)
{
    z_stream stream = {
        .next_in = (Bytef *)(uintptr_t)input.bytes, /* zlib does not write there */
        .avail_in = (uInt)input.length,
        .next_out = output->bytes,
        .avail_out = UNPACKED_MAX,
    };
    if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK) /* 16: with gzip's header */
        return fail(-ENOMEM, "no memory to unpack the bzImage");
    int result = inflate(&stream, Z_FINISH);
    output->length = UNPACKED_MAX - stream.avail_out;
    inflateEnd(&stream);
    if (result == Z_STREAM_END)
        return 0;
    return stream.avail_out == 0 ? too_large() : damaged("gzip");
}

static int unpack_bzip2(struct input input, struct output *output)
{
    unsigned length = UNPACKED_MAX;
    int result = BZ2_bzBuffToBuffDecompress((char *)output->bytes, &length, (char *)(uintptr_t)input.bytes,
                                            (unsigned)input.length, 0, 0);
    if (result == BZ_MEM_ERROR)
        return fail(-ENOMEM, "no memory to unpack the bzImage");
    if (result != BZ_OK)
        return result == BZ_OUTBUFF_FULL ? too_large() : damaged("bzip2");
    output->length = length;
    return 0;
}

/* Both the xz format and its predecessor. */
static int unpack_xz(struct input input, struct output *output)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_auto_decoder(&stream, XZ_MEMORY_MAX, 0) != LZMA_OK)
        return fail(-ENOMEM, "no memory to unpack the bzImage");
    stream.next_in = input.bytes;
    stream.avail_in = input.length;
    stream.next_out = output->bytes;
    stream.avail_out = UNPACKED_MAX;
    lzma_ret result;
    do /* it stops after each header too */
        result = lzma_code(&stream, LZMA_RUN);
    while (result == LZMA_OK && stream.avail_in > 0 && stream.avail_out > 0);
    size_t left = stream.avail_out;
    lzma_end(&stream);
    if (result == LZMA_MEM_ERROR)
        return fail(-ENOMEM, "no memory to unpack the bzImage");
    if (result != LZMA_STREAM_END)
        return left == 0 ? too_large() : damaged("xz or lzma");
    output->length = UNPACKED_MAX - left;
    return 0;
}

/* The legacy frame: a magic number, then blocks of 8 MiB with their packed size before each
 * (lz4_Frame_format.md). */
static int unpack_lz4(struct input input, struct output *output)
{
    size_t at = sizeof(uint32_t), done = 0;
    size_t end = input.length - sizeof(uint32_t); /* the unpacked size, which nothing tells from a block */
    while (at < end) {
        uint32_t size;
        if (end - at < sizeof(size))
            return damaged("lz4");
        memcpy(&size, input.bytes + at, sizeof(size));
        at += sizeof(size);
        if (size > end - at || size > INT32_MAX)
            return damaged("lz4");
        if (done >= UNPACKED_MAX)
            return too_large();
        int capacity = (int)MIN(UNPACKED_MAX - done, 8 * MIB);
        int n = LZ4_decompress_safe((const char *)input.bytes + at, (char *)output->bytes + done, (int)size,
                                    capacity);
        if (n < 0)
            return damaged("lz4");
        at += size;
        done += (size_t)n;
    }
    output->length = done;
    return 0;
}

static int unpack_zstd(struct input input, struct output *output)
{
    /* The frame's own length: what stands behind it would be taken for another frame. */
    size_t frame = ZSTD_findFrameCompressedSize(input.bytes, input.length);
    if (ZSTD_isError(frame))
        return damaged("zstd");
    size_t length = ZSTD_decompress(output->bytes, UNPACKED_MAX, input.bytes, frame);
    if (ZSTD_isError(length))
        return ZSTD_getErrorCode(length) == ZSTD_error_dstSize_tooSmall ? too_large() : damaged("zstd");
    output->length = length;
    return 0;
}

static const struct compressor {
    uint8_t magic[4];
    uint8_t magic_length;
    int (*unpack)(struct input input, struct output *output);
} compressors[] = {
    {{0x1f, 0x8b}, 2, unpack_gzip},
    {{'B', 'Z', 'h'}, 3, unpack_bzip2},
    {{0xfd, '7', 'z', 'X'}, 4, unpack_xz},
    {{0x5d, 0x00, 0x00}, 3, unpack_xz},
    {{0x02, 0x21, 0x4c, 0x18}, 4, unpack_lz4},
    {{0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
};

static const struct compressor *find_compressor(struct input payload)
{
    for (unsigned i = 0; i < ARRAY_SIZE(compressors); i++)
        if (payload.length >= 2 * sizeof(uint32_t) &&
            memcmp(payload.bytes, compressors[i].magic, compressors[i].magic_length) == 0)
            return &compressors[i];
    return NULL;
}

static uint32_t word_at(const uint8_t *bytes, size_t at, size_t size)
{
    uint32_t word = 0;
    memcpy(&word, bytes + at, size);
    return word;
}

bool bzimage_is(const void *image, size_t length)
{
    const uint8_t *bytes = image;
    return length >= HEADER_END && word_at(bytes, AT_BOOT_MAGIC, 2) == 0xaa55 &&
           memcmp(bytes + AT_HEADER_MAGIC, "HdrS", 4) == 0;
}

static int find_payload(const void *image, size_t length, struct input *ret_payload)
{
    const uint8_t *bytes = image;
    if (!bzimage_is(image, length))
        return fail(-ENOEXEC, "this is not a bzImage");
    uint32_t version = word_at(bytes, AT_VERSION, 2);
    if (version < VERSION_WITH_PAYLOAD)
        return fail(
            -ENOEXEC,
            "the bzImage speaks boot protocol %u.%02u (2.08, of Linux 2.6.24, is the oldest that will do)",
            version >> 8, version & 0xff);
    uint32_t sectors =
        bytes[AT_SETUP_SECTORS] ? bytes[AT_SETUP_SECTORS] : 4; /* 0 means 4, for old loaders' sake */
    uint64_t begin = (uint64_t)(sectors + 1) * SECTOR + word_at(bytes, AT_PAYLOAD_OFFSET, 4);
    uint64_t size = word_at(bytes, AT_PAYLOAD_LENGTH, 4);
    if (begin > length || size > length - begin)
        return fail(-ENOEXEC, "the bzImage ends before its kernel does (is it truncated?)");
    *ret_payload = (struct input){.bytes = bytes + begin, .length = size};
    return 0;
}

int bzimage_unpack(const void *image, size_t length, void **ret_vmlinux, size_t *ret_length)
{
    struct input payload;
    int error = find_payload(image, length, &payload);
    if (error)
        return error;
    const struct compressor *compressor = find_compressor(payload);
    if (!compressor)
        return fail(
            -ENOEXEC,
            "the bzImage is packed by an unknown program (gzip, xz, lzma, bzip2, lz4 and zstd will do)");

    void *area =
        mmap(NULL, UNPACKED_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return fail_errno(-ENOMEM, "no address space to unpack the bzImage (see ulimit -v)");
    struct output output = {.bytes = area};
    error = compressor->unpack(payload, &output);
    if (!error && (output.length < 4 || memcmp(output.bytes, "\177ELF", 4) != 0))
        error = fail(-ENOEXEC, "the bzImage holds something else than a vmlinux");
    if (error) {
        munmap(area, UNPACKED_MAX);
        return error;
    }
    size_t used = align_up(output.length, (uint64_t)sysconf(_SC_PAGESIZE));
    if (used < UNPACKED_MAX)
        munmap((uint8_t *)area + used, UNPACKED_MAX - used);
    *ret_vmlinux = area;
    *ret_length = output.length;
    return 0;
}
