/* Putting an ELF kernel with a PVH entry point into guest memory. */
#pragma once

#include "vcpu/mem.h"

/* Where a kernel's bytes come from: a file, or, if `bytes` is set, memory (a bzImage that was unpacked). */
struct kernel_source {
    const char *name; /* for messages */
    int fd;
    const uint8_t *bytes;
    uint64_t length; /* as it was when looked at; a file may shrink or change at any time since */
};

/* Copies [offset, offset + length) of the source to `to`: 0, or -errno with a message; -ENOEXEC the source
 * ends early. */
int kernel_source_read(const struct kernel_source *source, uint64_t offset, void *to, uint64_t length);

struct elf_image {
    uint32_t entry; /* guest physical: what the PVH note says */
    uint64_t end;   /* guest physical: behind the last byte of the image, its bss included */
};

/*
 * Loads an ELF64 or ELF32 x86 executable: its PT_LOAD segments go to their physical addresses, in the low
 * region from 1 MiB up. Memory behind p_filesz is expected to be zero already. Nothing outside of the
 * segments, the program headers and the notes is read. -ENOEXEC not such a file, or it contradicts itself, or
 * has no PVH note; -EFBIG it needs more memory than `mem` has; read errors as they are. After a failure,
 * guest memory holds any part of it.
 */
int elf_load(const struct kernel_source *source, const struct guest_mem *mem, struct elf_image *ret_image);
