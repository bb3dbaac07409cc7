#include "child.h"

#include "base/base.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* depmod lives where the PATH of a user who is not root does not look. */
static int system_path(void)
{
    const char *path = getenv("PATH");
    CLEANUP_FREE char *longer = NULL;
    if (asprintf(&longer, "%s:/usr/sbin:/sbin", path && *path ? path : "/usr/bin:/bin") < 0)
        return fail(-ENOMEM, "no memory for PATH");
    return path && strstr(path, ":/usr/sbin:/sbin") ? 0 : setenv("PATH", longer, 1) == 0 ? 0 : -ENOMEM;
}

static int start(const char *folder, char *const argv[], int output, pid_t *ret_child)
{
    posix_spawn_file_actions_t actions;
    int r = system_path();
    if (r < 0)
        return r;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return fail(-ENOMEM, "no memory to start %s", argv[0]);
    int error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    if (error == 0 && folder)
        error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (error == 0)
        error = posix_spawnp(ret_child, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return error == 0 ? 0 : fail_errno(-error, "%s: cannot be started", argv[0]);
}

static int end(char *const argv[], pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail_errno(-errno, "%s: lost", argv[0]);
    if (WIFSIGNALED(status))
        return fail(-EIO, "%s: killed by signal %d", argv[0], WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? 0 : fail(-EIO, "%s: exit status %d", argv[0], WEXITSTATUS(status));
}

int child_run(const char *folder, char *const argv[])
{
    pid_t child;
    int r = start(folder, argv, STDERR_FILENO, &child);
    return r < 0 ? r : end(argv, child);
}

int child_read(char *const argv[], char *text, size_t size)
{
    int ends[2];
    pid_t child;
    size_t have = 0;
    ssize_t got = 0;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail_errno(-errno, "no pipe");
    int r = start(NULL, argv, ends[1], &child);
    close(ends[1]);
    while (r == 0 && have < size) {
        got = read(ends[0], text + have, size - have);
        if (got > 0)
            have += (size_t)got;
        else if (got == 0 || errno != EINTR)
            break;
    }
    close(ends[0]);
    if (r == 0)
        r = end(argv, child);
    if (r == 0 && (have == size || got < 0))
        r = fail(-EIO, "%s: said more than expected", argv[0]);
    if (r == 0)
        text[have] = '\0';
    return r;
}
