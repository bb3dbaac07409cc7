#include "dev/virtio_balloon.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <string.h>

/*
 * The queues, as the specification numbers them. Older Linux numbers only those whose features it has
 * accepted, so that with reporting alone that queue is number 2. Which of the two a driver does shows when it
 * sets the queues up.
 */
enum role { INFLATE, DEFLATE, STATS, HINTING, REPORTING, QUEUES };

/* The feature that each comes with. */
static const uint64_t feature_of[QUEUES] = {
    [STATS] = FEATURE(VIRTIO_BALLOON_F_STATS_VQ),
    [HINTING] = FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT),
    [REPORTING] = FEATURE(VIRTIO_BALLOON_F_REPORTING),
};

#define HINT_STOP  VIRTIO_BALLOON_CMD_ID_STOP
#define HINT_DONE  VIRTIO_BALLOON_CMD_ID_DONE
#define HINT_FIRST 2u

#define BALLOON_PAGE (UINT64_C(1) << VIRTIO_BALLOON_PFN_SHIFT) /* 4 KiB, whatever the guest's pages are */

/* Page numbers in one chain: Windows' driver sends a page full of them, Linux's and FreeBSD's a quarter of
 * that. */
#define PFNS_MAX 1024u

#define BALLOON_IOV_MAX 64u /* parts of a chain: Linux reports 32 */

/* Chains in one turn of the loop. Linux has one in each queue at a time; the second look finds the queue
 * empty, so that it need not be kicked again. A report is at most 32 times 4 MiB, which take some 10 ms to
 * discard in 4 KiB pages. */
#define BALLOON_BATCH 2u

#define CONFIG_WORD(member) offsetof(struct virtio_balloon_config, member)

struct virtio_balloon {
    struct virtio_device device; /* first */
    enum role roles[QUEUES];     /* of the queues, by number */
    uint32_t target, actual;     /* pages */
    uint32_t poison;             /* what the guest fills free pages with */
    uint32_t host_command, guest_command;
    uint32_t run; /* of hinting, the last one's number: Linux ignores one that it has had */
    bool acknowledge, answered;
    unsigned stats_seconds;
    bool stats_held; /* the driver's buffer for statistics, `stats_head`, is with us */
    uint16_t stats_head;
    unsigned stats_queue;
    uint32_t known;
    uint64_t stats[BALLOON_STATS_MAX];
    struct loop_timer timer;
    uint64_t inflated_bytes, reported_bytes, hinted_bytes;
};

static struct virtio_balloon *balloon_of(const struct virtio_device *device)
{
    return container_of(device, struct virtio_balloon, device);
}

/* --- taking --- */

/* Copies the readable parts' beginning; how many bytes. */
static size_t copy_readable(const struct virtq_chain *chain, void *to, size_t max)
{
    size_t length = 0;
    for (unsigned i = 0; i < chain->readable && length < max; i++) {
        size_t part = MIN(chain->iov[i].iov_len, max - length);
        memcpy((uint8_t *)to + length, chain->iov[i].iov_base, part);
        length += part;
    }
    return length;
}

static int compare_pfns(const void *left, const void *right)
{
    uint32_t a, b;
    memcpy(&a, left, sizeof(a));
    memcpy(&b, right, sizeof(b));
    return a < b ? -1 : a > b;
}

/* Discards pages that follow each other at once: a call for each would be some hundred times as many. */
static int discard_pfns(struct virtio_balloon *balloon, uint32_t *pfns, size_t count)
{
    const struct guest_mem *mem = balloon->device.mem;
    qsort(pfns, count, sizeof(*pfns), compare_pfns);
    for (size_t i = 0, next; i < count; i = next) {
        for (next = i + 1; next < count && pfns[next] - pfns[next - 1] <= 1; next++) {
        }
        uint64_t first = pfns[i] * BALLOON_PAGE;
        uint64_t length = (pfns[next - 1] - pfns[i] + UINT64_C(1)) * BALLOON_PAGE;
        void *host = guest_mem_at(mem, gpa(first), length);
        if (!host)
            return fail(-EPROTO, "a balloon of pages at 0x%llx, outside RAM", (unsigned long long)first);
        balloon->inflated_bytes += guest_mem_discard(mem, host, length);
    }
    return 0;
}

static int take_inflated(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
    uint32_t pfns[PFNS_MAX];
    if (chain->readable_bytes > sizeof(pfns) || chain->readable_bytes % sizeof(pfns[0]))
        return fail(-EPROTO, "page numbers in %llu bytes", (unsigned long long)chain->readable_bytes);
    size_t count = copy_readable(chain, pfns, sizeof(pfns)) / sizeof(pfns[0]);
    return discard_pfns(balloon, pfns, count);
}

/* Free pages: each writable part is a range. A guest that checks its free pages for a pattern keeps them;
 * zeros are what it gets of us. */
static uint64_t discard_parts(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
    uint64_t bytes = 0;
    if ((balloon->device.features & FEATURE(VIRTIO_BALLOON_F_PAGE_POISON)) && balloon->poison)
        return 0;
    for (unsigned i = chain->readable; i < chain->readable + chain->writable; i++)
        bytes += guest_mem_discard(balloon->device.mem, chain->iov[i].iov_base, chain->iov[i].iov_len);
    return bytes;
}

static void set_host_command(struct virtio_balloon *balloon, uint32_t command)
{
    balloon->host_command = command;
    virtio_set_config_word(&balloon->device, CONFIG_WORD(free_page_hint_cmd_id), command);
}

/* A command opens and closes the driver's answer to a run; pages of a run that is over are its own again. */
static int take_hint(struct virtio_balloon *balloon, const struct virtq_chain *chain)
{
    if (chain->readable) {
        uint32_t command;
        if (copy_readable(chain, &command, sizeof(command)) < sizeof(command))
            return fail(-EPROTO, "a hinting command of %llu bytes",
                        (unsigned long long)chain->readable_bytes);
        balloon->guest_command = command;
        balloon->answered = true;
        if (command == HINT_STOP && balloon->acknowledge && balloon->host_command >= HINT_FIRST)
            set_host_command(balloon, HINT_DONE);
    } else if (balloon->host_command >= HINT_FIRST && balloon->guest_command == balloon->host_command) {
        balloon->hinted_bytes += discard_parts(balloon, chain);
    }
    return 0;
}

/* The driver's statistics. Its buffer is kept: giving it back asks for new ones. */
static int take_stats(struct virtio_balloon *balloon, unsigned q, const struct virtq_chain *chain)
{
    struct virtio_balloon_stat stats[4 * BALLOON_STATS_MAX];
    if (balloon->stats_held)
        return fail(-EPROTO, "a second buffer of statistics");
    size_t count = copy_readable(chain, stats, sizeof(stats)) / sizeof(stats[0]);
    for (size_t i = 0; i < count; i++) {
        if (stats[i].tag >= BALLOON_STATS_MAX)
            continue; /* of a newer driver */
        balloon->stats[stats[i].tag] = stats[i].val;
        balloon->known |= 1u << stats[i].tag;
    }
    balloon->stats_head = chain->head;
    balloon->stats_queue = q;
    balloon->stats_held = true;
    return 0;
}

static int balloon_take(struct virtio_device *device, unsigned q, struct virtq_chain *chain)
{
    struct virtio_balloon *balloon = balloon_of(device);
    int r = 0;
    switch (balloon->roles[q]) {
    case INFLATE: r = take_inflated(balloon, chain); break;
    case DEFLATE: break; /* the next use of a page brings zeros */
    case STATS: return take_stats(balloon, q, chain);
    case HINTING: r = take_hint(balloon, chain); break;
    case REPORTING: balloon->reported_bytes += discard_parts(balloon, chain); break;
    case QUEUES: r = fail(-EPROTO, "a chain in queue %u, which no feature asked for", q); break;
    }
    if (r == 0)
        virtio_push(device, q, chain->head, 0);
    return r;
}

/* --- statistics in time --- */

static void ask_for_stats(struct virtio_balloon *balloon)
{
    if (!balloon->stats_held || balloon->device.state != VIRTIO_RUNNING)
        return; /* the driver has not answered yet */
    balloon->stats_held = false;
    virtio_push(&balloon->device, balloon->stats_queue, balloon->stats_head, 0);
}

static void start_timer(struct virtio_balloon *balloon)
{
    if (balloon->stats_seconds && balloon->device.state == VIRTIO_RUNNING && !balloon->timer.op.in_flight)
        loop_timer_start(balloon->device.loop, &balloon->timer,
                         balloon->stats_seconds * UINT64_C(1000000000));
}

static void timer_due(struct loop_op *op, int result, unsigned flags)
{
    struct virtio_balloon *balloon = container_of(op, struct virtio_balloon, timer.op);
    (void)flags;
    if (balloon->device.state == VIRTIO_QUIESCING) {
        virtio_quiesced(&balloon->device);
        return;
    }
    if (result == -ETIME && balloon->stats_seconds)
        ask_for_stats(balloon);
    start_timer(balloon);
}

void virtio_balloon_set_stats(struct virtio_device *device, unsigned seconds)
{
    struct virtio_balloon *balloon = balloon_of(device);
    balloon->stats_seconds = seconds;
    loop_cancel(device->loop, &balloon->timer.op); /* and is started again, of the new length */
    if (seconds)
        ask_for_stats(balloon);
    start_timer(balloon);
}

/* --- life --- */

/* True if each queue that the driver has set up is one of the specification's for the features it
 * accepted. */
static bool is_numbered_as_specified(const struct virtio_device *device)
{
    for (unsigned q = STATS; q < QUEUES; q++)
        if (device->queues[q].vq.ready && !(device->features & feature_of[q]))
            return false;
    return true;
}

static void assign_roles(struct virtio_balloon *balloon)
{
    struct virtio_device *device = &balloon->device;
    bool specified = is_numbered_as_specified(device);
    unsigned next = STATS;
    for (unsigned q = 0; q < QUEUES; q++)
        balloon->roles[q] = q < STATS ? (enum role)q : QUEUES;
    for (enum role role = STATS; role < QUEUES; role++)
        if (device->features & feature_of[role])
            balloon->roles[specified ? role : next++] = role;
}

static void balloon_start(struct virtio_device *device)
{
    assign_roles(balloon_of(device));
    start_timer(balloon_of(device));
}

/* Of a driver that is gone: its balloon is, too. */
static void forget_driver(struct virtio_balloon *balloon)
{
    balloon->actual = balloon->guest_command = balloon->host_command = balloon->known = 0;
    balloon->answered = false;
    virtio_show_config_word(&balloon->device, CONFIG_WORD(actual), 0);
    virtio_show_config_word(&balloon->device, CONFIG_WORD(free_page_hint_cmd_id), 0);
}

static void balloon_quiesce(struct virtio_device *device)
{
    struct virtio_balloon *balloon = balloon_of(device);
    if (balloon->stats_held)
        virtqueue_unpop(&device->queues[balloon->stats_queue].vq, 1);
    balloon->stats_held = false;
    if (device->forget)
        forget_driver(balloon);
    if (balloon->timer.op.in_flight)
        loop_cancel(device->loop, &balloon->timer.op);
    else
        virtio_quiesced(device);
}

static void balloon_config_write(struct virtio_device *device, uint64_t offset, unsigned length,
                                 uint64_t value)
{
    struct virtio_balloon *balloon = balloon_of(device);
    if (length != sizeof(uint32_t))
        return;
    if (offset == CONFIG_WORD(actual))
        balloon->actual = (uint32_t)value;
    else if (offset == CONFIG_WORD(poison_val))
        balloon->poison = (uint32_t)value;
    else
        return; /* read-only */
    virtio_show_config_word(device, (uint32_t)offset, (uint32_t)value);
}

static void balloon_destroy(struct virtio_device *device)
{
    free(balloon_of(device));
}

/* --- state --- */

struct saved_balloon {
    uint32_t target, actual, poison, stats_seconds;
    uint32_t host_command, guest_command, run;
    uint8_t acknowledge, answered, zero[2];
};
_Static_assert(sizeof(struct saved_balloon) == 32, "no padding");

static int save_balloon(const void *owner, struct state_writer *to)
{
    const struct virtio_balloon *balloon = balloon_of(owner);
    const struct saved_balloon saved = {
        .target = balloon->target,
        .actual = balloon->actual,
        .poison = balloon->poison,
        .stats_seconds = balloon->stats_seconds,
        .host_command = balloon->host_command,
        .guest_command = balloon->guest_command,
        .run = balloon->run,
        .acknowledge = balloon->acknowledge,
        .answered = balloon->answered,
    };
    state_put(to, &saved, sizeof(saved));
    return 0;
}

static int load_balloon(void *owner, struct state_reader *from, uint16_t version)
{
    struct virtio_device *device = owner;
    struct virtio_balloon *balloon = balloon_of(device);
    struct saved_balloon saved;
    (void)version; /* there is one */
    int r = state_get(from, &saved, sizeof(saved));
    if (r < 0)
        return r;
    if (saved.acknowledge > 1 || saved.answered > 1 || saved.stats_seconds > UINT16_MAX)
        return fail(-EBADMSG, "saved state of the balloon is damaged");
    if (saved.target > device->mem->size / BALLOON_PAGE)
        return fail(-EINVAL, "saved state of a balloon of %u MiB is not of this guest",
                    saved.target / (unsigned)(MIB / BALLOON_PAGE));
    balloon->target = saved.target;
    balloon->actual = saved.actual;
    balloon->poison = saved.poison;
    balloon->stats_seconds = saved.stats_seconds;
    balloon->host_command = saved.host_command;
    balloon->guest_command = saved.guest_command;
    balloon->run = saved.run;
    balloon->acknowledge = saved.acknowledge;
    balloon->answered = saved.answered;
    virtio_show_config_word(device, CONFIG_WORD(num_pages), saved.target);
    virtio_show_config_word(device, CONFIG_WORD(actual), saved.actual);
    virtio_show_config_word(device, CONFIG_WORD(poison_val), saved.poison);
    virtio_show_config_word(device, CONFIG_WORD(free_page_hint_cmd_id), saved.host_command);
    return 0;
}

/* --- the host's side --- */

int virtio_balloon_set_target(struct virtio_device *device, uint64_t target)
{
    struct virtio_balloon *balloon = balloon_of(device);
    char wanted[SIZE_TEXT_MAX], memory[SIZE_TEXT_MAX];
    if (target > device->mem->size)
        return fail(-EINVAL, "a balloon of %s does not fit into a guest of %s", size_text(target, wanted),
                    size_text(device->mem->size, memory));
    balloon->target = (uint32_t)(target / BALLOON_PAGE);
    virtio_set_config_word(device, CONFIG_WORD(num_pages), balloon->target);
    return 0;
}

int virtio_balloon_start_hinting(struct virtio_device *device, bool acknowledge)
{
    struct virtio_balloon *balloon = balloon_of(device);
    if (device->state == VIRTIO_IDLE || !(device->features & FEATURE(VIRTIO_BALLOON_F_FREE_PAGE_HINT)))
        return fail(-EOPNOTSUPP, "the guest has no balloon driver that tells its free pages (yet)");
    balloon->acknowledge = acknowledge;
    balloon->run = MAX(balloon->run + 1, HINT_FIRST);
    set_host_command(balloon, balloon->run);
    return 0;
}

void virtio_balloon_stop_hinting(struct virtio_device *device)
{
    set_host_command(balloon_of(device), HINT_DONE);
}

void virtio_balloon_status(const struct virtio_device *device, struct virtio_balloon_status *ret_status)
{
    const struct virtio_balloon *balloon = balloon_of(device);
    *ret_status = (struct virtio_balloon_status){
        .active = device->state != VIRTIO_IDLE,
        .deflate_on_oom = device->offered & FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM),
        .reporting = device->offered & feature_of[REPORTING],
        .hinting = device->offered & feature_of[HINTING],
        .target = balloon->target * BALLOON_PAGE,
        .actual = balloon->actual * BALLOON_PAGE,
        .stats_seconds = balloon->stats_seconds,
        .host_command = balloon->host_command,
        .guest_command = balloon->guest_command,
        .answered = balloon->answered,
        .known = balloon->known,
    };
    memcpy(ret_status->stats, balloon->stats, sizeof(ret_status->stats));
}

const char *virtio_balloon_stat_name(unsigned tag)
{
    static const char *const names[BALLOON_STATS_MAX] = {
        "swap_in",       "swap_out",         "major_faults", "minor_faults",        "free_memory",
        "total_memory",  "available_memory", "disk_caches",  "hugetlb_allocations", "hugetlb_failures",
        "oom_kill",      "alloc_stall",      "async_scan",   "direct_scan",         "async_reclaim",
        "direct_reclaim"};
    return names[tag];
}

static uint64_t features_of(const struct virtio_balloon_options *options)
{
    return (options->deflate_on_oom ? FEATURE(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) : 0) |
           (options->stats_seconds ? feature_of[STATS] : 0) | (options->hinting ? feature_of[HINTING] : 0) |
           (options->reporting ? feature_of[REPORTING] : 0) |
           (options->reporting || options->hinting ? FEATURE(VIRTIO_BALLOON_F_PAGE_POISON) : 0);
}

static const struct virtio_counter balloon_counters[] = {
    {"inflated_bytes", "Memory that came back by the balloon.",
     offsetof(struct virtio_balloon, inflated_bytes)},
    {"reported_bytes", "Memory that came back by free page reporting.",
     offsetof(struct virtio_balloon, reported_bytes)},
    {"hinted_bytes", "Memory that came back by free page hinting.",
     offsetof(struct virtio_balloon, hinted_bytes)},
};

int virtio_balloon_new(struct loop *loop, const struct virtio_balloon_options *options,
                       struct virtio_device **ret_device)
{
    static const struct state_part parts[] = {{"BALN", 1, STATE_REQUIRED, save_balloon, load_balloon}};
    static const struct virtio_ops ops = {
        .name = "virtio-balloon",
        .device_id = VIRTIO_ID_BALLOON,
        .queue_count = QUEUES,
        .iov_max = BALLOON_IOV_MAX,
        .batch = BALLOON_BATCH,
        .start = balloon_start,
        .take = balloon_take,
        .quiesce = balloon_quiesce,
        .config_write = balloon_config_write,
        .parts = parts,
        .part_count = ARRAY_SIZE(parts),
        .counters = balloon_counters,
        .counter_count = ARRAY_SIZE(balloon_counters),
        .destroy = balloon_destroy,
    };
    struct virtio_balloon *balloon = calloc(1, sizeof(*balloon));
    if (!balloon)
        return fail(-ENOMEM, "no memory for the balloon");
    balloon->target = (uint32_t)(options->target / BALLOON_PAGE);
    balloon->stats_seconds = options->stats_seconds;
    balloon->timer.op.done = timer_due;
    int r = virtio_init(&balloon->device, &ops, loop, "balloon", features_of(options));
    if (r < 0) {
        free(balloon);
        return r;
    }
    while (balloon->device.queue_count > STATS &&
           !(balloon->device.offered & feature_of[balloon->device.queue_count - 1]))
        balloon->device.queue_count--;
    const struct virtio_balloon_config config = {.num_pages = balloon->target};
    virtio_set_config(&balloon->device, &config, sizeof(config));
    *ret_device = &balloon->device;
    return 0;
}
