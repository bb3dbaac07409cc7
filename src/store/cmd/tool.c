/* Other programs' help, and removing what they unpacked. */
#include "store/cmd/cmd.h"

#include <dirent.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int read_all(int fd, char **ret_text)
{
    size_t length = 0, capacity = 0;
    CLEANUP_FREE char *text = NULL;
    for (;;) {
        if (length + 1 >= capacity) {
            capacity = capacity ? 2 * capacity : 65536;
            char *bigger = realloc(text, capacity);
            if (!bigger)
                return fail(-ENOMEM, "no memory for a tool's output");
            text = bigger;
        }
        ssize_t n = read(fd, text + length, capacity - length - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(-errno, "reading from a tool");
        if (n == 0)
            break;
        length += (size_t)n;
    }
    text[length] = '\0';
    *ret_text = ptr_steal(&text);
    return 0;
}

int run_tool(const char *const *arguments, const char *package, char **output)
{
    int ends[2] = {-1, -1}, status;
    pid_t child;
    posix_spawn_file_actions_t actions;
    if (output && pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(-errno, "%s", arguments[0]);
    posix_spawn_file_actions_init(&actions);
    if (output)
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (output) /* e2fsprogs greet there; shown if it fails */
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    int r = -posix_spawnp(&child, arguments[0], &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    cleanup_fd(&ends[1]);
    if (r < 0) {
        cleanup_fd(&ends[0]);
        return r == -ENOENT ? fail(r, "%s is needed for this and not installed (apt install %s)",
                                   arguments[0], package)
                            : fail_errno(r, "%s cannot be started", arguments[0]);
    }
    r = output ? read_all(ends[0], output) : 0;
    cleanup_fd(&ends[0]);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return fail_errno(-errno, "%s", arguments[0]);
    if (r == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        if (output) {
            fputs(*output, stderr);
            free(ptr_steal(output));
        }
        return fail(-EIO, "%s failed; what it said is above", arguments[0]);
    }
    return r;
}

int remove_contents(int directory, const char *name)
{
    int again = directory < 0 ? -1 : dup(directory);
    DIR *stream = again < 0 ? NULL : fdopendir(again);
    if (!stream)
        return fail_errno(-errno, "%s cannot be removed", name);
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = remove_tree(directory, entry->d_name);
    closedir(stream);
    return r;
}

int remove_tree(int directory, const char *path)
{
    if (unlinkat(directory, path, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail_errno(-errno, "%s cannot be removed", path);
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int r = remove_contents(fd, path);
    if (r == 0 && unlinkat(directory, path, AT_REMOVEDIR) < 0)
        r = fail_errno(-errno, "%s cannot be removed", path);
    return r;
}
