#include "boot/boot.h"

#include "boot/acpi.h"
#include "boot/bzimage.h"
#include "boot/elf.h"
#include "boot/mptable.h"
#include "boot/pvh.h"
#include "vcpu/layout.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* Distributions' are some 10 MiB. A sparse file can claim any size, and its bytes become memory here. */
#define BZIMAGE_SIZE_MAX (256 * MIB)

/* True if `word` stands in the kernel's part of the line: what follows "--" is for init. */
static bool line_has(const char *line, const char *word)
{
    size_t length = strlen(word);
    for (;;) {
        line += strspn(line, " \t\n");
        size_t n = strcspn(line, " \t\n");
        if (n == 0 || (n == 2 && memcmp(line, "--", 2) == 0))
            return false;
        if (n == length && memcmp(line, word, n) == 0)
            return true;
        line += n;
    }
}

int boot_cmdline(const struct boot_config *config, char ret_line[BOOT_CMDLINE_SIZE])
{
    char line[BOOT_CMDLINE_SIZE];
    size_t length = 0;
    unsigned words = line_has(config->cmdline, "acpi=off") ? config->virtio_count : 0;
    for (unsigned slot = 0; slot < words && length < sizeof(line); slot++)
        length +=
            (size_t)snprintf(line + length, sizeof(line) - length, "virtio_mmio.device=512@0x%llx:%u ",
                             (unsigned long long)layout_virtio_gpa(slot).value, layout_virtio_gsi(slot));
    if (length < sizeof(line))
        length += (size_t)snprintf(line + length, sizeof(line) - length, "%s", config->cmdline);
    if (length >= sizeof(line))
        return fail(-E2BIG, "the kernel's command line is longer than the %d bytes that kernels read%s",
                    BOOT_CMDLINE_SIZE - 1,
                    words > 0 ? ", with a word for each device that acpi=off needs (leave out acpi=off?)"
                              : "");
    memcpy(ret_line, line, length + 1);
    return 0;
}

/* A copy of the file, not a mapping: that would be a SIGBUS if the file became shorter while it is
 * unpacked. */
static int load_bzimage(const struct kernel_source *file, const struct guest_mem *mem,
                        struct elf_image *ret_image)
{
    if (file->length > BZIMAGE_SIZE_MAX)
        return fail(-EFBIG, "%s: too large for a bzImage (give a vmlinux or a bzImage)", file->name);
    void *packed = mmap(NULL, file->length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (packed == MAP_FAILED)
        return fail_errno(-errno, "%s: cannot be read into memory", file->name);
    void *unpacked = NULL;
    size_t unpacked_length = 0;
    int error = kernel_source_read(file, 0, packed, file->length);
    if (!error) {
        error = bzimage_unpack(packed, file->length, &unpacked, &unpacked_length);
        if (error)
            fail(error, "%s: %s", file->name, fail_text());
    }
    munmap(packed, file->length);
    if (error)
        return error;
    struct kernel_source vmlinux = {
        .name = file->name, .fd = -1, .bytes = unpacked, .length = unpacked_length};
    error = elf_load(&vmlinux, mem, ret_image);
    munmap(unpacked, unpacked_length);
    return error;
}

static int load_kernel(const struct boot_config *config, const struct guest_mem *mem,
                       struct elf_image *ret_image)
{
    struct stat status;
    if (fstat(config->kernel_fd, &status) < 0)
        return fail_errno(-errno, "%s: cannot be looked at", config->kernel_name);
    if (!S_ISREG(status.st_mode))
        return fail(-ENOEXEC, "%s: not a file (give a vmlinux or a bzImage)", config->kernel_name);
    struct kernel_source file = {
        .name = config->kernel_name,
        .fd = config->kernel_fd,
        .length = (uint64_t)status.st_size,
    };
    uint8_t head[2 * 512]; /* the header of a bzImage is in its first two sectors */
    uint64_t head_length = MIN(file.length, (uint64_t)sizeof(head));
    int error = kernel_source_read(&file, 0, head, head_length);
    if (error)
        return error;
    return bzimage_is(head, head_length) ? load_bzimage(&file, mem, ret_image)
                                         : elf_load(&file, mem, ret_image);
}

/*
 * Linux with CONFIG_EFI on a hardware-reduced machine reboots by EFI and, having none, by BIOS: it passes the
 * reset register over and jumps to the reset vector in real mode (arch/x86/kernel/reboot.c, reboot_init;
 * efi/quirks.c, efi_reboot_required). So the vector has code that writes the register for it.
 */
static int write_reset_vector(const struct guest_mem *mem)
{
    static const char code[] = "\xb0\x01"     /* mov $1, %al */
                               "\xba\x02\x06" /* mov $0x602, %dx */
                               "\xee"         /* out %al, (%dx) */
                               "\xf4"         /* again: hlt */
                               "\xeb\xfd";    /* jmp again */
    _Static_assert(ACPI_RESET_VALUE == 1 && LAYOUT_ACPI_SLEEP + 2 == 0x602,
                   "what the code writes, and where");
    return guest_mem_write(mem, gpa(LAYOUT_RESET_GPA), code, sizeof(code) - 1);
}

int boot_load(const struct boot_config *config, const struct guest_mem *mem, struct boot_entry *ret_entry)
{
    char line[BOOT_CMDLINE_SIZE];
    struct elf_image image = {0};
    struct pvh_initrd initrd = {0};
    int error = boot_cmdline(config, line);
    if (!error)
        error = guest_mem_write(mem, gpa(LAYOUT_CMDLINE_GPA), line, strlen(line) + 1);
    if (!error)
        error = load_kernel(config, mem, &image);
    if (!error)
        error = pvh_load_initrd(config->initrd_fd, config->initrd_name, image.end, mem, &initrd);
    if (!error)
        error = pvh_write(mem, &initrd);
    if (!error)
        error = mptable_write(mem, config->cpu_count);
    if (!error)
        error = acpi_write(mem, config);
    if (!error)
        error = write_reset_vector(mem);
    if (error)
        return error;
    *ret_entry =
        (struct boot_entry){.kernel_entry = gpa(image.entry), .start_info = gpa(LAYOUT_PVH_INFO_GPA)};
    return 0;
}
