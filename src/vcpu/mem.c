#include "vcpu/mem.h"

#include <string.h>
#include <sys/mman.h>

#ifndef MAP_HUGE_2MB
#define MAP_HUGE_2MB (21 << 26) /* log2 of the page size in the flag's high bits: linux/mman.h */
#endif

/* Maps `size` bytes aligned to 2 MiB, so that a huge page in the guest can be one on the host. */
static int map_aligned(uint64_t size, enum guest_pages pages, uint8_t **ret_host)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (pages == GUEST_PAGES_HUGETLB) {
        /* Reserved at once: a pool that runs empty later would be a SIGBUS in the middle of the guest. */
        void *huge = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB | MAP_HUGE_2MB, -1, 0);
        char text[SIZE_TEXT_MAX];
        if (huge == MAP_FAILED)
            return fail_errno(
                -errno,
                "the host has not %s of 2 MiB huge pages free (see HugePages_Free in /proc/meminfo; "
                "add some: sysctl vm.nr_hugepages=%llu)",
                size_text(size, text), (unsigned long long)(size / (2 * MIB)));
        *ret_host = huge;
        return 0;
    }

    uint8_t *wide = mmap(NULL, size + GUEST_MEM_ALIGN, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, -1, 0);
    char text[SIZE_TEXT_MAX];
    if (wide == MAP_FAILED)
        return fail_errno(-errno, "no %s of memory for the guest (see ulimit -v and vm.overcommit_memory)",
                          size_text(size, text));
    uint8_t *aligned = (uint8_t *)align_up((uintptr_t)wide, GUEST_MEM_ALIGN);
    size_t before = (size_t)(aligned - wide);
    if (before)
        munmap(wide, before);
    munmap(aligned + size, GUEST_MEM_ALIGN - before);

    /* Both are advice: a host without transparent huge pages says EINVAL and serves small ones. */
    madvise(aligned, size, pages == GUEST_PAGES_THP_ON ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    *ret_host = aligned;
    return 0;
}

int guest_mem_check_size(uint64_t size)
{
    char text[SIZE_TEXT_MAX];
    if (size == 0 || size % GUEST_MEM_ALIGN || size > GUEST_MEM_MAX)
        return fail(-EINVAL, "a guest cannot have %s of memory: give a multiple of 2M, at most 1024G",
                    size_text(size, text));
    return 0;
}

static void lay_out(uint8_t *host, uint64_t size, enum guest_pages pages, struct guest_mem *ret_mem)
{
    uint64_t low = MIN(size, GUEST_GAP_START);
    *ret_mem = (struct guest_mem){.size = size, .region_count = 1, .pages = pages};
    ret_mem->regions[0] = (struct guest_region){.start = gpa(0), .size = low, .host = host};
    if (size > low) {
        ret_mem->regions[1] =
            (struct guest_region){.start = gpa(GUEST_GAP_END), .size = size - low, .host = host + low};
        ret_mem->region_count = 2;
    }
    madvise(host, size, MADV_DONTDUMP); /* a core dump of the monitor must not carry a guest's memory */
}

int guest_mem_new(uint64_t size, enum guest_pages pages, struct guest_mem *ret_mem)
{
    uint8_t *host = NULL;
    int r = guest_mem_check_size(size);
    if (r == 0)
        r = map_aligned(size, pages, &host);
    if (r == 0)
        lay_out(host, size, pages, ret_mem);
    return r;
}

/* ---- Memory whose contents are in files ---- */

/* A process has 65,530 mappings (vm.max_map_count): some for parts of files, and stretches of pages that were
 * discarded of them, each of which may cost two more. */
#define MAPPINGS_MAX 20480u
#define HOLES_MAX    16384u

struct guest_mem_files {
    unsigned mappings, holes;
    bool discarded;   /* some of it is not a file's any more */
    uint64_t *mapped; /* a bit for each page: it is a file's */
    size_t mapped_size;
};

static bool is_mapped(const struct guest_mem_files *files, uint64_t page)
{
    return files->mapped[page / 64] >> page % 64 & 1;
}

static void set_mapped(struct guest_mem_files *files, uint64_t first, uint64_t count, bool mapped)
{
    for (uint64_t page = first; page < first + count; page++) {
        if (page % 64 == 0 && first + count - page >= 64) {
            files->mapped[page / 64] = mapped ? UINT64_MAX : 0;
            page += 63;
        } else if (mapped)
            files->mapped[page / 64] |= UINT64_C(1) << page % 64;
        else
            files->mapped[page / 64] &= ~(UINT64_C(1) << page % 64);
    }
}

static int remember_files(struct guest_mem *mem)
{
    if (mem->files)
        return 0;
    struct guest_mem_files *files = calloc(1, sizeof(*files));
    if (!files)
        return fail(-ENOMEM, "no memory");
    files->mapped_size = align_up(mem->size / GUEST_PAGE / 8, GUEST_PAGE);
    files->mapped = mmap(NULL, files->mapped_size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (files->mapped == MAP_FAILED) {
        free(files);
        return fail_errno(-errno, "no memory");
    }
    mem->files = files;
    return 0;
}

int guest_mem_map(struct guest_mem *mem, uint64_t at, uint64_t length, int fd, uint64_t offset)
{
    uint8_t *host = mem->regions[0].host + at;
    CHECK(mem->pages != GUEST_PAGES_HUGETLB && at <= mem->size && length <= mem->size - at);
    int r = remember_files(mem);
    if (r < 0)
        return r;
    if (mem->files->mappings == MAPPINGS_MAX)
        return -ENOSPC;
    void *mapped = mmap(host, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd,
                        (off_t)offset);
    if (mapped == MAP_FAILED)
        return fail_errno(-errno, "the guest's memory cannot be mapped from its file");
    mem->files->mappings++;
    set_mapped(mem->files, at / GUEST_PAGE, length / GUEST_PAGE, true);
    return 0;
}

int guest_mem_forget(struct guest_mem *mem)
{
    if (mem->pages == GUEST_PAGES_HUGETLB) { /* they stay, as for guest_mem_discard() */
        memset(mem->regions[0].host, 0, mem->size);
        return 0;
    }
    if (!mem->files)
        return madvise(mem->regions[0].host, mem->size, MADV_DONTNEED) < 0
                   ? fail_errno(-errno, "the guest's memory cannot be dropped")
                   : 0;
    void *mapped = mmap(mem->regions[0].host, mem->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (mapped == MAP_FAILED)
        return fail_errno(-errno, "the guest's memory cannot be dropped");
    madvise(mapped, mem->size, mem->pages == GUEST_PAGES_THP_ON ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    mem->files->mappings = mem->files->holes = 0;
    mem->files->discarded = false;
    set_mapped(mem->files, 0, mem->size / GUEST_PAGE, false);
    return 0;
}

bool guest_mem_revert(const struct guest_mem *mem)
{
    return mem->files && !mem->files->discarded &&
           madvise(mem->regions[0].host, mem->size, MADV_DONTNEED) == 0;
}

void guest_mem_mapped(const struct guest_mem *mem)
{
    madvise(mem->regions[0].host, mem->size, MADV_DONTDUMP);
}

/* The file's page would be there again after MADV_DONTNEED, so an anonymous one takes its place. */
static uint64_t discard_from_files(const struct guest_mem *mem, uintptr_t begin, uintptr_t end)
{
    struct guest_mem_files *files = mem->files;
    uint64_t first = (begin - (uintptr_t)mem->regions[0].host) / GUEST_PAGE;
    uint64_t count = (end - begin) / GUEST_PAGE, total = mem->size / GUEST_PAGE;
    bool joins = !is_mapped(files, first) || (first > 0 && !is_mapped(files, first - 1)) ||
                 (first + count < total && !is_mapped(files, first + count));
    if (!joins && files->holes == HOLES_MAX)
        return 0;
    void *mapped = mmap((void *)begin, end - begin, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    if (mapped == MAP_FAILED)
        return 0;
    madvise(mapped, end - begin,
            MADV_DONTDUMP); /* as its neighbours, or it would not be one mapping with them */
    files->holes += !joins;
    files->discarded = true;
    set_mapped(files, first, count, false);
    return end - begin;
}

void guest_mem_free(struct guest_mem *mem)
{
    if (mem->region_count)
        munmap(mem->regions[0].host, mem->size);
    if (mem->files)
        munmap(mem->files->mapped, mem->files->mapped_size);
    free(mem->files);
    *mem = (struct guest_mem){0};
}

uint64_t guest_mem_discard(const struct guest_mem *mem, void *host, uint64_t length)
{
    uintptr_t begin = align_up((uintptr_t)host, GUEST_PAGE);
    uintptr_t end = align_down((uintptr_t)host + length, GUEST_PAGE);
    if (mem->pages == GUEST_PAGES_HUGETLB || begin >= end)
        return 0;
    if (mem->files)
        return discard_from_files(mem, begin, end);
    return madvise((void *)begin, end - begin, MADV_DONTNEED) == 0 ? end - begin : 0;
}

int guest_mem_read(const struct guest_mem *mem, gpa_t from, void *to, uint64_t length)
{
    const void *host = guest_mem_at(mem, from, length);
    if (!host)
        return -EFAULT;
    memcpy(to, host, length);
    return 0;
}

int guest_mem_write(const struct guest_mem *mem, gpa_t to, const void *from, uint64_t length)
{
    void *host = guest_mem_at(mem, to, length);
    if (!host)
        return -EFAULT;
    memcpy(host, from, length);
    return 0;
}
