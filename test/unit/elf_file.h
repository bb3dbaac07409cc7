/* A small valid PVH kernel for the tests of boot/: two segments and a note. Tests damage a copy of it. */
#pragma once

#include "base/base.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>
#include <sys/mman.h>

#define ELF_TEXT_GPA  UINT64_C(0x100000)
#define ELF_DATA_GPA  UINT64_C(0x200000)
#define ELF_ENTRY_GPA (ELF_TEXT_GPA + 0x10)

struct elf_note {
    Elf64_Nhdr header;
    char name[4];
    uint64_t entry;
};

struct elf_file {
    Elf64_Ehdr header;
    Elf64_Phdr segments[3]; /* text, data, note */
    struct elf_note notes[2];
    uint8_t text[0x1000];
    uint8_t data[0x800];
};

static inline struct elf_file elf_file_valid(void)
{
    struct elf_file file = {
        .header =
            {
                .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                .e_type = ET_EXEC,
                .e_machine = EM_X86_64,
                .e_version = EV_CURRENT,
                .e_phoff = offsetof(struct elf_file, segments),
                .e_ehsize = sizeof(Elf64_Ehdr),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_phnum = 3,
            },
        .segments =
            {
                {.p_type = PT_LOAD,
                 .p_offset = offsetof(struct elf_file, text),
                 .p_paddr = ELF_TEXT_GPA,
                 .p_filesz = sizeof(file.text),
                 .p_memsz = sizeof(file.text)},
                {.p_type = PT_LOAD,
                 .p_offset = offsetof(struct elf_file, data),
                 .p_paddr = ELF_DATA_GPA,
                 .p_filesz = sizeof(file.data),
                 .p_memsz = 0x3000},
                {.p_type = PT_NOTE,
                 .p_offset = offsetof(struct elf_file, notes),
                 .p_filesz = sizeof(file.notes),
                 .p_memsz = sizeof(file.notes),
                 .p_align = 4},
            },
        .notes =
            {
                {.header = {.n_namesz = 4, .n_descsz = 8, .n_type = 17}, .name = "Xen", .entry = 1},
                {.header = {.n_namesz = 4, .n_descsz = 8, .n_type = 18},
                 .name = "Xen",
                 .entry = ELF_ENTRY_GPA},
            },
    };
    memset(file.text, 0xcc, sizeof(file.text));
    memset(file.data, 0xdd, sizeof(file.data));
    return file;
}

/* A file in memory that holds `length` bytes; the caller closes it. */
static inline int file_of(const void *bytes, size_t length)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    cr_assert(fd >= 0, "memfd");
    cr_assert_eq(write_full(fd, bytes, length), 0, "memfd is written");
    return fd;
}
