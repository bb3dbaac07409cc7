/*
 * The file is read with pread() straight into guest memory, one call a segment. It is not mapped: it may be
 * truncated or rewritten under us, which then harms this guest alone instead of raising SIGBUS here; and a
 * mapping of it as guest memory costs more in page faults than the copy into huge pages. Every number is
 * checked in the copy that is used.
 */
#include "boot/elf.h"

#include "vcpu/layout.h"

#include <elf.h>
#include <string.h>

/* A vmlinux has 4 or 5 program headers; the bound keeps the pairwise checks and the stack small. */
#define PROGRAM_HEADERS_MAX 32
/* Linux' notes are some 500 bytes. */
#define NOTES_MAX 4096
/* xen/include/public/elfnote.h: "Physical entry point into the kernel", owner "Xen". */
#define XEN_ELFNOTE_PHYS32_ENTRY 18

/* A program header of either class. */
struct segment {
    uint32_t type;
    uint64_t offset;
    uint64_t address; /* physical */
    uint64_t file_size;
    uint64_t memory_size;
    uint64_t align;
};

struct program {
    struct segment segments[PROGRAM_HEADERS_MAX];
    unsigned count;
};

int kernel_source_read(const struct kernel_source *source, uint64_t offset, void *to, uint64_t length)
{
    uint64_t end;
    if (add_overflows(offset, length, &end) || end > source->length)
        return fail(-ENOEXEC, "%s: ends before what its headers announce (is it truncated?)", source->name);
    if (source->bytes) {
        memcpy(to, source->bytes + offset, length);
        return 0;
    }
    int error = read_full_at(source->fd, to, length, offset);
    if (error == -EPIPE)
        return fail(-ENOEXEC, "%s: became shorter while it was read (is it being written?)", source->name);
    if (error)
        return fail_errno(error, "%s: cannot be read", source->name);
    return 0;
}

static int check_table(const struct kernel_source *source, unsigned count, size_t entry_size, size_t expected)
{
    if (entry_size != expected || count == 0 || count > PROGRAM_HEADERS_MAX)
        return fail(-ENOEXEC, "%s: %u program headers of %zu bytes (a vmlinux has 1 to %d of %zu)",
                    source->name, count, entry_size, PROGRAM_HEADERS_MAX, expected);
    return 0;
}

static int read_headers_64(const struct kernel_source *source, const Elf64_Ehdr *header,
                           struct program *program)
{
    Elf64_Phdr table[PROGRAM_HEADERS_MAX];
    int error = check_table(source, header->e_phnum, header->e_phentsize, sizeof(table[0]));
    if (!error)
        error = kernel_source_read(source, header->e_phoff, table, header->e_phnum * sizeof(table[0]));
    if (error)
        return error;
    program->count = header->e_phnum;
    for (unsigned i = 0; i < program->count; i++)
        program->segments[i] = (struct segment){
            .type = table[i].p_type,
            .offset = table[i].p_offset,
            .address = table[i].p_paddr,
            .file_size = table[i].p_filesz,
            .memory_size = table[i].p_memsz,
            .align = table[i].p_align,
        };
    return 0;
}

static int read_headers_32(const struct kernel_source *source, const Elf32_Ehdr *header,
                           struct program *program)
{
    Elf32_Phdr table[PROGRAM_HEADERS_MAX];
    int error = check_table(source, header->e_phnum, header->e_phentsize, sizeof(table[0]));
    if (!error)
        error = kernel_source_read(source, header->e_phoff, table, header->e_phnum * sizeof(table[0]));
    if (error)
        return error;
    program->count = header->e_phnum;
    for (unsigned i = 0; i < program->count; i++)
        program->segments[i] = (struct segment){
            .type = table[i].p_type,
            .offset = table[i].p_offset,
            .address = table[i].p_paddr,
            .file_size = table[i].p_filesz,
            .memory_size = table[i].p_memsz,
            .align = table[i].p_align,
        };
    return 0;
}

static int read_headers(const struct kernel_source *source, struct program *program)
{
    union {
        unsigned char ident[EI_NIDENT];
        Elf32_Ehdr elf32;
        Elf64_Ehdr elf64;
    } header = {.elf64 = {.e_type = ET_NONE}};
    if (source->length < sizeof(header.elf32))
        return fail(-ENOEXEC, "%s: too short for a kernel (give a vmlinux or a bzImage)", source->name);
    int error = kernel_source_read(source, 0, &header, MIN(source->length, (uint64_t)sizeof(header)));
    if (error)
        return error;
    if (memcmp(header.ident, ELFMAG, SELFMAG) != 0)
        return fail(-ENOEXEC, "%s: neither an ELF file nor a bzImage (give a vmlinux or a bzImage)",
                    source->name);
    /* Type and machine are at the same place in both classes. */
    uint16_t type = header.elf64.e_type, machine = header.elf64.e_machine;
    if (header.ident[EI_DATA] != ELFDATA2LSB || (machine != EM_X86_64 && machine != EM_386))
        return fail(-ENOEXEC, "%s: an ELF file for another processor (give an x86 vmlinux)", source->name);
    if (type != ET_EXEC && type != ET_DYN)
        return fail(-ENOEXEC, "%s: an ELF file, but not an executable (give a vmlinux)", source->name);
    if (header.ident[EI_CLASS] == ELFCLASS64)
        return read_headers_64(source, &header.elf64, program);
    if (header.ident[EI_CLASS] == ELFCLASS32)
        return read_headers_32(source, &header.elf32, program);
    return fail(-ENOEXEC, "%s: an ELF file of unknown class (give a vmlinux)", source->name);
}

/* Checks one PT_LOAD against memory and against those before it. */
static int check_segment(const struct kernel_source *source, const struct guest_mem *mem,
                         const struct program *program, unsigned index)
{
    const struct segment *segment = &program->segments[index];
    uint64_t end, file_end;
    if (segment->file_size > segment->memory_size)
        return fail(-ENOEXEC, "%s: segment %u is larger in the file than in memory (is it damaged?)",
                    source->name, index);
    if (add_overflows(segment->offset, segment->file_size, &file_end) || file_end > source->length)
        return fail(-ENOEXEC, "%s: segment %u lies beyond the end of the file (is it truncated?)",
                    source->name, index);
    if (add_overflows(segment->address, segment->memory_size, &end) ||
        segment->address < LAYOUT_HIGH_RAM_GPA || end > GUEST_GAP_START)
        return fail(-ENOEXEC, "%s: segment %u wants to be at %#llx, where guests have no memory for it",
                    source->name, index, (unsigned long long)segment->address);
    if (end > mem->regions[0].size)
        return fail(-EFBIG, "%s: needs the guest's memory up to %llu KiB (give it more, with --memory)",
                    source->name, (unsigned long long)(align_up(end, KIB) / KIB));
    for (unsigned i = 0; i < index; i++) {
        const struct segment *other = &program->segments[i];
        if (other->type == PT_LOAD && other->address < end &&
            segment->address < other->address + other->memory_size)
            return fail(-ENOEXEC, "%s: segments %u and %u overlap (is it damaged?)", source->name, i, index);
    }
    return 0;
}

static int load_segments(const struct kernel_source *source, const struct guest_mem *mem,
                         const struct program *program, uint64_t *ret_end)
{
    uint64_t image_end = 0;
    for (unsigned i = 0; i < program->count; i++) {
        const struct segment *segment = &program->segments[i];
        if (segment->type != PT_LOAD || (segment->memory_size == 0 && segment->file_size == 0))
            continue;
        int error = check_segment(source, mem, program, i);
        if (error)
            return error;
        void *to = guest_mem_at(mem, gpa(segment->address), segment->memory_size);
        if (!to)
            return fail(-ENOEXEC, "%s: segment %u lies outside of the guest's memory", source->name, i);
        if (segment->file_size > 0) {
            error = kernel_source_read(source, segment->offset, to, segment->file_size);
            if (error)
                return error;
        }
        image_end = MAX(image_end, segment->address + segment->memory_size);
    }
    if (image_end == 0)
        return fail(-ENOEXEC, "%s: an ELF file with nothing to load (give a vmlinux)", source->name);
    *ret_end = image_end;
    return 0;
}

/* The entry point if `notes` have one. Padding is to 4 bytes, or to 8 where the segment is so aligned
 * (gABI). */
static bool find_entry(const uint8_t *notes, uint64_t length, uint64_t align, uint64_t *ret_entry)
{
    uint64_t at = 0;
    while (length - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note; /* the same in both classes */
        memcpy(&note, notes + at, sizeof(note));
        uint64_t name = at + sizeof(note);
        uint64_t description = name + align_up(note.n_namesz, align);
        if (description > length || note.n_descsz > length - description)
            return false;
        bool is_entry = note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == sizeof("Xen") &&
                        memcmp(notes + name, "Xen", sizeof("Xen")) == 0;
        if (is_entry && (note.n_descsz == 4 || note.n_descsz == 8)) {
            uint64_t entry = 0;
            memcpy(&entry, notes + description, note.n_descsz);
            *ret_entry = entry;
            return true;
        }
        at = MIN(description + align_up(note.n_descsz, align), length);
    }
    return false;
}

static int read_entry(const struct kernel_source *source, const struct program *program, uint32_t *ret_entry)
{
    uint64_t entry = 0;
    bool found = false;
    for (unsigned i = 0; i < program->count && !found; i++) {
        const struct segment *segment = &program->segments[i];
        uint8_t notes[NOTES_MAX];
        if (segment->type != PT_NOTE || segment->file_size > sizeof(notes))
            continue;
        int error = kernel_source_read(source, segment->offset, notes, segment->file_size);
        if (error)
            return error;
        found = find_entry(notes, segment->file_size, segment->align == 8 ? 8 : 4, &entry);
    }
    if (!found)
        return fail(-ENOEXEC, "%s: has no PVH entry point (build it with CONFIG_PVH=y)", source->name);
    for (unsigned i = 0; i < program->count; i++) {
        const struct segment *segment = &program->segments[i];
        if (segment->type == PT_LOAD && entry >= segment->address &&
            entry - segment->address < segment->file_size) {
            *ret_entry = (uint32_t)entry; /* segments end below 3 GiB */
            return 0;
        }
    }
    return fail(-ENOEXEC, "%s: its PVH entry point %#llx is in no segment (is it damaged?)", source->name,
                (unsigned long long)entry);
}

int elf_load(const struct kernel_source *source, const struct guest_mem *mem, struct elf_image *ret_image)
{
    struct program program = {.count = 0};
    struct elf_image image;
    int error = read_headers(source, &program);
    if (!error)
        error = load_segments(source, mem, &program, &image.end);
    if (!error)
        error = read_entry(source, &program, &image.entry);
    if (error)
        return error;
    *ret_image = image;
    return 0;
}
