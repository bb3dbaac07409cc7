/*
 * Metrics as Firecracker's JSON lines. Its clients check them against a schema: every member is there, and no
 * other. So the line is written along a list of all members, and what this program counts is looked up by
 * name. A member that nothing here counts (of a device that the VM has not got, of a rate limiter that is not
 * set) is 0.
 */
#include "ctl/metrics.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define AGGREGATE "{\"min_us\":0,\"max_us\":0,\"sum_us\":0}"

/* Members with '*' are objects of a smallest, a largest and a sum of microseconds. */
#define BLOCK                                                                                                \
    "activate_fails cfg_fails no_avail_buffer event_fails execute_fails invalid_reqs_count flush_count "     \
    "queue_event_count rate_limiter_event_count update_count update_fails read_bytes write_bytes "           \
    "read_count write_count read_agg* write_agg* rate_limiter_throttled_events "                             \
    "io_engine_throttled_events remaining_reqs_count"
#define NET                                                                                                  \
    "activate_fails cfg_fails no_rx_avail_buffer no_tx_avail_buffer event_fails rx_queue_event_count "       \
    "rx_event_rate_limiter_count rx_rate_limiter_throttled rx_tap_event_count rx_bytes_count "               \
    "rx_packets_count rx_fails rx_count tap_read_fails tap_write_fails tap_write_agg* tx_bytes_count "       \
    "tx_malformed_frames tx_fails tx_count tx_packets_count tx_queue_event_count "                           \
    "tx_rate_limiter_event_count tx_rate_limiter_throttled tx_spoofed_mac_count tx_remaining_reqs_count"

static const struct section {
    const char *name, *members;
    bool each; /* once for each device of the kind as NAME_ID, and once for all */
} sections[] = {
    {"api_server", "process_startup_time_us process_startup_time_cpu_us", false},
    {"balloon",
     "activate_fails inflate_count stats_updates_count stats_update_fails deflate_count event_fails "
     "free_page_report_count free_page_report_freed free_page_report_fails free_page_hint_count "
     "free_page_hint_freed free_page_hint_fails",
     false},
    {"block", BLOCK, true},
    {"deprecated_api", "deprecated_http_api_calls", false},
    {"get_api_requests",
     "instance_info_count machine_cfg_count mmds_count vmm_version_count hotplug_memory_count", false},
    {"i8042", "error_count missed_read_count missed_write_count read_count reset_count write_count", false},
    {"uart",
     "error_count flush_count missed_read_count missed_write_count read_count write_count "
     "rate_limiter_dropped_bytes",
     false},
    {"latencies_us",
     "full_create_snapshot diff_create_snapshot load_snapshot pause_vm resume_vm vmm_full_create_snapshot "
     "vmm_diff_create_snapshot vmm_load_snapshot vmm_pause_vm vmm_resume_vm",
     false},
    {"logger", "missed_metrics_count metrics_fails missed_log_count rate_limited_log_count", false},
    {"mmds",
     "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token rx_no_token rx_count "
     "tx_bytes tx_count tx_errors tx_frames connections_created connections_destroyed",
     false},
    {"net", NET, true},
    {"patch_api_requests",
     "drive_count drive_fails network_count network_fails machine_cfg_count machine_cfg_fails mmds_count "
     "mmds_fails hotplug_memory_count hotplug_memory_fails pmem_count pmem_fails",
     false},
    {"put_api_requests",
     "actions_count actions_fails boot_source_count boot_source_fails drive_count drive_fails logger_count "
     "logger_fails machine_cfg_count machine_cfg_fails cpu_cfg_count cpu_cfg_fails metrics_count "
     "metrics_fails network_count network_fails mmds_count mmds_fails vsock_count vsock_fails pmem_count "
     "pmem_fails serial_count serial_fails hotplug_memory_count hotplug_memory_fails",
     false},
    {"seccomp", "num_faults", false},
    {"vcpu",
     "exit_io_in exit_io_out exit_mmio_read exit_mmio_write failures kvmclock_ctrl_fails exit_io_in_agg* "
     "exit_io_out_agg* exit_mmio_read_agg* exit_mmio_write_agg*",
     false},
    {"vmm", "panic_count", false},
    {"signals", "sigbus sigsegv sigxfsz sigxcpu sigpipe sighup sigill", false},
    {"vsock",
     "activate_fails cfg_fails rx_queue_event_fails tx_queue_event_fails ev_queue_event_fails "
     "muxer_event_fails conn_event_fails rx_queue_event_count tx_queue_event_count rx_bytes_count "
     "tx_bytes_count rx_packets_count tx_packets_count conns_added conns_killed conns_removed killq_resync "
     "tx_flush_fails tx_write_fails rx_read_fails",
     false},
    {"entropy",
     "activate_fails entropy_event_fails entropy_event_count entropy_bytes host_rng_fails "
     "entropy_rate_limiter_throttled rate_limiter_event_count",
     false},
    {"pmem",
     "activate_fails cfg_fails event_fails queue_event_count rate_limiter_throttled_events "
     "rate_limiter_event_count",
     false},
    {"interrupts", "triggers config_updates", false},
    {"memory_hotplug",
     "activate_fails queue_event_fails queue_event_count plug_agg* plug_count plug_bytes plug_fails "
     "unplug_agg* unplug_count unplug_bytes unplug_fails unplug_discard_fails unplug_all_agg* "
     "unplug_all_count unplug_all_fails state_agg* state_count state_fails",
     false},
};

/* ---- What is known ---- */

struct fact {
    const char *section, *suffix; /* `suffix`: of the member's name, after `member` */
    const char *member;
    const char *id; /* of the device, in sections that have each */
    uint64_t value;
};

struct facts {
    struct fact items[METRICS_FACTS_MAX];
    size_t count;
    uint64_t *told;
};

/* A value that stands for itself. */
static void add_value(struct facts *facts, const char *section, const char *member, uint64_t value)
{
    if (facts->count < METRICS_FACTS_MAX)
        facts->items[facts->count++] = (struct fact){section, "", member, NULL, value};
}

/* A counter, of which what came since the last line is told. Facts come in the same order each time, new
 * devices last. */
static void add_count(struct facts *facts, const char *section, const char *id, const char *member,
                      const char *suffix, uint64_t count)
{
    if (facts->count == METRICS_FACTS_MAX)
        return;
    uint64_t *told = &facts->told[facts->count];
    facts->items[facts->count++] = (struct fact){section, suffix, member, id, count - *told};
    *told = count;
}

static void add_requests(struct facts *facts, const struct metrics *metrics)
{
    for (size_t i = 0; i < METRICS_ROWS_MAX && metrics->rows[i].method; i++) {
        const struct metrics_row *row = &metrics->rows[i];
        const char *section = strcmp(row->method, "GET") == 0     ? "get_api_requests"
                              : strcmp(row->method, "PUT") == 0   ? "put_api_requests"
                              : strcmp(row->method, "PATCH") == 0 ? "patch_api_requests"
                                                                  : "delete_api_requests";
        add_count(facts, section, NULL, row->name, "_count", row->count);
        add_count(facts, section, NULL, row->name, "_fails", row->fails);
    }
}

static void add_own(struct facts *facts, const struct metrics *metrics, const struct metrics_view *view)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {{"sigbus", SIGBUS},   {"sigsegv", SIGSEGV}, {"sigxfsz", SIGXFSZ}, {"sigxcpu", SIGXCPU},
                   {"sigpipe", SIGPIPE}, {"sighup", SIGHUP},   {"sigill", SIGILL}};
    add_value(facts, "api_server", "process_startup_time_us", metrics->startup_us);
    add_value(facts, "api_server", "process_startup_time_cpu_us", metrics->startup_cpu_us);
    add_value(facts, "latencies_us", "pause_vm", metrics->pause_us);
    add_value(facts, "latencies_us", "resume_vm", metrics->resume_us);
    add_value(facts, "latencies_us", "full_create_snapshot", metrics->save_full_us);
    add_value(facts, "latencies_us", "vmm_full_create_snapshot", metrics->save_full_us);
    add_value(facts, "latencies_us", "diff_create_snapshot", metrics->save_diff_us);
    add_value(facts, "latencies_us", "vmm_diff_create_snapshot", metrics->save_diff_us);
    add_value(facts, "latencies_us", "load_snapshot", metrics->load_us);
    add_value(facts, "latencies_us", "vmm_load_snapshot", metrics->load_us);
    add_value(facts, "latencies_us", "vmm_pause_vm", metrics->pause_us);
    add_value(facts, "latencies_us", "vmm_resume_vm", metrics->resume_us);
    add_count(facts, "deprecated_api", NULL, "deprecated_http_api_calls", "", metrics->deprecated);
    add_count(facts, "logger", NULL, "missed_metrics_count", "", metrics->lines_failed);
    add_count(facts, "logger", NULL, "missed_log_count", "", view->missed_log_lines);
    add_count(facts, "logger", NULL, "rate_limited_log_count", "", view->limited_log_lines);
    add_count(facts, "uart", NULL, "missed_write_count", "", machine_console_dropped(view->machine));
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        add_count(facts, "signals", NULL, signals[i].name, "", metrics->signals[signals[i].number]);
}

static void add_vcpus(struct facts *facts, const struct machine *machine)
{
    struct vcpu_counts counts, sum = {0};
    for (unsigned i = 0; machine_count_vcpu(machine, i, &counts); i++) {
        sum.port_reads += counts.port_reads;
        sum.port_writes += counts.port_writes;
        sum.mmio_reads += counts.mmio_reads;
        sum.mmio_writes += counts.mmio_writes;
    }
    add_count(facts, "vcpu", NULL, "exit_io_in", "", sum.port_reads);
    add_count(facts, "vcpu", NULL, "exit_io_out", "", sum.port_writes);
    add_count(facts, "vcpu", NULL, "exit_mmio_read", "", sum.mmio_reads);
    add_count(facts, "vcpu", NULL, "exit_mmio_write", "", sum.mmio_writes);
}

/* What a kind of device counts, and what Firecracker calls it. */
static const struct alias {
    const char *device, *counter, *section, *member;
} aliases[] = {
    {"virtio-blk", "reads", "block", "read_count"},
    {"virtio-blk", "writes", "block", "write_count"},
    {"virtio-blk", "flushes", "block", "flush_count"},
    {"virtio-blk", "read_bytes", "block", "read_bytes"},
    {"virtio-blk", "write_bytes", "block", "write_bytes"},
    {"virtio-blk", "failed", "block", "execute_fails"},
    {"virtio-blk", "throttled", "block", "rate_limiter_throttled_events"},
    {"virtio-blk", NULL, "block", "queue_event_count"},
    {"virtio-rng", "requests", "entropy", "entropy_event_count"},
    {"virtio-rng", "bytes", "entropy", "entropy_bytes"},
    {"virtio-rng", "throttled", "entropy", "entropy_rate_limiter_throttled"},
    {"virtio-net", "rx_packets", "net", "rx_packets_count"},
    {"virtio-net", "rx_bytes", "net", "rx_bytes_count"},
    {"virtio-net", "tx_packets", "net", "tx_packets_count"},
    {"virtio-net", "tx_bytes", "net", "tx_bytes_count"},
    {"virtio-net", "rx_dropped", "net", "rx_fails"},
    {"virtio-net", "tx_dropped", "net", "tx_fails"},
    {"virtio-vsock", "rx_packets", "vsock", "rx_packets_count"},
    {"virtio-vsock", "rx_bytes", "vsock", "rx_bytes_count"},
    {"virtio-vsock", "tx_packets", "vsock", "tx_packets_count"},
    {"virtio-vsock", "tx_bytes", "vsock", "tx_bytes_count"},
    {"virtio-vsock", "opened", "vsock", "conns_added"},
    {"virtio-vsock", "killed", "vsock", "conns_killed"},
    {"virtio-vsock", "closed", "vsock", "conns_removed"},
};

/* The device's counter of that name; NULL: its kicks. */
static uint64_t counter_of(const struct virtio_device *device, const char *name)
{
    if (!name)
        return device->kicks;
    for (unsigned i = 0; i < device->ops->counter_count; i++) {
        uint64_t value;
        if (strcmp(device->ops->counters[i].name, name) != 0)
            continue;
        memcpy(&value, (const char *)device + device->ops->counters[i].offset, sizeof(value));
        return value;
    }
    return 0;
}

static void add_devices(struct facts *facts, const struct metrics_view *view)
{
    const struct virtio_device *device;
    for (unsigned i = 0; (device = machine_device(view->machine, i)); i++) {
        const char *id = i < view->drives ? view->drive_ids[i] : device->label;
        add_count(facts, "interrupts", NULL, "triggers", "", device->interrupts);
        add_count(facts, "interrupts", NULL, "config_updates", "", device->config_interrupts);
        for (size_t k = 0; k < ARRAY_SIZE(aliases); k++)
            if (strcmp(aliases[k].device, device->ops->name) == 0)
                add_count(facts, aliases[k].section, id, aliases[k].member, "",
                          counter_of(device, aliases[k].counter));
    }
}

/* ---- The line ---- */

static bool is_member(const struct fact *fact, const char *name, size_t length)
{
    size_t first = strlen(fact->member), last = strlen(fact->suffix);
    return first + last == length && memcmp(fact->member, name, first) == 0 &&
           memcmp(fact->suffix, name + first, last) == 0;
}

static uint64_t sum_of(const struct facts *facts, const struct section *section, const char *id,
                       const char *name, size_t length)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < facts->count; i++) {
        const struct fact *fact = &facts->items[i];
        if (strcmp(fact->section, section->name) == 0 && is_member(fact, name, length) &&
            (!id || (fact->id && strcmp(fact->id, id) == 0)))
            sum += fact->value;
    }
    return sum;
}

static void write_section(struct text *text, const struct facts *facts, const struct section *section,
                          const char *id)
{
    text_puts(text, ",\"");
    text_printf(text, id ? "%s_%s\":" : "%s\":", section->name, id);
    const char *before = "{";
    for (const char *at = section->members; *at;) {
        size_t length = strcspn(at, " ");
        bool aggregate = at[length - 1] == '*';
        text_printf(text, "%s\"%.*s\":", before, (int)(length - aggregate), at);
        if (aggregate)
            text_puts(text, AGGREGATE);
        else
            text_printf(text, "%llu", (unsigned long long)sum_of(facts, section, id, at, length));
        before = ",";
        at += length + (at[length] == ' ');
    }
    text_puts(text, "}");
}

/* The section for each device that has facts in it: those of one device follow one another. */
static void write_each(struct text *text, const struct facts *facts, const struct section *section)
{
    const char *id = NULL;
    for (size_t i = 0; i < facts->count; i++) {
        const struct fact *fact = &facts->items[i];
        if (!fact->id || strcmp(fact->section, section->name) != 0 || fact->id == id)
            continue;
        id = fact->id;
        write_section(text, facts, section, id);
    }
}

void metrics_json(struct metrics *metrics, const struct metrics_view *view, struct text *text)
{
    struct timespec now = {0};
    struct facts *facts = calloc(1, sizeof(*facts));
    if (!metrics->told)
        metrics->told = calloc(METRICS_FACTS_MAX, sizeof(*metrics->told));
    if (!facts || !metrics->told) {
        free(facts);
        text->failed = true;
        return;
    }
    facts->told = metrics->told;
    add_own(facts, metrics, view);
    add_requests(facts, metrics);
    add_vcpus(facts, view->machine);
    add_devices(facts, view);

    clock_gettime(CLOCK_REALTIME, &now);
    text_printf(text, "{\"utc_timestamp_ms\":%lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    if (view->emit_id) {
        text_puts(text, ",\"id\":");
        text_json_string(text, view->id, strlen(view->id));
    }
    if (view->properties)
        text_printf(text, ",\"properties\":%s", view->properties);
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        if (sections[i].each)
            write_each(text, facts, &sections[i]);
        write_section(text, facts, &sections[i], NULL);
    }
    text_puts(text, "}\n");
    free(facts);
}
