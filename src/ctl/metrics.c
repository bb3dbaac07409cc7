#include "ctl/metrics.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

void metrics_count(struct metrics *metrics, size_t index, bool failed, uint64_t us)
{
    struct metrics_row *row = &metrics->rows[index];
    row->count++;
    row->fails += failed;
    row->us += us;
}

static int statm = -1;

void metrics_open(void)
{
    statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
}

/* Bytes of the process that are resident; 0 where there is no /proc. */
static uint64_t resident(void)
{
    unsigned long long pages = 0;
    char text[128];
    ssize_t length = pread(statm, text, sizeof(text) - 1, 0);
    text[MAX(length, 0)] = '\0';
    return sscanf(text, "%*u %llu", &pages) == 1 ? pages * 4096 : 0;
}

void metrics_signal(struct metrics *metrics, int number)
{
    if (number > 0 && number < (int)METRICS_SIGNALS_MAX)
        metrics->signals[number]++;
}

uint64_t metrics_cpu_us(void)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* ---- Prometheus ---- */

static void head(struct text *text, const char *name, const char *type, const char *help)
{
    text_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct text *text, const char *name, const char *type, const char *help, uint64_t value)
{
    head(text, name, type, help);
    text_printf(text, "%s %llu\n", name, (unsigned long long)value);
}

static void add_requests(const struct metrics *metrics, struct text *text, const char *name, const char *help,
                         size_t offset, double unit)
{
    head(text, name, "counter", help);
    for (size_t i = 0; i < METRICS_ROWS_MAX; i++) {
        const struct metrics_row *row = &metrics->rows[i];
        uint64_t value;
        if (!row->method || !row->count)
            continue;
        memcpy(&value, (const char *)row + offset, sizeof(value));
        text_printf(text, "%s{method=\"%s\",path=\"/%s\",request=\"%s\"} %.15g\n", name, row->method,
                    row->path, row->name, (double)value * unit);
    }
}

/* ---- Devices and vCPUs ---- */

static const char *kind_of(const struct virtio_device *device)
{
    const char *dash = strchr(device->ops->name, '-'); /* "virtio-blk" */
    return dash ? dash + 1 : device->ops->name;
}

/* One metric of the devices with these `ops` (NULL: of all), whose head was told; `offset` as in struct
 * virtio_counter. */
static void add_samples(struct text *text, const struct metrics_view *view, const struct virtio_ops *ops,
                        const char *name, size_t offset)
{
    const struct virtio_device *device;
    for (unsigned i = 0; (device = machine_device(view->machine, i)); i++) {
        uint64_t value;
        if (ops && device->ops != ops)
            continue;
        memcpy(&value, (const char *)device + offset, sizeof(value));
        text_printf(text, "%s{device=\"%s\"", name, device->label);
        if (i < view->drives)
            text_printf(text, ",id=\"%s\"", view->drive_ids[i]);
        text_printf(text, "} %llu\n", (unsigned long long)value);
    }
}

/* True if no device before this one is of its kind. */
static bool is_first_of_kind(const struct machine *machine, unsigned index)
{
    for (unsigned i = 0; i < index; i++)
        if (machine_device(machine, i)->ops == machine_device(machine, index)->ops)
            return false;
    return true;
}

static void add_counter_of_all(struct text *text, const struct metrics_view *view, const char *name,
                               const char *help, size_t offset)
{
    head(text, name, "counter", help);
    add_samples(text, view, NULL, name, offset);
}

/* What the devices with these `ops` count, and what they have. */
static void add_kind(struct text *text, const struct metrics_view *view, const struct virtio_device *device)
{
    const struct virtio_ops *ops = device->ops;
    for (unsigned i = 0; i < ops->counter_count + ops->gauge_count; i++) {
        bool counts = i < ops->counter_count;
        const struct virtio_counter *of = counts ? &ops->counters[i] : &ops->gauges[i - ops->counter_count];
        char name[80];
        snprintf(name, sizeof(name), "stardust_%s_%s%s", kind_of(device), of->name, counts ? "_total" : "");
        head(text, name, counts ? "counter" : "gauge", of->help);
        add_samples(text, view, ops, name, of->offset);
    }
}

static void add_all_devices(struct text *text, const struct metrics_view *view)
{
    const struct virtio_device *device = machine_device(view->machine, 0);
    if (!device)
        return;
    add_counter_of_all(text, view, "stardust_device_kicks_total", "Times the driver notified the device.",
                       offsetof(struct virtio_device, kicks));
    add_counter_of_all(text, view, "stardust_device_interrupts_total", "Interrupts for finished requests.",
                       offsetof(struct virtio_device, interrupts));
    add_counter_of_all(text, view, "stardust_device_faults_total", "Times the driver broke the protocol.",
                       offsetof(struct virtio_device, faults));
    for (unsigned i = 0; (device = machine_device(view->machine, i)); i++)
        if (is_first_of_kind(view->machine, i))
            add_kind(text, view, device);
}

static void add_vcpus(struct text *text, const struct machine *machine)
{
    static const char *const kinds[] = {"mmio_read", "mmio_write", "port_read", "port_write"};
    struct vcpu_counts counts;
    if (!machine_count_vcpu(machine, 0, &counts))
        return;
    head(text, "stardust_vcpu_seconds_total", "counter", "CPU time of a vCPU's thread, with its guest's.");
    for (unsigned i = 0; machine_count_vcpu(machine, i, &counts); i++)
        text_printf(text, "stardust_vcpu_seconds_total{vcpu=\"%u\"} %.6f\n", i, (double)counts.cpu_ns / 1e9);
    head(text, "stardust_vcpu_exits_total", "counter", "Accesses of the guest that left the kernel.");
    for (unsigned i = 0; machine_count_vcpu(machine, i, &counts); i++) {
        const uint64_t values[] = {counts.mmio_reads, counts.mmio_writes, counts.port_reads,
                                   counts.port_writes};
        for (size_t k = 0; k < ARRAY_SIZE(values); k++)
            text_printf(text, "stardust_vcpu_exits_total{vcpu=\"%u\",kind=\"%s\"} %llu\n", i, kinds[k],
                        (unsigned long long)values[k]);
    }
}

void metrics_prometheus(const struct metrics *metrics, const struct metrics_view *view, struct text *text)
{
    static const char *const states[] = {"not_started", "running", "pausing", "paused", "ending"};
    head(text, "stardust_info", "gauge", "The VM and the version of its monitor.");
    text_printf(text, "stardust_info{id=\"%s\",version=\"%s\"} 1\n", view->id, VOLT_VERSION);
    head(text, "stardust_state", "gauge", "1 for the state that the VM is in.");
    for (size_t i = 0; i < ARRAY_SIZE(states); i++)
        text_printf(text, "stardust_state{state=\"%s\"} %d\n", states[i], machine_state(view->machine) == i);
    head(text, "stardust_uptime_seconds", "gauge", "Since the VM was started.");
    text_printf(text, "stardust_uptime_seconds %.3f\n", (double)machine_age(view->machine) / 1e9);
    sample(text, "stardust_memory_bytes", "gauge", "The guest's memory.", view->memory);
    sample(text, "stardust_vcpus", "gauge", "The guest's CPUs.", view->cpus);
    sample(text, "stardust_drives", "gauge", "The guest's disks.", view->drives);
    head(text, "process_cpu_seconds_total", "counter", "CPU time of the monitor with its vCPU threads.");
    text_printf(text, "process_cpu_seconds_total %.3f\n", (double)metrics_cpu_us() / 1e6);
    uint64_t bytes = resident();
    if (bytes)
        sample(text, "process_resident_memory_bytes", "gauge",
               "Resident memory, of which the guest's is the largest part.", bytes);
    add_vcpus(text, view->machine);
    add_all_devices(text, view);
    sample(text, "stardust_console_dropped_total", "counter",
           "Characters of the console that no reader took in time.", machine_console_dropped(view->machine));
    struct loop_counts loop = loop_counts(view->loop);
    sample(text, "stardust_loop_turns_total", "counter", "Times the loop woke up.", loop.turns);
    sample(text, "stardust_loop_completions_total", "counter", "Operations of the loop that ended.",
           loop.completions);
    add_requests(metrics, text, "stardust_api_requests_total", "Requests on the control socket.",
                 offsetof(struct metrics_row, count), 1);
    add_requests(metrics, text, "stardust_api_failures_total", "Requests that were answered with an error.",
                 offsetof(struct metrics_row, fails), 1);
    add_requests(metrics, text, "stardust_api_seconds_total", "Time in which requests were worked on.",
                 offsetof(struct metrics_row, us), 1e-6);
    sample(text, "stardust_api_connections", "gauge", "Open connections to the control socket.",
           view->connections);
    sample(text, "stardust_api_evicted_total", "counter",
           "Connections that were closed because they were slow, or to make room.", view->evicted);
    sample(text, "stardust_event_listeners", "gauge", "Clients that follow GET /events.", view->listeners);
    sample(text, "stardust_events_total", "counter", "Events so far.", view->events);
    sample(text, "stardust_log_lines_missed_total", "counter", "Lines that the log's reader did not take.",
           view->missed_log_lines);
    sample(text, "stardust_log_lines_limited_total", "counter",
           "Lines that were not logged because their source said too much.", view->limited_log_lines);
}
