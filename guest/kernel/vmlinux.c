#include "vmlinux.h"

#include <ctype.h>
#include <elf.h>
#include <string.h>

/* XEN_ELFNOTE_PHYS32_ENTRY, xen/include/public/elfnote.h: the note that holds the PVH entry point. */
#define NOTE_PHYS32_ENTRY 18u

static bool notes_have_pvh(const uint8_t *notes, uint64_t length)
{
    for (uint64_t at = 0; length - at >= sizeof(Elf64_Nhdr);) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note), content = name + align_up(note.n_namesz, 4);
        uint64_t end = content + align_up(note.n_descsz, 4);
        if (end > length)
            return false;
        if (note.n_type == NOTE_PHYS32_ENTRY && note.n_namesz == 4 && memcmp(notes + name, "Xen", 4) == 0)
            return note.n_descsz == 4 || note.n_descsz == 8;
        at = end;
    }
    return false;
}

int vmlinux_check(const char *name, const void *bytes, size_t length)
{
    const uint8_t *image = bytes;
    Elf64_Ehdr header;
    if (length < sizeof(header) || memcmp(image, ELFMAG, SELFMAG) != 0)
        return fail(-ENOEXEC, "%s: neither an ELF kernel nor a bzImage", name);
    memcpy(&header, image, sizeof(header));
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64)
        return fail(-ENOEXEC, "%s: an ELF file, but not for x86-64", name);
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phoff > length ||
        header.e_phnum > (length - header.e_phoff) / sizeof(Elf64_Phdr))
        return fail(-ENOEXEC, "%s: its program headers lie outside of it (is it truncated?)", name);
    bool loads = false, pvh = false;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        memcpy(&segment, image + header.e_phoff + i * sizeof(segment), sizeof(segment));
        if (segment.p_type != PT_LOAD && segment.p_type != PT_NOTE)
            continue;
        if (segment.p_offset > length || segment.p_filesz > length - segment.p_offset)
            return fail(-ENOEXEC, "%s: segment %u lies outside of it (is it truncated?)", name, i);
        loads |= segment.p_type == PT_LOAD;
        pvh |= segment.p_type == PT_NOTE && notes_have_pvh(image + segment.p_offset, segment.p_filesz);
    }
    if (!loads)
        return fail(-ENOEXEC, "%s: an ELF file with nothing to load", name);
    if (!pvh)
        return fail(-ENOEXEC, "%s: a kernel without PVH entry (one built with CONFIG_PVH=y is needed)", name);
    return 0;
}

void vmlinux_version(const void *bytes, size_t length, char ret_version[VMLINUX_VERSION_MAX])
{
    static const char banner[] = "Linux version ";
    const char *at = bytes, *end = at + length;
    ret_version[0] = '\0';
    while (at && (at = memmem(at, (size_t)(end - at), banner, sizeof(banner) - 1))) {
        at += sizeof(banner) - 1;
        size_t digits = 0;
        while (at + digits < end && digits < VMLINUX_VERSION_MAX - 1 && isgraph((unsigned char)at[digits]))
            digits++;
        /* The format string of /proc/version begins with the same words and then "%s". */
        if (digits == 0 || !isdigit((unsigned char)at[0]))
            continue;
        memcpy(ret_version, at, digits);
        ret_version[digits] = '\0';
        return;
    }
}
