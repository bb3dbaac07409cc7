/* What people are told while a VM runs: lines on standard error, at a bounded rate, never waiting for the
 * reader. */
#pragma once

#include "base/base.h"
#include <stdatomic.h>

/* One place in the code that logs; made by log_warn(). */
struct log_site {
    _Atomic int64_t window; /* which LOG_WINDOW_SECONDS of the monotonic clock `lines` counts in */
    _Atomic uint32_t lines, held_back;
};

/* A guest decides how often some of these lines are reached: so many in so many seconds, the rest is
 * counted. */
#define LOG_WINDOW_SECONDS 5
#define LOG_WINDOW_LINES   10u

/* Says "volt-vmm: " and the message as one line. Any thread. A reader that does not drain loses lines. */
#define log_warn(...)                                                                                        \
    do {                                                                                                     \
        static struct log_site log_site_;                                                                    \
        log_site_warn(&log_site_, __VA_ARGS__);                                                              \
    } while (0)

void log_site_warn(struct log_site *site, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));
