/*
 * ELF loader over a small guest. What comes out is checked too: the entry point is in memory and above 1 MiB,
 * and nothing below 1 MiB was written.
 */
#include "boot/elf.h"
#include "vcpu/layout.h"

#include <string.h>

#define MEMORY (4 * MIB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_mem mem;
    static const uint8_t zeros[LAYOUT_HIGH_RAM_GPA];
    if (mem.size == 0)
        CHECK(guest_mem_new(MEMORY, GUEST_PAGES_THP_OFF, &mem) == 0);

    uint8_t *copy = malloc(size ? size : 1); /* of its own, so that ASan sees reads behind it */
    CHECK(copy);
    memcpy(copy, data, size);
    struct kernel_source source = {.name = "fuzz", .fd = -1, .bytes = copy, .length = size};
    struct elf_image image;
    if (elf_load(&source, &mem, &image) == 0) {
        CHECK(image.entry >= LAYOUT_HIGH_RAM_GPA && image.entry < image.end && image.end <= MEMORY);
        CHECK(guest_mem_at(&mem, gpa(image.entry), 1) != NULL);
    }
    CHECK(memcmp(mem.regions[0].host, zeros, sizeof(zeros)) == 0);
    free(copy);
    return 0;
}
