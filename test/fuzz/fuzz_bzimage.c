/*
 * Unpacking of bzImages. Few mutations of a header leave it valid, so every other input is a payload alone,
 * around which a valid header is put; its first byte says which. The payload is short, as a few KiB of zstd
 * or bzip2 can be a gibibyte of zeros.
 */
#include "boot/bzimage.h"

#include <string.h>
#include <sys/mman.h>

#define PAYLOAD_AT  1024
#define PAYLOAD_MAX 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t wrap(uint8_t *image, const uint8_t *payload, size_t size)
{
    uint32_t length = (uint32_t)size;
    memset(image, 0, PAYLOAD_AT);
    image[0x1f1] = 1; /* one sector of set-up code */
    image[0x1fe] = 0x55;
    image[0x1ff] = 0xaa;
    memcpy(image + 0x202, "HdrS\x0f\x02", 6);
    memcpy(image + 0x24c, &length, sizeof(length));
    memcpy(image + PAYLOAD_AT, payload, size);
    return PAYLOAD_AT + size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > PAYLOAD_AT + PAYLOAD_MAX)
        return -1;
    bool payload_only = data[0] & 1;
    if (payload_only && size - 1 > PAYLOAD_MAX)
        return -1;
    uint8_t *image = malloc(PAYLOAD_AT + size); /* of its own, so that ASan sees reads behind it */
    CHECK(image);
    size_t length = size - 1;
    if (payload_only)
        length = wrap(image, data + 1, size - 1);
    else
        memcpy(image, data + 1, length);
    image = realloc(image, length ? length : 1);
    CHECK(image);

    void *vmlinux = NULL;
    size_t unpacked = 0;
    if (bzimage_unpack(image, length, &vmlinux, &unpacked) == 0) {
        CHECK(unpacked >= 4 && memcmp(vmlinux, "\177ELF", 4) == 0);
        munmap(vmlinux, unpacked);
    }
    free(image);
    return 0;
}
