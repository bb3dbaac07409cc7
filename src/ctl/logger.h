/*
 * The log that clients configure (PUT /logger, --log-path): one line an event, in Firecracker's form, to a
 * file, a FIFO or standard output. It never waits for a reader: a line that does not fit is counted and lost.
 *
 *   2026-11-26T07:00:00.123456789 [my-vm:api:INFO:api.c:12] The API server received a Put request on
 * "/drives/rootfs".
 */
#pragma once

#include "base/base.h"

enum logger_level { LOGGER_OFF, LOGGER_ERROR, LOGGER_WARN, LOGGER_INFO, LOGGER_DEBUG, LOGGER_TRACE };

struct logger {
    int fd;         /* -1: nothing is logged */
    const char *id; /* the VM's; the caller's */
    enum logger_level level;
    bool show_level, show_origin;
    char *module; /* only lines of modules that begin so; NULL: all */
    uint64_t missed, limited;
};

/* One place in the code that logs; made by logger_say_limited(). Ten lines in five seconds, as Firecracker
 * has it. */
struct logger_site {
    uint64_t window;
    unsigned lines;
};

/* Logs nothing yet; `id` is lent. */
void logger_init(struct logger *logger, const char *id);
void logger_free(struct logger *logger);

/* To the file or FIFO at `path` from now on, which is made if it is not there. -errno without a message. */
int logger_open(struct logger *logger, const char *path);

/* A level's name as clients give it ("Info", "warning"); false if it is none. */
bool logger_level_of(const char *name, enum logger_level *ret_level);

/* For what a client or a guest can cause at will: what is said too often is counted and not written. */
#define logger_say_limited(logger, level, module, ...)                                                       \
    do {                                                                                                     \
        static struct logger_site logger_site_;                                                              \
        if (logger_may_say((logger), &logger_site_))                                                         \
            logger_line((logger), (level), (module), __FILE__, __LINE__, __VA_ARGS__);                       \
    } while (0)

bool logger_may_say(struct logger *logger, struct logger_site *site);

#define logger_say(logger, level, module, ...)                                                               \
    logger_line((logger), (level), (module), __FILE__, __LINE__, __VA_ARGS__)

void logger_line(struct logger *logger, enum logger_level level, const char *module, const char *file,
                 int line, const char *format, ...) __attribute__((format(printf, 6, 7)));
