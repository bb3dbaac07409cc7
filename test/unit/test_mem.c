/* Guest memory and the gate: everything that is not RAM in full is NULL. */
#include "vcpu/mem.h"

#include <criterion/criterion.h>
#include <string.h>

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
