#include "elf_file.h"

#include "boot/elf.h"

TestSuite(boot_elf, .timeout = 10);

#define MEMORY (4 * MIB)

static int load(const void *bytes, size_t length, const struct guest_mem *mem, struct elf_image *ret_image)
{
    CLEANUP_FD int fd = file_of(bytes, length);
    struct kernel_source source = {.name = "kernel", .fd = fd, .length = length};
    return elf_load(&source, mem, ret_image);
}

static struct guest_mem memory(uint64_t size)
{
    struct guest_mem mem;
    cr_assert_eq(guest_mem_new(size, GUEST_PAGES_THP_OFF, &mem), 0, "%s", fail_text());
    return mem;
}

static void check_loaded(const struct guest_mem *mem, const struct elf_file *file,
                         const struct elf_image *image)
{
    cr_assert_eq(image->entry, ELF_ENTRY_GPA, "entry is the note's, not %#x", image->entry);
    cr_assert_eq(image->end, ELF_DATA_GPA + 0x3000, "the end counts bss: %#lx", image->end);
    cr_assert_arr_eq(guest_mem_at(mem, gpa(ELF_TEXT_GPA), sizeof(file->text)), file->text, sizeof(file->text),
                     "text is in place");
    cr_assert_arr_eq(guest_mem_at(mem, gpa(ELF_DATA_GPA), sizeof(file->data)), file->data, sizeof(file->data),
                     "data is in place");
    const uint8_t *bss = guest_mem_at(mem, gpa(ELF_DATA_GPA + sizeof(file->data)), 1);
    cr_assert_eq(*bss, 0, "bss is zero");
}

Test(boot_elf, loads_from_file_and_from_memory)
{
    struct elf_file file = elf_file_valid();
    struct guest_mem mem = memory(MEMORY);
    struct elf_image image;
    cr_assert_eq(load(&file, sizeof(file), &mem, &image), 0, "%s", fail_text());
    check_loaded(&mem, &file, &image);
    guest_mem_free(&mem);

    mem = memory(MEMORY);
    struct kernel_source source = {
        .name = "kernel", .fd = -1, .bytes = (const uint8_t *)&file, .length = sizeof(file)};
    cr_assert_eq(elf_load(&source, &mem, &image), 0, "%s", fail_text());
    check_loaded(&mem, &file, &image);
    guest_mem_free(&mem);
}

Test(boot_elf, loads_elf32_with_a_4_byte_entry)
{
    struct {
        Elf32_Ehdr header;
        Elf32_Phdr segments[2];
        Elf32_Nhdr note;
        char name[4];
        uint32_t entry;
        uint8_t text[64];
    } file = {
        .header =
            {
                .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_EXEC,
                .e_machine = EM_386,
                .e_phoff = sizeof(Elf32_Ehdr),
                .e_phentsize = sizeof(Elf32_Phdr),
                .e_phnum = 2,
            },
        .segments =
            {
                {.p_type = PT_NOTE, .p_filesz = 20, .p_memsz = 20, .p_align = 4},
                {.p_type = PT_LOAD, .p_paddr = ELF_TEXT_GPA, .p_filesz = 64, .p_memsz = 64},
            },
        .note = {.n_namesz = 4, .n_descsz = 4, .n_type = 18},
        .name = "Xen",
        .entry = ELF_TEXT_GPA + 4,
        .text = {1, 2, 3},
    };
    file.segments[0].p_offset = (uint32_t)((uint8_t *)&file.note - (uint8_t *)&file);
    file.segments[1].p_offset = (uint32_t)(file.text - (uint8_t *)&file);
    struct guest_mem mem = memory(2 * MIB);
    struct elf_image image;
    cr_assert_eq(load(&file, sizeof(file), &mem, &image), 0, "%s", fail_text());
    cr_assert_eq(image.entry, ELF_TEXT_GPA + 4, "entry is %#x", image.entry);
    cr_assert_eq(image.end, ELF_TEXT_GPA + 64, "end is %#lx", image.end);
    guest_mem_free(&mem);
}

Test(boot_elf, notes_of_8_byte_alignment)
{
    struct elf_file file = elf_file_valid();
    /* A first note whose description of 1 byte is padded to 8: the second starts where it does anyway. */
    file.notes[0].header.n_descsz = 1;
    file.notes[0].header.n_namesz = 1;
    file.segments[2].p_align = 8;
    file.notes[1].header.n_namesz = 4;
    struct guest_mem mem = memory(MEMORY);
    struct elf_image image;
    /* 12 bytes of header, name padded to 8, description padded to 8: 28 of the note's 24, so it is not
     * found. */
    cr_assert_eq(load(&file, sizeof(file), &mem, &image), -ENOEXEC, "padding to 8 moves the second note");
    file.segments[2].p_align = 4;
    file.notes[0].header.n_descsz = 8;
    cr_assert_eq(load(&file, sizeof(file), &mem, &image), 0, "%s", fail_text());
    guest_mem_free(&mem);
}

/* One number of the valid file replaced, and what is said of it. */
#define FIELD(member) offsetof(struct elf_file, member), sizeof(((struct elf_file *)0)->member)

static const struct damage {
    size_t at;
    size_t size;
    uint64_t value;
    int error;
    const char *message;
} damages[] = {
    {FIELD(header.e_ident[EI_MAG1]), 'X', -ENOEXEC, "neither an ELF"},
    {FIELD(header.e_ident[EI_DATA]), ELFDATA2MSB, -ENOEXEC, "another processor"},
    {FIELD(header.e_ident[EI_CLASS]), 7, -ENOEXEC, "unknown class"},
    {FIELD(header.e_ident[EI_CLASS]), ELFCLASS32, -ENOEXEC, "program headers"},
    {FIELD(header.e_machine), EM_AARCH64, -ENOEXEC, "another processor"},
    {FIELD(header.e_type), ET_REL, -ENOEXEC, "not an executable"},
    {FIELD(header.e_phentsize), 32, -ENOEXEC, "3 program headers of 32 bytes"},
    {FIELD(header.e_phnum), 0, -ENOEXEC, "0 program headers"},
    {FIELD(header.e_phnum), 0xffff, -ENOEXEC, "65535 program headers"},
    {FIELD(header.e_phoff), sizeof(struct elf_file) - 8, -ENOEXEC, "truncated"},
    {FIELD(header.e_phoff), UINT64_MAX - 8, -ENOEXEC, "truncated"},
    {FIELD(segments[0].p_filesz), 0x1001, -ENOEXEC, "larger in the file than in memory"},
    {FIELD(segments[0].p_filesz), UINT64_MAX, -ENOEXEC, "larger in the file than in memory"},
    {FIELD(segments[0].p_offset), sizeof(struct elf_file), -ENOEXEC,
     "segment 0 lies beyond the end of the file"},
    {FIELD(segments[0].p_offset), UINT64_MAX - 0xfff, -ENOEXEC, "segment 0 lies beyond the end of the file"},
    {FIELD(segments[0].p_memsz), UINT64_MAX, -ENOEXEC, "segment 0 wants to be at 0x100000"},
    {FIELD(segments[0].p_memsz), 0x100001, -ENOEXEC, "segments 0 and 1 overlap"},
    {FIELD(segments[0].p_memsz), 4 * MIB, -EFBIG, "needs the guest's memory up to 5120 KiB"},
    {FIELD(segments[0].p_paddr), 0, -ENOEXEC, "segment 0 wants to be at 0"},
    {FIELD(segments[0].p_paddr), 0x9fc00, -ENOEXEC, "segment 0 wants to be at 0x9fc00"},
    {FIELD(segments[0].p_paddr), 0xff001, -ENOEXEC, "segment 0 wants to be at 0xff001"},
    {FIELD(segments[0].p_paddr), 0xc0000000, -ENOEXEC, "segment 0 wants to be at 0xc0000000"},
    {FIELD(segments[0].p_paddr), 0xbffff001, -ENOEXEC, "segment 0 wants to be at 0xbffff001"},
    {FIELD(segments[0].p_paddr), 0xbffff000, -EFBIG, "needs the guest's memory up to 3145728 KiB"},
    {FIELD(segments[0].p_paddr), 0x3ff001, -EFBIG, "give it more"},
    {FIELD(segments[0].p_paddr), 0x100000000, -ENOEXEC, "segment 0 wants to be at 0x100000000"},
    {FIELD(segments[0].p_paddr), UINT64_MAX - 0xfff, -ENOEXEC, "segment 0 wants to be at 0xfffffffffffff000"},
    {FIELD(segments[0].p_paddr), UINT64_MAX - 0xffe, -ENOEXEC, "segment 0 wants to be at 0xfffffffffffff001"},
    {FIELD(segments[1].p_paddr), ELF_TEXT_GPA + 0xfff, -ENOEXEC, "segments 0 and 1 overlap"},
    {FIELD(segments[1].p_paddr), ELF_TEXT_GPA - 0x2000, -ENOEXEC, "where guests have no memory"},
    {FIELD(segments[0].p_type), PT_NULL, -ENOEXEC, "in no segment"},
    {FIELD(segments[0].p_memsz), 0, -ENOEXEC, "larger in the file than in memory"},
    {FIELD(segments[2].p_type), PT_NULL, -ENOEXEC, "no PVH entry point"},
    {FIELD(segments[2].p_filesz), 0, -ENOEXEC, "no PVH entry point"},
    {FIELD(segments[2].p_filesz), 47, -ENOEXEC, "no PVH entry point"}, /* one byte of the entry is missing */
    {FIELD(segments[2].p_filesz), 4097, -ENOEXEC, "no PVH entry point"},
    {FIELD(segments[2].p_offset), sizeof(struct elf_file) - 1, -ENOEXEC, "truncated"},
    {FIELD(segments[2].p_offset), UINT64_MAX, -ENOEXEC, "truncated"},
    {FIELD(notes[0].header.n_namesz), UINT32_MAX, -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[0].header.n_descsz), UINT32_MAX, -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[1].header.n_descsz), 6, -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[1].header.n_descsz), 9, -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[1].header.n_type), 19, -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[1].name[0]), 'Y', -ENOEXEC, "no PVH entry point"},
    {FIELD(notes[1].entry), ELF_TEXT_GPA - 1, -ENOEXEC, "in no segment"},
    {FIELD(notes[1].entry), ELF_TEXT_GPA + 0x1000, -ENOEXEC, "in no segment"},
    {FIELD(notes[1].entry), ELF_DATA_GPA + 0x800, -ENOEXEC, "in no segment"}, /* bss is no code */
    {FIELD(notes[1].entry), (UINT64_C(1) << 32) + ELF_ENTRY_GPA, -ENOEXEC, "in no segment"},
};

Test(boot_elf, refuses_damaged_files_with_words)
{
    struct guest_mem mem = memory(MEMORY);
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        const struct damage *damage = &damages[i];
        struct elf_file file = elf_file_valid();
        memcpy((uint8_t *)&file + damage->at, &damage->value, damage->size);
        struct elf_image image = {.entry = 1234};
        int error = load(&file, sizeof(file), &mem, &image);
        cr_expect_eq(error, damage->error, "row %u (%s): %d, %s", i, damage->message, error, fail_text());
        cr_expect(strstr(fail_text(), damage->message) && strncmp(fail_text(), "kernel: ", 8) == 0,
                  "row %u: '%s' does not say '%s'", i, fail_text(), damage->message);
        cr_expect_eq(image.entry, 1234u, "row %u: the out-parameter is untouched", i);
    }
    guest_mem_free(&mem);
}

Test(boot_elf, refuses_files_cut_anywhere)
{
    struct elf_file file = elf_file_valid();
    struct guest_mem mem = memory(MEMORY);
    for (size_t length = 0; length < sizeof(file); length += length < 400 ? 1 : 97) {
        struct elf_image image;
        cr_expect_eq(load(&file, length, &mem, &image), -ENOEXEC, "cut to %zu bytes", length);
    }
    guest_mem_free(&mem);
}

Test(boot_elf, file_that_shrinks_after_it_was_measured)
{
    struct elf_file file = elf_file_valid();
    struct guest_mem mem = memory(MEMORY);
    struct elf_image image;
    CLEANUP_FD int fd = file_of(&file, sizeof(file) - 1);
    struct kernel_source source = {.name = "kernel", .fd = fd, .length = sizeof(file)};
    cr_assert_eq(elf_load(&source, &mem, &image), -ENOEXEC, "the read comes up short");
    cr_assert(strstr(fail_text(), "became shorter"), "%s", fail_text());
    guest_mem_free(&mem);
}

Test(boot_elf, passes_read_errors_on)
{
    struct guest_mem mem = memory(MEMORY);
    struct elf_image image;
    struct kernel_source source = {.name = "kernel", .fd = -1, .length = 4096};
    cr_assert_eq(elf_load(&source, &mem, &image), -EBADF, "the error as it is");
    guest_mem_free(&mem);
}

Test(boot_elf, segment_in_memory_behind_the_first_region)
{
    /* 5 GiB: there is memory at 4 GiB, but a kernel that is entered in 32-bit mode cannot be there. */
    struct elf_file file = elf_file_valid();
    file.segments[1].p_paddr = UINT64_C(4) << 30;
    struct guest_mem mem = memory(5 * GIB);
    struct elf_image image;
    cr_assert_eq(load(&file, sizeof(file), &mem, &image), -ENOEXEC, "refused");
    guest_mem_free(&mem);
}
