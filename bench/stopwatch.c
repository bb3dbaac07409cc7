/*
 * stopwatch: times a program from its exec to a line of its output and to its end.
 *
 *     stopwatch MARKER COMMAND [ARGUMENT]...
 *
 * Prints one line on stderr: nanoseconds from exec to the chunk of output in which MARKER was complete,
 * nanoseconds from exec to the end of the process (it is gone, not merely silent), exit status, and the
 * CLOCK_MONOTONIC time of the exec. Exit status 1 if the marker never came. What the program writes goes
 * nowhere unless STOPWATCH_SHOW is set. With STOPWATCH_KILL the program is killed once the marker is there.
 */
#include "base/base.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

_Noreturn static void run(char **argv, int output, uint64_t *exec_time)
{
    dup2(output, STDOUT_FILENO);
    if (!getenv("STOPWATCH_SHOW"))
        dup2(output, STDERR_FILENO);
    *exec_time = now();
    execvp(argv[0], argv);
    fprintf(stderr, "stopwatch: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* Reads to the end of the output; returns when the marker came, or 0. */
static uint64_t watch(int input, const char *marker, pid_t child)
{
    static char
        seen[1 << 20]; /* all output, so that a marker may span reads; what is beyond is not looked at */
    size_t length = 0;
    uint64_t marked = 0;
    for (;;) {
        char spill[4096];
        bool full = length + 1 == sizeof(seen);
        ssize_t n =
            full ? read(input, spill, sizeof(spill)) : read(input, seen + length, sizeof(seen) - 1 - length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return marked;
        uint64_t time = now();
        if (full)
            continue;
        if (getenv("STOPWATCH_SHOW"))
            (void)write_full(STDOUT_FILENO, seen + length, (size_t)n);
        length += (size_t)n;
        if (marked || !memmem(seen, length, marker, strlen(marker)))
            continue;
        marked = time;
        if (getenv("STOPWATCH_KILL"))
            kill(child, SIGKILL);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: stopwatch MARKER COMMAND [ARGUMENT]...\n");
        return 2;
    }
    int ends[2];
    uint64_t *exec_time =
        mmap(NULL, sizeof(*exec_time), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(exec_time != MAP_FAILED && pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ends[0]);
        run(argv + 2, ends[1], exec_time);
    }
    close(ends[1]);
    uint64_t marked = watch(ends[0], argv[1], child);
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    uint64_t end = now();
    fprintf(stderr, "%lld %llu %d %llu\n", marked ? (long long)(marked - *exec_time) : -1ll,
            (unsigned long long)(end - *exec_time),
            WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), (unsigned long long)*exec_time);
    return marked ? 0 : 1;
}
