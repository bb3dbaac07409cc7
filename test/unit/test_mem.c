/* Guest memory and the gate: everything that is not RAM in full is NULL. */
#include "vcpu/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(mem, .timeout = 10);

static struct guest_mem make(uint64_t size)
{
    struct guest_mem mem;
    int r = guest_mem_new(size, GUEST_PAGES_THP_OFF, &mem);
    cr_assert_eq(r, 0, "guest_mem_new: %s", fail_text());
    return mem;
}

Test(mem, low_region_only)
{
    struct guest_mem mem = make(64 * MIB);
    uint8_t *start = guest_mem_at(&mem, gpa(0), 1);
    cr_assert_not_null(start, "first byte");
    cr_assert_eq((uintptr_t)start % GUEST_MEM_ALIGN, 0, "RAM is aligned to a huge page");
    cr_assert_eq(guest_mem_at(&mem, gpa(64 * MIB - 1), 1), start + 64 * MIB - 1, "last byte");
    cr_assert_eq(guest_mem_at(&mem, gpa(0), 64 * MIB), start, "all of it");
    cr_assert_null(guest_mem_at(&mem, gpa(0), 64 * MIB + 1), "one byte more than all of it");
    cr_assert_null(guest_mem_at(&mem, gpa(64 * MIB), 1), "the byte after the last");
    cr_assert_null(guest_mem_at(&mem, gpa(GUEST_GAP_END), 1), "there is no high region");
    guest_mem_free(&mem);
}

Test(mem, lengths_that_wrap_or_are_nothing)
{
    struct guest_mem mem = make(64 * MIB);
    cr_assert_null(guest_mem_at(&mem, gpa(0), 0), "a length of 0 is nothing");
    cr_assert_null(guest_mem_at(&mem, gpa(4096), UINT64_MAX), "the end wraps");
    cr_assert_null(guest_mem_at(&mem, gpa(4096), UINT64_MAX - 4095), "the end wraps to 0");
    cr_assert_null(guest_mem_at(&mem, gpa(UINT64_MAX), 1), "the last address there is");
    cr_assert_null(guest_mem_at(&mem, gpa(UINT64_MAX), UINT64_MAX), "both at their largest");
    guest_mem_free(&mem);
}

Test(mem, the_gap_below_4_gib)
{
    struct guest_mem mem = make(5 * GIB); /* reserved, not touched */
    cr_assert_eq(mem.region_count, 2, "low and high");
    cr_assert_not_null(guest_mem_at(&mem, gpa(GUEST_GAP_START - 1), 1), "last byte below the gap");
    cr_assert_null(guest_mem_at(&mem, gpa(GUEST_GAP_START - 1), 2), "reaching into the gap");
    cr_assert_null(guest_mem_at(&mem, gpa(GUEST_GAP_START), 1), "the gap");
    cr_assert_null(guest_mem_at(&mem, gpa(GUEST_GAP_END - 1), 2), "from the gap into RAM");
    cr_assert_not_null(guest_mem_at(&mem, gpa(GUEST_GAP_END), 2 * GIB), "all of the high region");
    cr_assert_null(guest_mem_at(&mem, gpa(GUEST_GAP_END), 2 * GIB + 1), "more than the high region");
    cr_assert_null(guest_mem_at(&mem, gpa(0), 4 * GIB), "across the gap");
    guest_mem_free(&mem);
}

Test(mem, copies_are_all_or_nothing)
{
    struct guest_mem mem = make(2 * MIB);
    uint8_t bytes[4] = {1, 2, 3, 4}, back[4] = {0};
    cr_assert_eq(guest_mem_write(&mem, gpa(2 * MIB - 4), bytes, 4), 0, "the last four bytes");
    cr_assert_eq(guest_mem_read(&mem, gpa(2 * MIB - 4), back, 4), 0, "read back");
    cr_assert_arr_eq(bytes, back, 4, "the same bytes");
    bytes[0] = 9;
    cr_assert_eq(guest_mem_write(&mem, gpa(2 * MIB - 3), bytes, 4), -EFAULT, "one byte too far");
    cr_assert_eq(guest_mem_read(&mem, gpa(2 * MIB - 4), back, 4), 0, "read back");
    cr_assert_eq(back[1], 2, "nothing of a refused copy is there");
    guest_mem_free(&mem);
}

Test(mem, sizes_that_cannot_be)
{
    struct guest_mem mem = {.size = 77};
    cr_assert_eq(guest_mem_new(0, GUEST_PAGES_THP_ON, &mem), -EINVAL, "none");
    cr_assert_eq(guest_mem_new(MIB, GUEST_PAGES_THP_ON, &mem), -EINVAL, "less than a huge page");
    cr_assert_eq(guest_mem_new(2 * MIB + 4096, GUEST_PAGES_THP_ON, &mem), -EINVAL, "not a multiple");
    cr_assert_eq(guest_mem_new(GUEST_MEM_MAX + GUEST_MEM_ALIGN, GUEST_PAGES_THP_ON, &mem), -EINVAL,
                 "too much");
    cr_assert_eq(guest_mem_new(UINT64_MAX & ~(GUEST_MEM_ALIGN - 1), GUEST_PAGES_THP_ON, &mem), -EINVAL,
                 "wraps");
    cr_assert_eq(mem.size, 77, "the out-parameter is untouched on failure");
}

/* Whole pages go, their neighbours stay, and what is gone reads as zeros. */
Test(mem, discarded_pages_are_zeros)
{
    struct guest_mem mem = make(2 * MIB);
    uint8_t *host = guest_mem_at(&mem, gpa(0), 4 * GUEST_PAGE);
    memset(host, 1, 4 * GUEST_PAGE);
    cr_assert_eq(guest_mem_discard(&mem, host + 1, 3 * GUEST_PAGE), 2 * GUEST_PAGE, "two whole pages");
    cr_assert(host[0] == 1 && host[GUEST_PAGE - 1] == 1, "the page before");
    cr_assert(host[GUEST_PAGE] == 0 && host[3 * GUEST_PAGE - 1] == 0, "what was discarded");
    cr_assert(host[3 * GUEST_PAGE] == 1, "the page after");
    cr_assert_eq(guest_mem_discard(&mem, host + 1, GUEST_PAGE), 0, "no whole page");
    guest_mem_free(&mem);
}

/* ---- From a file ---- */

/* A file of `size` bytes whose pages 1 and 3 have something in them. */
static int make_file(uint64_t size)
{
    int fd = memfd_create("memory", MFD_CLOEXEC);
    cr_assert_geq(fd, 0, "memfd_create");
    cr_assert_eq(ftruncate(fd, (off_t)size), 0, "ftruncate");
    cr_assert_eq(pwrite(fd, "one", 3, GUEST_PAGE), 3, "pwrite");
    cr_assert_eq(pwrite(fd, "three", 5, 3 * GUEST_PAGE), 5, "pwrite");
    return fd;
}

static struct guest_mem from_file(int fd, uint64_t size, enum guest_pages pages)
{
    struct guest_mem mem;
    cr_assert_eq(guest_mem_new(size, pages, &mem), 0, "%s", fail_text());
    cr_assert_eq(guest_mem_map(&mem, 0, size, fd, 0), 0, "%s", fail_text());
    guest_mem_mapped(&mem);
    return mem;
}

Test(mem, a_file_is_read_and_never_written)
{
    char text[4] = {0};
    CLEANUP_FD int fd = make_file(4 * MIB);
    struct guest_mem mem = from_file(fd, 4 * MIB, GUEST_PAGES_THP_ON);
    char *host = guest_mem_at(&mem, gpa(GUEST_PAGE), 8);
    cr_assert_str_eq(host, "one", "what is in the file");
    cr_assert_eq((uintptr_t)mem.regions[0].host % GUEST_MEM_ALIGN, 0, "aligned to a huge page");
    memcpy(host, "two", 3);
    cr_assert_eq(pread(fd, text, 3, GUEST_PAGE), 3, "pread");
    cr_assert_str_eq(text, "one", "the file is as it was");
    guest_mem_free(&mem);
}

/* MADV_DONTNEED would bring the file's page back. */
Test(mem, a_discarded_page_of_a_file_is_zeros)
{
    CLEANUP_FD int fd = make_file(4 * MIB);
    struct guest_mem mem = from_file(fd, 4 * MIB, GUEST_PAGES_THP_OFF);
    char *host = guest_mem_at(&mem, gpa(0), 5 * GUEST_PAGE);
    cr_assert_eq(guest_mem_discard(&mem, host + GUEST_PAGE, GUEST_PAGE), GUEST_PAGE, "one page");
    cr_assert_eq(host[GUEST_PAGE], 0, "is zeros");
    host[GUEST_PAGE] = 'x';
    cr_assert_eq(guest_mem_discard(&mem, host + GUEST_PAGE, 2 * GUEST_PAGE), 2 * GUEST_PAGE,
                 "again, and more");
    cr_assert_eq(host[GUEST_PAGE], 0, "is zeros");
    cr_assert_str_eq(host + 3 * GUEST_PAGE, "three", "the neighbour stays");
    guest_mem_free(&mem);
}

/* Each lone page costs the kernel two mappings, of which a process has 65,530. */
Test(mem, discarded_pages_do_not_use_up_all_mappings)
{
    uint64_t size = 512 * MIB, discarded = 0, pages = size / GUEST_PAGE;
    CLEANUP_FD int fd = make_file(size);
    struct guest_mem mem = from_file(fd, size, GUEST_PAGES_THP_OFF);
    uint8_t *host = guest_mem_at(&mem, gpa(0), size);
    for (uint64_t page = 0; page < pages; page += 2)
        discarded += guest_mem_discard(&mem, host + page * GUEST_PAGE, GUEST_PAGE) / GUEST_PAGE;
    cr_assert(discarded > 10000 && discarded < 20000, "%llu pages", (unsigned long long)discarded);
    void *more = mmap(NULL, GUEST_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(more, MAP_FAILED, "there are mappings left");
    guest_mem_free(&mem);
}

/* What was written goes, and what was discarded comes back by mapping it again. */
Test(mem, back_to_what_the_file_has)
{
    CLEANUP_FD int fd = make_file(4 * MIB);
    struct guest_mem mem = from_file(fd, 4 * MIB, GUEST_PAGES_THP_OFF);
    char *host = guest_mem_at(&mem, gpa(0), 5 * GUEST_PAGE);
    memcpy(host + GUEST_PAGE, "two", 3);
    host[2 * GUEST_PAGE] = 'x';
    cr_assert(guest_mem_revert(&mem), "nothing was discarded");
    cr_assert_str_eq(host + GUEST_PAGE, "one", "as in the file");
    cr_assert_eq(host[2 * GUEST_PAGE], 0, "a hole of the file");
    cr_assert_eq(guest_mem_discard(&mem, host + GUEST_PAGE, GUEST_PAGE), GUEST_PAGE, "discarded");
    cr_assert_not(guest_mem_revert(&mem), "the file's page is not mapped any more");
    cr_assert_eq(guest_mem_forget(&mem), 0, "%s", fail_text());
    cr_assert_eq(host[3 * GUEST_PAGE], 0, "new memory");
    cr_assert_eq(guest_mem_map(&mem, 0, 4 * MIB, fd, 0), 0, "%s", fail_text());
    cr_assert_str_eq(host + GUEST_PAGE, "one", "as in the file");
    cr_assert(guest_mem_revert(&mem), "all of it is mapped again");
    guest_mem_free(&mem);
}

static unsigned long free_huge_pages(void)
{
    char line[128];
    unsigned long count = 0;
    FILE *meminfo = fopen("/proc/meminfo", "re");
    while (meminfo && fgets(line, sizeof(line), meminfo))
        if (sscanf(line, "HugePages_Free: %lu", &count) == 1)
            break;
    if (meminfo)
        fclose(meminfo);
    return count;
}

/* A page of the pool that was given back could be taken by others, and the guest's next use be a SIGBUS. */
Test(mem, huge_pages_stay_when_they_are_made_new)
{
    struct guest_mem mem;
    if (guest_mem_new(4 * MIB, GUEST_PAGES_HUGETLB, &mem) < 0)
        cr_skip_test("the host's pool has not two huge pages free (sysctl vm.nr_hugepages)");
    uint8_t *host = guest_mem_at(&mem, gpa(0), 4 * MIB);
    memset(host, 1, 4 * MIB);
    unsigned long before = free_huge_pages();
    cr_assert_eq(guest_mem_forget(&mem), 0, "%s", fail_text());
    cr_assert_eq(free_huge_pages(), before, "pages went back to the pool");
    cr_assert(host[0] == 0 && host[4 * MIB - 1] == 0, "all zeros");
    guest_mem_free(&mem);
}
