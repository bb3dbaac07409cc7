#include "base/log.h"

#include <poll.h>
#include <stdio.h>
#include <time.h>

/* True if the site may speak; *ret_held_back is how many of its lines were swallowed in windows before this
 * one. */
static bool may_speak(struct log_site *site, uint32_t *ret_held_back)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t window = now.tv_sec / LOG_WINDOW_SECONDS;
    *ret_held_back = 0;
    if (atomic_exchange(&site->window, window) != window) {
        atomic_store(&site->lines, 0);
        *ret_held_back = atomic_exchange(&site->held_back, 0);
    }
    if (atomic_fetch_add(&site->lines, 1) < LOG_WINDOW_LINES)
        return true;
    atomic_fetch_add(&site->held_back, 1);
    return false;
}

void log_site_warn(struct log_site *site, const char *format, ...)
{
    uint32_t held_back;
    if (!may_speak(site, &held_back))
        return;

    char message[512], line[640];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    int length = held_back
                     ? snprintf(line, sizeof(line), "volt-vmm: %s (and %u more lines like this before)\n",
                                message, held_back)
                     : snprintf(line, sizeof(line), "volt-vmm: %s\n", message);

    /* The loop calls this: a full pipe on standard error must not stop every device of the machine. */
    struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&writable, 1, 0) == 1 && (writable.revents & POLLOUT))
        (void)!write(STDERR_FILENO, line, (size_t)length);
}
