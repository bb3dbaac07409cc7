#include "ctl/logger.h"

#include "ctl/text.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define LIMIT_SECONDS 5u
#define LIMIT_LINES   10u

static const char *const level_names[] = {"OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"};

void logger_init(struct logger *logger, const char *id)
{
    *logger = (struct logger){.fd = -1, .id = id, .level = LOGGER_INFO};
}

void logger_free(struct logger *logger)
{
    if (logger->fd > STDERR_FILENO)
        close(logger->fd);
    free(logger->module);
    logger_init(logger, logger->id);
}

int logger_open(struct logger *logger, const char *path)
{
    /* For reading too: so a FIFO can be opened before it has a reader. */
    int fd = open(path, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | O_APPEND, 0666);
    if (fd < 0)
        return -errno;
    if (logger->fd > STDERR_FILENO)
        close(logger->fd);
    logger->fd = fd;
    return 0;
}

bool logger_level_of(const char *name, enum logger_level *ret_level)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
        if (strcasecmp(name, level_names[i]) == 0) {
            *ret_level = (enum logger_level)i;
            return true;
        }
    if (strcasecmp(name, "warning") != 0)
        return false;
    *ret_level = LOGGER_WARN;
    return true;
}

bool logger_may_say(struct logger *logger, struct logger_site *site)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t window = (uint64_t)now.tv_sec / LIMIT_SECONDS + 1;
    if (site->window != window)
        *site = (struct logger_site){.window = window};
    if (site->lines++ < LIMIT_LINES)
        return true;
    logger->limited++;
    return false;
}

static void add_time(struct text *text)
{
    struct timespec now = {0};
    struct tm local = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    text_printf(text, "%d-%02d-%02dT%02d:%02d:%02d.%09ld", local.tm_year + 1900, local.tm_mon + 1,
                local.tm_mday, local.tm_hour, local.tm_min, local.tm_sec, now.tv_nsec);
}

static bool write_line(struct logger *logger, const struct text *text)
{
    struct pollfd writable = {.fd = logger->fd, .events = POLLOUT};
    if (text->failed || poll(&writable, 1, 0) != 1 || !(writable.revents & POLLOUT))
        return false;
    return write(logger->fd, text->at, text->length) == (ssize_t)text->length;
}

void logger_line(struct logger *logger, enum logger_level level, const char *module, const char *file,
                 int line, const char *format, ...)
{
    if (logger->fd < 0 || level > logger->level)
        return;
    if (logger->module && strncmp(module, logger->module, strlen(logger->module)) != 0)
        return;
    CLEANUP_TEXT struct text text = {0};
    add_time(&text);
    text_printf(&text, " [%s:%s", logger->id, module);
    if (logger->show_level)
        text_printf(&text, ":%s", level_names[level]);
    if (logger->show_origin)
        text_printf(&text, ":%s:%d", file, line);
    text_puts(&text, "] ");
    char *message = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&message, format, arguments);
    va_end(arguments);
    if (length >= 0) {
        for (char *at = message; *at; at++)
            if (*at == '\n' || *at == '\r') /* one line an event */
                *at = ' ';
        text_add(&text, message, (size_t)length);
        free(message);
    }
    text_puts(&text, "\n");
    if (!write_line(logger, &text))
        logger->missed++;
}
