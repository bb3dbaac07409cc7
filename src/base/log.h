/*
 * What people are told on standard error. A reader that does not drain loses lines: a full pipe, or a
 * terminal that was stopped, never stops the machine or its end.
 */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

/* Names the machine in each line from now on: "volt-vmm NAME: ". NULL: no name. Before there are threads,
 * or in a child of fork(2). Also looks where standard error goes now, which needs /proc. */
void log_set_name(const char *name);

/* Says "volt-vmm: " and the message as one line; for what is said once (an error of the start, why the
 * machine ended). Waits for a reader, a tenth of a second at most. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2), cold));

/* Says `text` as it is, without waiting. */
void say_text(const char *text);

/* One place in the code that logs; made by log_warn(). */
struct log_site {
    _Atomic int64_t window; /* which LOG_WINDOW_SECONDS of the monotonic clock `lines` counts in */
    _Atomic uint32_t lines, held_back;
};

/* A guest decides how often some of these lines are reached: so many in so many seconds, the rest is
 * counted. */
#define LOG_WINDOW_SECONDS 5
#define LOG_WINDOW_LINES   10u

/* Says "volt-vmm: " and the message as one line, without waiting. Any thread. */
#define log_warn(...)                                                                                        \
    do {                                                                                                     \
        static struct log_site log_site_;                                                                    \
        log_site_warn(&log_site_, __VA_ARGS__);                                                              \
    } while (0)

void log_site_warn(struct log_site *site, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
