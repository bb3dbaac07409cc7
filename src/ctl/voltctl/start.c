/* `voltctl start`: a volt-vmm of its own for the VM, that stays when voltctl ends; or the start of one that
 * waits. */
#include "ctl/voltctl/voltctl.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* volt-vmm beside this program, or wherever PATH has it. */
static void find_vmm(char path[PATH_MAX])
{
    static const char name[] = "volt-vmm";
    char self[PATH_MAX - sizeof(name)];
    ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[MAX(length, 0)] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) {
        *slash = '\0';
        snprintf(path, PATH_MAX, "%s/%s", self, name);
        if (access(path, X_OK) == 0)
            return;
    }
    snprintf(path, PATH_MAX, "%s", name);
}

/* In the child: nothing of the terminal is kept but the words of a failed start. */
static _Noreturn void become_vmm(const char *vmm, char **arguments, int console, int log)
{
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    setsid();
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(console, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        _exit(127);
    execvp(vmm, arguments);
    dprintf(STDERR_FILENO, "%s: %s\n", vmm, strerror(errno));
    _exit(127);
}

/* The log's last line, without its end. */
static void last_line(int log, char *line, size_t size)
{
    ssize_t length = pread(log, line, size - 1, MAX(lseek(log, 0, SEEK_END) - (off_t)size + 1, 0));
    line[MAX(length, 0)] = '\0';
    for (size_t i = strlen(line); i > 0 && (line[i - 1] == '\n' || line[i - 1] == '\r'); i--)
        line[i - 1] = '\0';
    const char *last = strrchr(line, '\n');
    if (last)
        memmove(line, last + 1, strlen(last + 1) + 1);
}

/* Until its socket answers, or it has ended. */
static int wait_for_start(const struct invocation *invocation, pid_t pid, int log)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    for (;;) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid) {
            char line[512];
            last_line(log, line, sizeof(line));
            return fail(-ECHILD, "%s: did not start: %s", invocation->name,
                        line[0] ? line : "it says nothing");
        }
        if (vm_answers(invocation, pid))
            return 0;
        nanosleep(&pause, NULL);
    }
}

static int spawn(const struct invocation *invocation)
{
    char vmm[PATH_MAX], socket[PATH_MAX];
    size_t count = 0;
    CLEANUP_FD int console = -1, log = -1;
    while (invocation->rest[count])
        count++;
    CLEANUP_FREE char **arguments = calloc(count + 10, sizeof(*arguments));
    if (!arguments)
        return fail(-ENOMEM, "no memory");
    int r = vm_file(invocation, ".sock", socket);
    if (r == 0)
        r = vm_open_file(invocation, ".console", &console);
    if (r == 0)
        r = vm_open_file(invocation, ".log", &log);
    if (r < 0)
        return r;
    find_vmm(vmm);
    static char api_sock[] = "--api-sock", id[] = "--id", restore[] = "--restore", store[] = "--cas-store";
    char *const always[] = {vmm, api_sock, socket, id, (char *)invocation->name};
    char **next = mempcpy(arguments, always, sizeof(always));
    if (invocation->word) {
        *next++ = restore;
        *next++ = (char *)invocation->word;
    }
    if (invocation->store) {
        *next++ = store;
        *next++ = (char *)invocation->store;
    }
    memcpy(next, invocation->rest, count * sizeof(*arguments));
    pid_t pid = fork();
    if (pid < 0)
        return fail_errno(-errno, "fork");
    if (pid == 0)
        become_vmm(vmm, arguments, console, log);
    return wait_for_start(invocation, pid, log);
}

static int start_new(const struct invocation *invocation)
{
    if (mkdir(invocation->directory, 0700) < 0 && errno != EEXIST)
        return fail_errno(-errno, "%s", invocation->directory);
    return spawn(invocation);
}

int do_restore(const struct invocation *invocation)
{
    struct client client;
    if (!invocation->word)
        return fail(-EINVAL, "restore: name the folder of a snapshot");
    int r = vm_connect(invocation, &client);
    if (r == -ENOENT || r == -ECONNREFUSED)
        return strchr(invocation->name, '/') ? r : start_new(invocation);
    if (r < 0)
        return r;
    client_close(&client);
    return fail(-EEXIST, "%s: is there already", invocation->name);
}

int do_start(const struct invocation *invocation)
{
    struct client client;
    CLEANUP_TEXT struct text answer = {0};
    int r = vm_connect(invocation, &client);
    if (r == -ENOENT || r == -ECONNREFUSED) {
        return strchr(invocation->name, '/') ? r : start_new(invocation);
    }
    if (r < 0)
        return r;
    if (invocation->rest[0])
        r = fail(-EEXIST, "%s: is there already", invocation->name);
    else
        r = client_request(&client, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}", &answer);
    client_close(&client);
    return r >= 300 ? fail(-EPROTO, "%s: %s", invocation->name, client_fault(&answer)) : MIN(r, 0);
}
