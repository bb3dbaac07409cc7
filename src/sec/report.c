/* What the kernel says of each thread: /proc/self/task/N/status, below a directory that was opened at the
 * start. */
#include "sec/internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int tasks = -1;

void tasks_open(void)
{
    if (tasks < 0)
        tasks = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void tasks_forget(void)
{
    tasks = -1;
}

int tasks_fd(void)
{
    return tasks;
}

static uint64_t number_after(const char *text, const char *key, int base)
{
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, base) : 0;
}

static void read_status(const char *text, struct sandbox_thread_report *report)
{
    report->seccomp = (unsigned)number_after(text, "\nSeccomp:", 10);
    report->filters = (unsigned)number_after(text, "\nSeccomp_filters:", 10);
    report->no_new_privs = number_after(text, "\nNoNewPrivs:", 10);
    report->inheritable = number_after(text, "\nCapInh:", 16);
    report->permitted = number_after(text, "\nCapPrm:", 16);
    report->effective = number_after(text, "\nCapEff:", 16);
    report->bounding = number_after(text, "\nCapBnd:", 16);
    report->ambient = number_after(text, "\nCapAmb:", 16);
    (void)sscanf(text, "Name:\t%15[^\n]", report->name);
}

/* False if the thread has ended meanwhile. */
static bool read_thread(const char *number, struct sandbox_thread_report *report)
{
    char path[32], text[4096];
    snprintf(path, sizeof(path), "%.15s/status", number);
    CLEANUP_FD int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (length <= 0)
        return false;
    text[length] = '\0';
    *report = (struct sandbox_thread_report){.thread = (pid_t)strtol(number, NULL, 10)};
    read_status(text, report);
    return true;
}

int sandbox_each_thread(void (*told)(void *context, const struct sandbox_thread_report *report),
                        void *context)
{
    if (tasks < 0)
        return -ENOENT;
    int fd = openat(tasks, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory) {
        int error = -errno;
        cleanup_fd(&fd);
        return error;
    }
    const struct dirent *entry;
    struct sandbox_thread_report report;
    while ((entry = readdir(directory)))
        if (entry->d_name[0] != '.' && read_thread(entry->d_name, &report))
            told(context, &report);
    closedir(directory);
    return 0;
}
