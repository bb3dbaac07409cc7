/* The memory map holds what was ordered (memory_mib=), in order, without overlaps; RAM at each end of it is
 * RAM; the tables that kernels look for are there. */
#include "lib/guest.h"

#define RAM 1
#define MIB (1ull << 20)

/* Below 1 MiB some of it belongs to tables; the guest's own image and stack lie at 1 MiB. */
#define PROBE_FROM (4 * MIB)

static void probe(uint64_t at)
{
    if (at < PROBE_FROM || at >> 32)
        return;
    volatile uint32_t *word = (volatile uint32_t *)(uintptr_t)at;
    *word = 0x600dcafe;
    EXPECT(*word == 0x600dcafe);
    *word = 0;
    EXPECT(*word == 0);
}

static uint8_t sum(const uint8_t *bytes, unsigned size)
{
    uint8_t total = 0;
    while (size--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

void guest_main(const struct start_info *info)
{
    const struct memmap_entry *map = (const void *)(uintptr_t)info->memmap;
    EXPECT(info->memmap_entries >= 2);
    uint64_t ram = 0, end = 0;
    for (unsigned i = 0; i < info->memmap_entries; i++) {
        say("%llx + %llx: type %u\n", map[i].start, map[i].size, map[i].type);
        EXPECT(map[i].start >= end);
        EXPECT(map[i].size > 0);
        end = map[i].start + map[i].size;
        EXPECT(end > map[i].start);
        if (map[i].type != RAM)
            continue;
        ram += map[i].size;
        probe(map[i].start);
        probe(end - 4);
    }
    uint64_t ordered = option_number("memory_mib", 0) * MIB;
    EXPECT(ram <= ordered);
    EXPECT(ram + MIB > ordered);

    const uint8_t *rsdp = (const uint8_t *)(uintptr_t)info->rsdp;
    EXPECT(rsdp);
    EXPECT(memcmp(rsdp, "RSD PTR ", 8) == 0);
    EXPECT(sum(rsdp, 20) == 0); /* ACPI 6.4, 5.2.5.3 */
    EXPECT(sum(rsdp, 36) == 0);

    /* The MP floating pointer lies in the last KiB of base memory (MP 1.4, 4). */
    const uint8_t *mp = (const uint8_t *)0x9fc00;
    while (mp < (const uint8_t *)0xa0000 && memcmp(mp, "_MP_", 4) != 0)
        mp += 16;
    EXPECT(mp < (const uint8_t *)0xa0000);
    EXPECT(sum(mp, 16) == 0);
}
