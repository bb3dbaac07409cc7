/*
 * What a PVH kernel is handed in EBX (xen/include/public/arch-x86/hvm/start_info.h): the start info, and
 * behind it the list of modules (the initrd is the only one) and the memory map.
 */
#pragma once

#include "vcpu/mem.h"

#define PVH_MAGIC 0x336ec578u /* "xEn3" with the top bit of the E set */

struct pvh_start_info {
    uint32_t magic;
    uint32_t version; /* 1: has a memory map */
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;
    uint64_t cmdline;
    uint64_t rsdp;
    uint64_t memory_map;
    uint32_t memory_map_count;
    uint32_t reserved;
};

struct pvh_module {
    uint64_t address;
    uint64_t size;
    uint64_t cmdline;
    uint64_t reserved;
};

/* As in e820. */
enum pvh_memory_type { PVH_MEMORY_RAM = 1, PVH_MEMORY_RESERVED = 2 };

struct pvh_memory {
    uint64_t address;
    uint64_t size;
    uint32_t type;
    uint32_t reserved;
};

struct pvh_initrd {
    uint64_t address; /* guest physical */
    uint64_t size;    /* 0: none */
};

/*
 * Reads the initrd into guest memory, right behind the kernel: a 2 MiB page of memory that is not touched is
 * one that the host need not clear. -EINVAL not a regular file, or empty; -EFBIG it does not fit; -EPIPE it
 * became shorter while it was read; read errors as they are. `fd` may be -1: no initrd.
 */
int pvh_load_initrd(int fd, const char *name, uint64_t kernel_end, const struct guest_mem *mem,
                    struct pvh_initrd *ret_initrd);

/* Writes start info, module list and memory map to LAYOUT_PVH_INFO_GPA; the other addresses are the
 * layout's. */
int pvh_write(const struct guest_mem *mem, const struct pvh_initrd *initrd);
