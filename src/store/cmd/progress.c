#include "store/cmd/cmd.h"

#include <stdio.h>
#include <time.h>

#define REDRAW 100000000 /* ns: ten times a second is as often as one can read */

int64_t now_nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double seconds_since(int64_t nanoseconds)
{
    return (double)(now_nanoseconds() - nanoseconds) / 1e9;
}

void progress_begin(struct progress *progress, const char *what, uint64_t total)
{
    *progress = (struct progress){
        .what = what, .total = total, .started = now_nanoseconds(), .terminal = isatty(STDERR_FILENO)};
}

void progress_update(void *opaque, uint64_t done, uint64_t total)
{
    struct progress *progress = opaque;
    int64_t now = now_nanoseconds();
    if (!progress->terminal || now - progress->drawn < REDRAW)
        return;
    progress->drawn = now;
    char have[SIZE_TEXT_MAX], all[SIZE_TEXT_MAX], speed[SIZE_TEXT_MAX], bar[31];
    double seconds = MAX(seconds_since(progress->started), 0.001);
    double share = total ? (double)done / (double)total : 0;
    for (unsigned i = 0; i < sizeof(bar) - 1; i++)
        bar[i] = (double)i < share * (sizeof(bar) - 1) ? '#' : '.';
    bar[sizeof(bar) - 1] = '\0';
    double left = share > 0 ? seconds / share - seconds : 0;
    fprintf(stderr, "\r%s [%s] %s of %s, %s/s, %d:%02d left \033[K", progress->what, bar,
            size_text(done, have), size_text(total, all),
            size_text((uint64_t)((double)done / seconds), speed), (int)(left / 60), (int)left % 60);
}

void progress_bytes(void *opaque, uint64_t done)
{
    struct progress *progress = opaque;
    progress_update(progress, done, progress->total);
}

void progress_end(struct progress *progress)
{
    if (progress->terminal && progress->drawn)
        fprintf(stderr, "\r\033[K");
}

int print_json(json_t *value)
{
    if (!value)
        return fail(-ENOMEM, "no memory to print JSON");
    int r = json_dumpf(value, stdout, JSON_INDENT(2));
    json_decref(value);
    return r < 0 || putchar('\n') == EOF || fflush(stdout) == EOF
               ? fail(-EIO, "standard output cannot be written")
               : 0;
}
