#include "ctl/metrics.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

void metrics_count(struct metrics *metrics, size_t index, bool failed, uint64_t us)
{
    struct metrics_row *row = &metrics->rows[index];
    row->count++;
    row->fails += failed;
    row->us += us;
}

/* Bytes of the process that are resident; 0 where there is no /proc. */
static uint64_t resident(void)
{
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(file);
    return pages * 4096;
}

static double cpu_seconds(void)
{
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
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
    text_printf(text, "process_cpu_seconds_total %.3f\n", cpu_seconds());
    uint64_t bytes = resident();
    if (bytes)
        sample(text, "process_resident_memory_bytes", "gauge",
               "Resident memory, of which the guest's is the largest part.", bytes);
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
}

/* ---- JSON lines ---- */

/* The requests of one method, as "NAME_count" and "NAME_fails". A name that several rows have is told
 * once. */
static void add_group(struct metrics *metrics, struct text *text, const char *group, const char *method,
                      bool fails)
{
    const char *comma = "";
    text_printf(text, ",\"%s\":{", group);
    for (size_t i = 0; i < METRICS_ROWS_MAX; i++) {
        const struct metrics_row *row = &metrics->rows[i];
        bool first = row->method && strcmp(row->method, method) == 0;
        uint64_t count = 0, failed = 0;
        for (size_t k = 0; first && k < METRICS_ROWS_MAX; k++) {
            struct metrics_row *same = &metrics->rows[k];
            if (!same->method || strcmp(same->method, method) != 0 || strcmp(same->name, row->name) != 0)
                continue;
            first = k >= i;
            count += same->count - same->told_count;
            failed += same->fails - same->told_fails;
        }
        if (!first)
            continue;
        text_printf(text, "%s\"%s_count\":%llu", comma, row->name, (unsigned long long)count);
        if (fails)
            text_printf(text, ",\"%s_fails\":%llu", row->name, (unsigned long long)failed);
        comma = ",";
    }
    text_puts(text, "}");
}

void metrics_json(struct metrics *metrics, const struct metrics_view *view, struct text *text)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    text_printf(text, "{\"utc_timestamp_ms\":%lld", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    if (view->emit_id) {
        text_puts(text, ",\"id\":");
        text_json_string(text, view->id, strlen(view->id));
    }
    if (view->properties)
        text_printf(text, ",\"properties\":%s", view->properties);

    text_printf(text, ",\"deprecated_api\":{\"deprecated_http_api_calls\":%llu}",
                (unsigned long long)(metrics->deprecated - metrics->told_deprecated));
    add_group(metrics, text, "get_api_requests", "GET", false);
    add_group(metrics, text, "patch_api_requests", "PATCH", true);
    add_group(metrics, text, "put_api_requests", "PUT", true);
    text_printf(text, ",\"latencies_us\":{\"pause_vm\":%llu,\"resume_vm\":%llu}",
                (unsigned long long)metrics->pause_us, (unsigned long long)metrics->resume_us);
    text_printf(text, ",\"logger\":{\"missed_metrics_count\":%llu,\"missed_log_count\":%llu}",
                (unsigned long long)metrics->lines_failed, (unsigned long long)view->missed_log_lines);
    text_printf(text, ",\"vmm\":{\"cpu_seconds\":%.3f,\"resident_bytes\":%llu}}\n", cpu_seconds(),
                (unsigned long long)resident());
    for (size_t i = 0; i < METRICS_ROWS_MAX; i++) {
        metrics->rows[i].told_count = metrics->rows[i].count;
        metrics->rows[i].told_fails = metrics->rows[i].fails;
    }
    metrics->told_deprecated = metrics->deprecated;
}
