#include "boot/pvh.h"

#include "vcpu/layout.h"

#include <sys/stat.h>

/* One page at LAYOUT_PVH_INFO_GPA. */
struct pvh_page {
    struct pvh_start_info info;
    struct pvh_module module;
    struct pvh_memory memory[4];
};
_Static_assert(sizeof(struct pvh_start_info) == 56, "the ABI's size");
_Static_assert(sizeof(struct pvh_page) <= GUEST_PAGE, "one page");

int pvh_load_initrd(int fd, const char *name, uint64_t kernel_end, const struct guest_mem *mem,
                    struct pvh_initrd *ret_initrd)
{
    struct stat status;
    if (fd < 0) {
        *ret_initrd = (struct pvh_initrd){0};
        return 0;
    }
    if (fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s: cannot be looked at", name);
    if (!S_ISREG(status.st_mode) || status.st_size == 0)
        return fail(-EINVAL, "%s: not a file with something in it (an initrd is a cpio archive)", name);

    uint64_t size = (uint64_t)status.st_size, low_end = mem->regions[0].size,
             address = align_up(kernel_end, GUEST_PAGE);
    void *to = size <= low_end ? guest_mem_at(mem, gpa(address), size) : NULL;
    if (!to) {
        char text[SIZE_TEXT_MAX];
        return fail(-EFBIG, "%s: %s do not fit the guest's memory (give it more, with --memory)", name,
                    size_text(size, text));
    }
    int error = read_full_at(fd, to, size, 0);
    if (error == -EPIPE)
        return fail(-EPIPE, "%s: became shorter while it was read (is it being written?)", name);
    if (error)
        return fail_errno(error, "%s: cannot be read", name);
    *ret_initrd = (struct pvh_initrd){.address = address, .size = size};
    return 0;
}

int pvh_write(const struct guest_mem *mem, const struct pvh_initrd *initrd)
{
    const struct guest_region *low = &mem->regions[0];
    struct pvh_page page = {
        .info =
            {
                .magic = PVH_MAGIC,
                .version = 1,
                .cmdline = LAYOUT_CMDLINE_GPA,
                .rsdp = LAYOUT_ACPI_GPA,
                .memory_map = LAYOUT_PVH_INFO_GPA + offsetof(struct pvh_page, memory),
                .memory_map_count = 3,
            },
        .memory =
            {
                {.address = 0, .size = LAYOUT_MPTABLE_GPA, .type = PVH_MEMORY_RAM},
                /* Our tables, and where a PC has its BIOS. */
                {.address = LAYOUT_MPTABLE_GPA,
                 .size = LAYOUT_HIGH_RAM_GPA - LAYOUT_MPTABLE_GPA,
                 .type = PVH_MEMORY_RESERVED},
                {.address = LAYOUT_HIGH_RAM_GPA,
                 .size = low->size - LAYOUT_HIGH_RAM_GPA,
                 .type = PVH_MEMORY_RAM},
            },
    };
    if (mem->region_count > 1) {
        page.memory[3] = (struct pvh_memory){
            .address = mem->regions[1].start.value,
            .size = mem->regions[1].size,
            .type = PVH_MEMORY_RAM,
        };
        page.info.memory_map_count = 4;
    }
    if (initrd->size > 0) {
        page.module = (struct pvh_module){.address = initrd->address, .size = initrd->size};
        page.info.modules = LAYOUT_PVH_INFO_GPA + offsetof(struct pvh_page, module);
        page.info.module_count = 1;
    }
    return guest_mem_write(mem, gpa(LAYOUT_PVH_INFO_GPA), &page, sizeof(page));
}
