#include "base/log.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define SAY_WAIT_MS 100   /* a live reader has read by then */
#define PIECE       4096u /* a pipe that is writable takes as much at once (PIPE_BUF) */
#define MESSAGE_MAX 512u

static char prefix[80] = "volt-vmm";
static int log_fd = STDERR_FILENO;
static bool log_is_socket;
static pthread_once_t opened = PTHREAD_ONCE_INIT;

/* A description of our own is non-blocking without changing the one that others share. */
static void open_log(void)
{
    struct stat status;
    if (log_fd != STDERR_FILENO)
        close(log_fd);
    log_is_socket = fstat(STDERR_FILENO, &status) == 0 && S_ISSOCK(status.st_mode);
    log_fd = fd_own_description(STDERR_FILENO, O_WRONLY);
}

void log_set_name(const char *name)
{
    pthread_once(&opened, open_log);
    open_log();
    snprintf(prefix, sizeof(prefix), name ? "volt-vmm %s" : "volt-vmm", name);
}

static int milliseconds(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int)((uint64_t)now.tv_sec * 1000 % (1u << 30)) + (int)(now.tv_nsec / 1000000);
}

static ssize_t put_some(const char *text, size_t length)
{
    return log_is_socket ? send(log_fd, text, length, MSG_DONTWAIT | MSG_NOSIGNAL)
                         : write(log_fd, text, length);
}

/* As much of the text as goes out within `wait` milliseconds. */
static void put(const char *text, int wait)
{
    pthread_once(&opened, open_log);
    size_t length = strlen(text);
    int start = milliseconds();
    while (length > 0) {
        struct pollfd writable = {.fd = log_fd, .events = POLLOUT};
        int left = wait - (milliseconds() - start);
        int ready = poll(&writable, 1, MAX(MIN(left, wait), 0));
        ssize_t n = ready == 1 && (writable.revents & POLLOUT) ? put_some(text, MIN(length, PIECE)) : 0;
        if (n > 0) {
            text += n;
            length -= (size_t)n;
        } else if (left <= 0 || (writable.revents & POLLERR)) {
            return;
        }
    }
}

void say_text(const char *text)
{
    put(text, 0);
}

void say(const char *format, ...)
{
    char message[MESSAGE_MAX], line[MESSAGE_MAX + sizeof(prefix) + 8];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    snprintf(line, sizeof(line), "%s: %s\n", prefix, message);
    put(line, SAY_WAIT_MS);
}

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

    char message[MESSAGE_MAX], line[MESSAGE_MAX + sizeof(prefix) + 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (held_back)
        snprintf(line, sizeof(line), "%s: %s (and %u more lines like this before)\n", prefix, message,
                 held_back);
    else
        snprintf(line, sizeof(line), "%s: %s\n", prefix, message);
    put(line, 0);
}
