/*
 * Getting a guest to its first instruction: everything that is written into guest memory before the vCPUs
 * run.
 *
 * PVH (Xen's direct boot ABI, xen/include/public/arch-x86/hvm/start_info.h): the kernel is entered in 32-bit
 * protected mode without paging, EBX pointing at hvm_start_info. An ELF vmlinux with the note
 * XEN_ELFNOTE_PHYS32_ENTRY goes in as it is; a bzImage is unpacked first (bzimage.h).
 */
#pragma once

#include "vcpu/mem.h"

struct boot_config {
    int kernel_fd; /* open for reading; file contents are hostile and may change while they are read */
    const char *kernel_name; /* for messages */
    int initrd_fd;           /* or -1 */
    const char *initrd_name;
    const char *cmdline; /* without final newline */
    unsigned cpu_count;
    unsigned virtio_count; /* virtio-mmio slots 0..n-1 that have a device (vcpu/layout.h) */
    bool serial;           /* COM1 exists */
};

/* x86's COMMAND_LINE_SIZE (Documentation/arch/x86/boot.rst, cmdline_size), its final NUL included. */
#define BOOT_CMDLINE_SIZE 2048

struct boot_entry {
    gpa_t kernel_entry; /* 32-bit protected mode, flat segments, paging off */
    gpa_t start_info;   /* goes to EBX */
};

/*
 * The command line as the guest gets it. Kernels find the virtio-mmio devices in the DSDT; one that is told
 * `acpi=off` cannot, so then (and only then: with both it would see each device twice) a word
 * `virtio_mmio.device=4K@ADDRESS:IRQ` for each of them is put in front. The guest's kernel needs
 * CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES for these; one built without ACPI is to be told `acpi=off` too, which it
 * ignores. -E2BIG it is longer than kernels read.
 */
int boot_cmdline(const struct boot_config *config, char ret_line[BOOT_CMDLINE_SIZE]);

/*
 * Loads kernel, initrd, command line, PVH start info and memory map, MP table and ACPI tables into `mem`.
 * -ENOEXEC not a kernel this can start (with a message that say which kind is missing what), -EFBIG does not
 * fit the guest's memory, -EINVAL the initrd is no regular file, -E2BIG command line too long, -EINVAL too
 * many CPUs for the tables, read errors as they are.
 */
int boot_load(const struct boot_config *config, const struct guest_mem *mem, struct boot_entry *ret_entry);
