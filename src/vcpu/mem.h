/*
 * Guest memory and its one gate.
 *
 *   gpa 0 ............ 3 GiB | MMIO gap, 3..4 GiB | 4 GiB ...
 *   [ low region           ] |  devices, IOAPIC,  | [ high region: what does not fit below the gap ]
 *                            |  LAPIC             |
 *
 * A guest address is its own type and cannot be dereferenced. guest_mem_at() turns (gpa, length) into a
 * pointer or NULL; overflow, holes and region ends are checked there and nowhere else (design invariant 1).
 */
#pragma once

#include "base/base.h"

/* A guest physical address. */
typedef struct {
    uint64_t value;
} gpa_t;

static inline gpa_t gpa(uint64_t value)
{
    return (gpa_t){value};
}

/* Memory below the gap ends here at the latest; devices live in the gap (machine layout: vcpu/layout.h). */
#define GUEST_GAP_START (UINT64_C(3) << 30)
#define GUEST_GAP_END   (UINT64_C(4) << 30)

#define GUEST_PAGE UINT64_C(4096)

/* Sizes are multiples of this: one huge page, and what EPT and NPT map at once. */
#define GUEST_MEM_ALIGN (2 * MIB)
#define GUEST_MEM_MAX   (UINT64_C(1) << 40)

enum guest_pages {
    GUEST_PAGES_THP_ON,  /* 4 KiB pages, transparent huge pages asked for */
    GUEST_PAGES_THP_OFF, /* 4 KiB pages, never made huge */
    GUEST_PAGES_HUGETLB, /* 2 MiB pages of the host's hugetlb pool */
};

struct guest_region {
    gpa_t start;
    uint64_t size; /* bytes */
    uint8_t *host;
};

struct guest_mem {
    struct guest_region regions[2]; /* low, then high */
    unsigned region_count;
    uint64_t size; /* bytes in all regions */
    enum guest_pages pages;
    struct guest_mem_files *files; /* what of it is mapped from files; NULL: nothing */
};

/*
 * Maps `size` bytes of guest memory: anonymous, private, demand-paged, not reserved, aligned to 2 MiB.
 * -EINVAL size of 0, unaligned or beyond GUEST_MEM_MAX; -ENOMEM the host cannot give it (hugetlb pool
 * empty, address space or overcommit limit), with a message. The caller owns *ret_mem and ends it with
 * guest_mem_free().
 */
int guest_mem_new(uint64_t size, enum guest_pages pages, struct guest_mem *ret_mem);

/*
 * Maps `length` bytes of new memory, `at` bytes from its first on, from `fd`, all in whole pages: privately,
 * so that one costs nothing before it is touched, and is shared by all guests that only read it. The file
 * must stay as it is as long as the memory lives, though it may lose its name and `fd` may be closed: what is
 * cut off it is a SIGBUS. Not for pages of the hugetlb pool. -ENOSPC without a message: there are as many
 * mappings as a process bears, so read it instead; another errno comes with a message.
 */
int guest_mem_map(struct guest_mem *mem, uint64_t at, uint64_t length, int fd, uint64_t offset);

/* After the last of them: keeps what was mapped out of core dumps, too, by one call for all. */
void guest_mem_mapped(const struct guest_mem *mem);

/* Back to what the files have: true, or false if that is not in them alone, since something was discarded.
 * Costs what was touched. No vCPU runs. */
bool guest_mem_revert(const struct guest_mem *mem);

/* Back to new memory, all zeros, of which parts can be mapped again. Negative errno with a message. No vCPU
 * runs. */
int guest_mem_forget(struct guest_mem *mem);

/* -EINVAL with a message: no guest can have that much, on any host. */
int guest_mem_check_size(uint64_t size);
void guest_mem_free(struct guest_mem *mem);

/*
 * The gate: the host address of guest bytes [at, at + length), or NULL if any of them is not RAM. A length of
 * 0 is NULL. Any thread. What is behind the pointer changes under the reader's hands: copy once, then check
 * the copy. Inline, since every descriptor of every request passes it.
 */
static inline void *guest_region_at(const struct guest_region *region, gpa_t at, uint64_t length)
{
    /* Unsigned: an address below the region's start gives an offset above any size, and a length of 0 less
     * one is longer than any region. An unused region has size 0. */
    uint64_t offset = at.value - region->start.value;
    bool inside = offset < region->size && length - 1 < region->size - offset;
    return inside ? region->host + offset : NULL;
}
static inline void *guest_mem_at(const struct guest_mem *mem, gpa_t at, uint64_t length)
{
    void *host = guest_region_at(&mem->regions[0], at, length);
    return __builtin_expect(host != NULL, 1) ? host : guest_region_at(&mem->regions[1], at, length);
}

/*
 * Gives whole pages of [host, host + length), which came out of the gate, back to the host: they are zeros
 * when they are next used. Returns the bytes that went. Pages of the hugetlb pool stay. They are reserved for
 * this guest, and before Linux 6.9 one that was given back could be taken by others, and the guest's next use
 * of it was a SIGBUS. One thread at a time.
 */
uint64_t guest_mem_discard(const struct guest_mem *mem, void *host, uint64_t length);

/* Copies through the gate: 0, or -EFAULT (no message) if any byte is not RAM, and then nothing is copied. */
int guest_mem_read(const struct guest_mem *mem, gpa_t from, void *to, uint64_t length);
int guest_mem_write(const struct guest_mem *mem, gpa_t to, const void *from, uint64_t length);
