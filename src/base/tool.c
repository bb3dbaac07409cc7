#include "base/tool.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* mke2fs and depmod live where the PATH of a user who is not root does not look. */
static int system_path(void)
{
    static const char more[] = ":/usr/sbin:/sbin";
    const char *path = getenv("PATH");
    CLEANUP_FREE char *longer = NULL;
    if (path && strstr(path, more))
        return 0;
    if (asprintf(&longer, "%s%s", path && *path ? path : "/usr/bin:/bin", more) < 0 ||
        setenv("PATH", longer, 1) < 0)
        return fail(-ENOMEM, "no memory for PATH");
    return 0;
}

static int read_all(int fd, char **ret_text)
{
    size_t length = 0, capacity = 0;
    CLEANUP_FREE char *text = NULL;
    for (;;) {
        if (length + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *bigger = realloc(text, capacity);
            if (!bigger)
                return fail(-ENOMEM, "no memory for a program's output");
            text = bigger;
        }
        ssize_t n = read(fd, text + length, capacity - length - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(-errno, "reading from a program");
        if (n == 0)
            break;
        length += (size_t)n;
    }
    text[length] = '\0';
    *ret_text = ptr_steal(&text);
    return 0;
}

/* `output`: what becomes the program's standard output, and its standard error as well if `errors`. */
static int start(const char *folder, const char *const *arguments, int output, bool errors, pid_t *ret_child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t signals;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    /* A program of ours may ignore this one; others do not expect that. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGXFSZ);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int r = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (r == 0 && errors)
        r = posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
    if (r == 0 && folder)
        r = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (r == 0)
        r = posix_spawnp(ret_child, arguments[0], &actions, &attributes, (char *const *)(uintptr_t)arguments,
                         environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return -r;
}

static int wait_for(const char *name, pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return fail_errno(-errno, "%s: lost", name);
        kill(child, SIGTERM); /* a signal that the caller handles is the end of the work */
    }
    if (WIFSIGNALED(status))
        return fail(-EIO, "%s: killed by signal %d", name, WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? 0 : fail(-EIO, "%s: exit status %d", name, WEXITSTATUS(status));
}

int run_tool_in(const char *folder, const char *const *arguments, const char *package, char **ret_output)
{
    int ends[2] = {-1, -1};
    pid_t child = -1;
    CLEANUP_FREE char *text = NULL;
    int r = system_path();
    if (r < 0)
        return r;
    if (ret_output && pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(-errno, "%s", arguments[0]);
    r = start(folder, arguments, ret_output ? ends[1] : STDERR_FILENO, ret_output != NULL, &child);
    cleanup_fd(&ends[1]);
    if (r < 0) {
        cleanup_fd(&ends[0]);
        return r == -ENOENT && package ? fail(r, "%s is needed for this and not installed (apt install %s)",
                                              arguments[0], package)
                                       : fail_errno(r, "%s cannot be started", arguments[0]);
    }
    int got = ret_output ? read_all(ends[0], &text) : 0;
    cleanup_fd(&ends[0]);
    r = wait_for(arguments[0], child);
    if (r < 0 && text)
        fputs(text, stderr);
    if (r == 0 && ret_output && got == 0)
        *ret_output = ptr_steal(&text);
    return r < 0 ? r : got;
}

int run_tool(const char *const *arguments, const char *package, char **ret_output)
{
    return run_tool_in(NULL, arguments, package, ret_output);
}
