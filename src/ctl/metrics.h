/*
 * What is counted: requests by row of the API's table, and what the machine and the loop say of themselves.
 * Given as Prometheus text (GET /metrics) and as Firecracker's JSON lines (PUT /metrics), in which a counter
 * is what came since the last line.
 */
#pragma once

#include "ctl/text.h"
#include "machine.h"

#define METRICS_ROWS_MAX    64u
#define METRICS_SIGNALS_MAX 32u
#define METRICS_FACTS_MAX   1024u

struct metrics_row {
    const char *method, *path, *name; /* NULL method: no such row */
    uint64_t count, fails, us;
};

struct metrics {
    struct metrics_row rows[METRICS_ROWS_MAX];
    uint64_t deprecated;
    uint64_t pause_us, resume_us, save_full_us, save_diff_us, load_us; /* of the last */
    uint64_t lines_failed;
    uint64_t signals[METRICS_SIGNALS_MAX];
    uint64_t startup_us, startup_cpu_us; /* from the launcher's clock to the first request; 0: not told */
    uint64_t *told;                      /* by fact, in the last JSON line; NULL: there was none */
    int fd;                              /* of the JSON lines; -1: none */
};

/* A request of row `index` has been answered after `us` microseconds. */
void metrics_count(struct metrics *metrics, size_t index, bool failed, uint64_t us);

/* A signal has come. */
void metrics_signal(struct metrics *metrics, int number);

/* CPU time of the process so far. */
uint64_t metrics_cpu_us(void);

/* Opens what the kernel says of this process's memory, while it can be. */
void metrics_open(void);

/* What else the two forms tell. */
struct metrics_view {
    const char *id;
    const struct machine *machine;
    const struct loop *loop;
    unsigned connections, listeners;
    uint64_t evicted, events, missed_log_lines, limited_log_lines;
    uint64_t memory; /* the guest's, in bytes */
    unsigned cpus, drives;
    const char *const *drive_ids; /* `drives` of them */
    bool emit_id;                 /* JSON lines name the VM */
    const char *properties;       /* a JSON object to add to them; NULL: none */
};

void metrics_prometheus(const struct metrics *metrics, const struct metrics_view *view, struct text *text);

/* Adds one JSON line and takes its counters as told. */
void metrics_json(struct metrics *metrics, const struct metrics_view *view, struct text *text);
