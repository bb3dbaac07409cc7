/* The balloon: what its driver names goes back to the host and nothing else does; statistics; hinting; state;
 * and drivers that break the protocol. */
#include "dev/virtio_balloon.h"
#include "device_rig.h"

#include <criterion/criterion.h>
#include <linux/virtio_balloon.h>
#include <sys/mman.h>

enum { INFLATE, DEFLATE, STATS, HINTING, REPORTING, QUEUES };

#define FEATURES                                                                                             \
    (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_BALLOON_F_STATS_VQ) |                                      \
     FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT) | FEATURE(VIRTIO_BALLOON_F_REPORTING))
#define CONFIG(member) (VIRTIO_MMIO_CONFIG + offsetof(struct virtio_balloon_config, member))

#define PFNS  (RIG_DATA_AT)           /* the driver's own buffers */
#define STAT  (RIG_DATA_AT + 0x10000) /* statistics */
#define PAGES (4 * MIB)               /* what is used and given back */

static struct rings queues[QUEUES];
static struct state_writer saved;

static void new_device(unsigned stats_seconds)
{
    struct virtio_device *device;
    const struct virtio_balloon_options options = {.target = MIB,
                                                   .deflate_on_oom = true,
                                                   .reporting = true,
                                                   .hinting = true,
                                                   .stats_seconds = stats_seconds};
    cr_assert(virtio_balloon_new(rig.loop, &options, &device) == 0, "%s", fail_text());
    rig_attach(device);
}

static void set_up(void)
{
    rig_new(16 * MIB);
    new_device(3600);
}

static void tear_down(void)
{
    state_writer_free(&saved);
    rig_free();
}

TestSuite(balloon, .timeout = 30, .init = set_up, .fini = tear_down);

/* The driver sets up the queues of which `numbers` has the bit. */
static void start_queues(uint64_t features, unsigned numbers)
{
    rig_negotiate(features);
    for (unsigned q = 0; q < QUEUES; q++) {
        if (!(numbers & 1u << q))
            continue;
        rings_init(&queues[q], &rig.mem, RIG_RINGS_AT + q * RINGS_BYTES, 16);
        rig_write(VIRTIO_MMIO_QUEUE_SEL, q);
        rig_write(VIRTIO_MMIO_QUEUE_NUM, 16);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_DESC_LOW, queues[q].desc);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_AVAIL_LOW, queues[q].avail);
        rig_write_gpa(VIRTIO_MMIO_QUEUE_USED_LOW, queues[q].used);
        rig_write(VIRTIO_MMIO_QUEUE_READY, 1);
    }
    rig_add_status(VIRTIO_CONFIG_S_DRIVER_OK);
}

static void start(uint64_t features)
{
    start_queues(features, (1u << QUEUES) - 1);
}

static void offer(unsigned q, const struct part *parts, unsigned count)
{
    rings_add(&queues[q], parts, count);
    rig_kick(q);
}

static bool await(unsigned q, uint16_t used)
{
    for (unsigned i = 0; i < 5000 && rings_used_idx(&queues[q]) != used; i++)
        rig_run(200);
    return rings_used_idx(&queues[q]) == used;
}

/* Uses `count` pages from PAGES on, and tells how many of them the host has. */
static void use(unsigned count)
{
    memset(guest_mem_at(&rig.mem, gpa(PAGES), count * GUEST_PAGE), 0xa5, count * GUEST_PAGE);
}
static unsigned resident(unsigned count)
{
    unsigned char in_core[1024];
    unsigned pages = 0;
    cr_assert(count <= sizeof(in_core), "too many");
    cr_assert(mincore(guest_mem_at(&rig.mem, gpa(PAGES), count * GUEST_PAGE), count * GUEST_PAGE, in_core) ==
                  0,
              "mincore");
    for (unsigned i = 0; i < count; i++)
        pages += in_core[i] & 1;
    return pages;
}

static void inflate(const uint32_t *pfns, unsigned count)
{
    guest_mem_write(&rig.mem, gpa(PFNS), pfns, count * sizeof(*pfns));
    offer(INFLATE, &(struct part){PFNS, (uint32_t)(count * sizeof(*pfns)), false}, 1);
}

static const uint64_t *counter(const char *name)
{
    const struct virtio_ops *ops = rig.device->ops;
    for (unsigned i = 0; i < ops->counter_count; i++)
        if (strcmp(ops->counters[i].name, name) == 0)
            return (const uint64_t *)(const void *)((const char *)rig.device + ops->counters[i].offset);
    cr_assert_fail("no counter %s", name);
    return NULL;
}

/* --- queues --- */

/* The number that a driver gives to the queue of reporting: the specification's, or after the queues that it
 * uses. */
Test(balloon, queues_are_numbered_in_two_ways)
{
    static const struct {
        uint64_t without; /* features that the driver does not accept */
        unsigned numbers, reporting;
    } rows[] = {
        {0, 0x1f, 4},
        {FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT), 0x17, 4},
        {FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT), 0x0f, 3},
        {FEATURE(VIRTIO_BALLOON_F_STATS_VQ), 0x1b, 4},
        {FEATURE(VIRTIO_BALLOON_F_STATS_VQ), 0x0f, 3},
        {FEATURE(VIRTIO_BALLOON_F_STATS_VQ) | FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT), 0x13, 4},
        {FEATURE(VIRTIO_BALLOON_F_STATS_VQ) | FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT), 0x07, 2},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t before = *counter("reported_bytes");
        start_queues(FEATURES & ~rows[i].without, rows[i].numbers);
        use(1);
        offer(rows[i].reporting, &(struct part){PAGES, GUEST_PAGE, true}, 1);
        cr_assert(await(rows[i].reporting, 1) && resident(1) == 0, "row %zu: nothing came back", i);
        cr_assert(*counter("reported_bytes") == before + GUEST_PAGE, "row %zu: not by reporting", i);
    }
    cr_assert(rig.device->faults == 0, "a fault");
}

Test(balloon, a_queue_without_a_feature)
{
    start_queues(FEATURE(VIRTIO_F_VERSION_1), 0x07);
    offer(STATS, &(struct part){STAT, 10, false}, 1);
    rig_run(20000);
    cr_assert(rig.device->faults == 1, "no fault");
}

Test(balloon, there_are_no_queues_without_features)
{
    struct virtio_device *device;
    cr_assert(virtio_balloon_new(rig.loop, &(struct virtio_balloon_options){0}, &device) == 0, "%s",
              fail_text());
    cr_assert(device->queue_count == 2, "%u queues", device->queue_count);
    virtio_close(device, NULL, NULL);
    rig_run(1000);
}

/* --- the balloon --- */

Test(balloon, offers_what_it_was_told)
{
    uint64_t all =
        FEATURES | FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) | FEATURE(VIRTIO_BALLOON_F_PAGE_POISON);
    cr_assert((rig_offered() & all) == all, "0x%llx", (unsigned long long)rig_offered());
    cr_assert(rig_read(CONFIG(num_pages)) == 256, "%u pages", rig_read(CONFIG(num_pages)));
}

Test(balloon, inflated_pages_go_back_in_whatever_order)
{
    const uint32_t first = PAGES / GUEST_PAGE;
    const uint32_t pfns[] = {first + 7, first + 6, first + 5, first, first + 1, first + 5, first + 63};
    start(FEATURES);
    use(64);
    inflate(pfns, ARRAY_SIZE(pfns));
    cr_assert(await(INFLATE, 1), "not given back");
    cr_assert(resident(64) == 58, "%u pages are left of 64 - 6", resident(64));
    cr_assert(*counter("inflated_bytes") == 6 * GUEST_PAGE, "counted %llu",
              (unsigned long long)*counter("inflated_bytes"));
    const uint8_t *host = guest_mem_at(&rig.mem, gpa(PAGES), 64 * GUEST_PAGE);
    for (unsigned i = 0; i < 64; i++) {
        bool gone = i == 0 || i == 1 || (i >= 5 && i <= 7) || i == 63;
        cr_assert(host[i * GUEST_PAGE] == (gone ? 0 : 0xa5), "page %u reads 0x%x", i, host[i * GUEST_PAGE]);
    }
}

Test(balloon, deflating_asks_nothing_of_the_host)
{
    const uint32_t pfn = PAGES / GUEST_PAGE;
    start(FEATURES);
    use(2);
    guest_mem_write(&rig.mem, gpa(PFNS), &pfn, sizeof(pfn));
    offer(DEFLATE, &(struct part){PFNS, sizeof(pfn), false}, 1);
    cr_assert(await(DEFLATE, 1), "not given back");
    cr_assert(resident(2) == 2, "a page went");
}

Test(balloon, the_target_changes_while_the_guest_runs)
{
    struct virtio_balloon_status status;
    start(FEATURES);
    unsigned interrupts = rig.interrupts;
    uint32_t generation = rig_read(VIRTIO_MMIO_CONFIG_GENERATION);
    cr_assert(virtio_balloon_set_target(rig.device, 8 * MIB) == 0, "%s", fail_text());
    cr_assert(rig.interrupts == interrupts + 1, "no interrupt");
    cr_assert(rig_read(VIRTIO_MMIO_CONFIG_GENERATION) != generation, "the generation is the same");
    cr_assert(rig_read(CONFIG(num_pages)) == 2048, "%u pages", rig_read(CONFIG(num_pages)));

    rig_write(CONFIG(actual), 2048);
    cr_assert(rig_read(CONFIG(actual)) == 2048, "what the driver wrote does not read back");
    rig_write(CONFIG(num_pages), 1);
    cr_assert(rig_read(CONFIG(num_pages)) == 2048, "the driver has written the target");
    virtio_balloon_status(rig.device, &status);
    cr_assert(status.target == 8 * MIB && status.actual == 8 * MIB, "status");
    cr_assert(virtio_balloon_set_target(rig.device, 17 * MIB) == -EINVAL, "more than there is");

    rig_write(VIRTIO_MMIO_STATUS, 0);
    cr_assert(rig_read(CONFIG(actual)) == 0, "the balloon of a driver that is gone");
    cr_assert(rig_read(CONFIG(num_pages)) == 2048, "the target is the host's");
}

/* --- reporting --- */

Test(balloon, reported_ranges_go_back)
{
    start(FEATURES);
    use(1024);
    const struct part parts[] = {{PAGES, 2 * MIB, true}, {PAGES + 3 * MIB, MIB, true}};
    offer(REPORTING, parts, 2);
    cr_assert(await(REPORTING, 1), "not given back");
    cr_assert(resident(1024) == 256, "%u pages are left", resident(1024));
    cr_assert(*counter("reported_bytes") == 3 * MIB, "counted");
    cr_assert(rings_used_elem(&queues[REPORTING], 0).len == 0, "nothing is written");
}

Test(balloon, of_a_page_that_is_not_whole_nothing_goes)
{
    start(FEATURES);
    use(3);
    offer(REPORTING, &(struct part){PAGES + 1, 2 * GUEST_PAGE, true}, 1);
    cr_assert(await(REPORTING, 1), "not given back");
    const uint8_t *host = guest_mem_at(&rig.mem, gpa(PAGES), 3 * GUEST_PAGE);
    cr_assert(host[0] == 0xa5 && host[GUEST_PAGE] == 0 && host[2 * GUEST_PAGE] == 0xa5, "another page");
}

Test(balloon, a_guest_that_poisons_its_free_pages_keeps_them)
{
    start(FEATURES | FEATURE(VIRTIO_BALLOON_F_PAGE_POISON));
    use(2);
    rig_write(CONFIG(poison_val), 0xaaaaaaaa);
    offer(REPORTING, &(struct part){PAGES, GUEST_PAGE, true}, 1);
    cr_assert(await(REPORTING, 1) && resident(2) == 2, "a poisoned page went");
    rig_write(CONFIG(poison_val), 0);
    offer(REPORTING, &(struct part){PAGES, GUEST_PAGE, true}, 1);
    cr_assert(await(REPORTING, 2) && resident(2) == 1, "zeros are what a discarded page has");
}

/* --- hinting --- */

static void tell_command(uint32_t command)
{
    guest_mem_write(&rig.mem, gpa(PFNS), &command, sizeof(command));
    offer(HINTING, &(struct part){PFNS, sizeof(command), false}, 1);
    cr_assert(await(HINTING, queues[HINTING].avail_idx), "not given back");
}

static void hint(unsigned page)
{
    offer(HINTING, &(struct part){PAGES + page * GUEST_PAGE, GUEST_PAGE, true}, 1);
    cr_assert(await(HINTING, queues[HINTING].avail_idx), "not given back");
}

Test(balloon, a_run_of_hinting)
{
    struct virtio_balloon_status status;
    cr_assert(virtio_balloon_start_hinting(rig.device, true) == -EOPNOTSUPP, "without a driver");
    start(FEATURES);
    use(8);
    hint(0);
    cr_assert(resident(8) == 8, "no run was asked for");
    cr_assert(virtio_balloon_start_hinting(rig.device, true) == 0, "%s", fail_text());
    uint32_t run = rig_read(CONFIG(free_page_hint_cmd_id));
    cr_assert(run >= 2, "run %u", run);
    tell_command(run);
    hint(0);
    hint(1);
    cr_assert(resident(8) == 6, "%u pages are left", resident(8));
    tell_command(VIRTIO_BALLOON_CMD_ID_STOP);
    cr_assert(rig_read(CONFIG(free_page_hint_cmd_id)) == VIRTIO_BALLOON_CMD_ID_DONE, "not acknowledged");
    hint(2);
    cr_assert(resident(8) == 6, "after the end");

    /* The second has another number, and is stopped by the host. */
    cr_assert(virtio_balloon_start_hinting(rig.device, false) == 0, "%s", fail_text());
    uint32_t second = rig_read(CONFIG(free_page_hint_cmd_id));
    cr_assert(second > run, "run %u after %u", second, run);
    hint(3);
    cr_assert(resident(8) == 6, "the driver's pages of before the run");
    tell_command(second);
    hint(3);
    cr_assert(resident(8) == 5, "%u pages are left", resident(8));
    virtio_balloon_stop_hinting(rig.device);
    hint(4);
    cr_assert(resident(8) == 5, "the driver may use it by now");
    virtio_balloon_status(rig.device, &status);
    cr_assert(status.answered && status.host_command == VIRTIO_BALLOON_CMD_ID_DONE &&
                  status.guest_command == second,
              "status");
}

/* --- statistics --- */

static void offer_stats(uint16_t tag, uint64_t value)
{
    const struct virtio_balloon_stat stats[] = {{tag, value}, {0xf00d, 1}};
    guest_mem_write(&rig.mem, gpa(STAT), stats, sizeof(stats));
    offer(STATS, &(struct part){STAT, sizeof(stats), false}, 1);
    rig_run(2000);
}

Test(balloon, statistics)
{
    struct virtio_balloon_status status;
    start(FEATURES);
    offer_stats(VIRTIO_BALLOON_S_MEMFREE, 12345);
    virtio_balloon_status(rig.device, &status);
    cr_assert(status.known == 1u << VIRTIO_BALLOON_S_MEMFREE, "known 0x%x", status.known);
    cr_assert(status.stats[VIRTIO_BALLOON_S_MEMFREE] == 12345, "the value");
    cr_assert(strcmp(virtio_balloon_stat_name(VIRTIO_BALLOON_S_MEMFREE), "free_memory") == 0, "the name");
    cr_assert(rings_used_idx(&queues[STATS]) == 0, "the buffer is kept");
    rig_run(20000);
    cr_assert(rings_used_idx(&queues[STATS]) == 0, "nobody has asked");

    virtio_balloon_set_stats(rig.device, 60);
    cr_assert(await(STATS, 1), "new ones are asked for at once");
    offer_stats(VIRTIO_BALLOON_S_MEMTOT, 99);
    virtio_balloon_status(rig.device, &status);
    cr_assert(status.stats[VIRTIO_BALLOON_S_MEMFREE] == 12345 && status.stats[VIRTIO_BALLOON_S_MEMTOT] == 99,
              "what is not told again stays");
    virtio_balloon_set_stats(rig.device, 1);
    cr_assert(await(STATS, 2), "asked for");
    offer_stats(VIRTIO_BALLOON_S_MEMFREE, 7);
    for (unsigned i = 0; i < 100 && rings_used_idx(&queues[STATS]) != 3; i++)
        rig_run(50000);
    cr_assert(rings_used_idx(&queues[STATS]) == 3, "and again by time");
}

/* --- quiet and state --- */

static void set_true(void *context)
{
    *(bool *)context = true;
}

static void quiesce(void)
{
    bool quiet = false;
    cr_assert(virtio_quiesce(rig.device, set_true, &quiet) == 0, "%s", fail_text());
    while (!quiet)
        rig_run(50);
}

Test(balloon, a_pause_keeps_the_drivers_buffer_in_its_queue)
{
    struct virtio_balloon_status status;
    start(FEATURES);
    virtio_balloon_set_stats(rig.device, 60);
    offer_stats(VIRTIO_BALLOON_S_MEMFREE, 1);
    for (unsigned i = 0; i < 5; i++) {
        quiesce();
        cr_assert(rig.device->queues[STATS].vq.in_flight == 0, "in flight");
        uint64_t value = i;
        guest_mem_write(&rig.mem, gpa(STAT + sizeof(uint16_t)), &value, sizeof(value));
        virtio_resume(rig.device);
        rig_run(2000);
        virtio_balloon_status(rig.device, &status);
        cr_assert(status.stats[VIRTIO_BALLOON_S_MEMFREE] == i, "taken again");
    }
    cr_assert(rings_used_idx(&queues[STATS]) == 0 && rig.device->faults == 0, "a fault");
}

Test(balloon, saved_and_loaded)
{
    struct virtio_balloon_status status;
    bool closed = false;
    start(FEATURES | FEATURE(VIRTIO_BALLOON_F_PAGE_POISON));
    virtio_balloon_set_target(rig.device, 6 * MIB);
    virtio_balloon_set_stats(rig.device, 60);
    rig_write(CONFIG(actual), 17);
    rig_write(CONFIG(poison_val), 0xaa);
    offer_stats(VIRTIO_BALLOON_S_MEMFREE, 42);
    virtio_balloon_start_hinting(rig.device, true);
    uint32_t run = rig_read(CONFIG(free_page_hint_cmd_id));
    quiesce();
    cr_assert(virtio_save(rig.device, &saved) == 0, "%s", fail_text());
    virtio_close(rig.device, set_true, &closed);
    while (!closed)
        rig_run(50);

    new_device(3600);
    cr_assert(virtio_load(rig.device, (struct state_reader){.bytes = saved.bytes, .length = saved.length}) ==
                  0,
              "%s", fail_text());
    virtio_resume(rig.device);
    rig_run(2000);
    virtio_balloon_status(rig.device, &status);
    cr_assert(status.target == 6 * MIB && status.actual == 17 * GUEST_PAGE && status.stats_seconds == 60 &&
                  status.host_command == run && !status.answered,
              "status");
    cr_assert(status.stats[VIRTIO_BALLOON_S_MEMFREE] == 42, "the statistics are in the queue");
    cr_assert(rig_read(CONFIG(num_pages)) == 1536 && rig_read(CONFIG(actual)) == 17, "configuration space");
    use(2);
    offer(REPORTING, &(struct part){PAGES, GUEST_PAGE, true}, 1);
    cr_assert(await(REPORTING, 1) && resident(2) == 2, "the poison is forgotten");
}

Test(balloon, state_that_is_refused)
{
    start(FEATURES);
    quiesce();
    cr_assert(virtio_save(rig.device, &saved) == 0, "%s", fail_text());
    /* The target is the first word of the last section. */
    uint32_t pages = 16 * MIB / GUEST_PAGE + 1;
    bool closed = false;
    memcpy(saved.bytes + saved.length - 32, &pages, sizeof(pages));
    virtio_close(rig.device, set_true, &closed);
    while (!closed)
        rig_run(50);
    new_device(3600);
    cr_assert(virtio_load(rig.device, (struct state_reader){.bytes = saved.bytes, .length = saved.length}) <
                  0,
              "a balloon larger than the guest");
}

/* --- drivers that break the protocol --- */

static void expect_fault(void)
{
    rig_run(20000);
    cr_assert(rig.device->faults == 1 && (rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET), "no fault");
}

Test(balloon, pages_that_are_not_ram)
{
    start(FEATURES);
    inflate((const uint32_t[]){UINT32_MAX}, 1);
    expect_fault();
}

Test(balloon, a_run_of_pages_beyond_the_end_of_ram)
{
    start(FEATURES);
    inflate((const uint32_t[]){16 * MIB / GUEST_PAGE - 1, 16 * MIB / GUEST_PAGE}, 2);
    expect_fault();
}

Test(balloon, more_page_numbers_than_any_driver_sends)
{
    start(FEATURES);
    offer(INFLATE, &(struct part){PFNS, 4100, false}, 1);
    expect_fault();
}

Test(balloon, a_part_of_a_page_number)
{
    start(FEATURES);
    offer(INFLATE, &(struct part){PFNS, 7, false}, 1);
    expect_fault();
}

Test(balloon, half_a_command)
{
    start(FEATURES);
    offer(HINTING, &(struct part){PFNS, 2, false}, 1);
    expect_fault();
}

Test(balloon, two_buffers_of_statistics)
{
    start(FEATURES);
    offer_stats(0, 1);
    offer(STATS, &(struct part){STAT, 10, false}, 1);
    expect_fault();
}

/* A guest that balloons its own queues harms itself: they read as zeros from then on. */
Test(balloon, its_own_queues_in_the_balloon)
{
    uint32_t pfns[QUEUES * RINGS_BYTES / GUEST_PAGE];
    for (uint32_t i = 0; i < ARRAY_SIZE(pfns); i++)
        pfns[i] = RIG_RINGS_AT / GUEST_PAGE + i;
    start(FEATURES);
    inflate(pfns, ARRAY_SIZE(pfns));
    offer(REPORTING, &(struct part){RIG_RINGS_AT, QUEUES * RINGS_BYTES, true}, 1);
    rig_run(20000);
    rig_kick(INFLATE);
    rig_run(20000);
    rig_write(VIRTIO_MMIO_STATUS, 0);
    cr_assert(rig_status() == 0, "it can be reset");
    start(FEATURES);
    use(1);
    inflate((const uint32_t[]){PAGES / GUEST_PAGE}, 1);
    cr_assert(await(INFLATE, 1) && resident(1) == 0, "and works again");
}
