#include "net/passt.h"

#include "net/stream.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

/* --- one that runs --- */

static int connect_to(const char *path, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CLEANUP_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail_errno(-errno, "passt=%s", path);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno == ENOENT || errno == ECONNREFUSED)
            return fail(-errno,
                        "passt=%s: nobody listens there (start it: passt --socket %s; or say passt=auto)",
                        path, path);
        return fail_errno(-errno, "passt=%s", path);
    }
    *ret_fd = fd_steal(&fd);
    return 0;
}

/* --- one of our own --- */

/* Its socket is descriptor 3. Without --foreground it goes into the background when it is ready. */
#define PASST_FD      3
#define ARGUMENTS_MAX (20 + 2 * NET_FORWARDS_MAX)

static void list_arguments(const struct net_config *config, char mtu[12], char prefix[12],
                           const char **arguments)
{
    unsigned count = 0;
    snprintf(prefix, 12, "%u", config->guest.prefix);
    snprintf(mtu, 12, "%u", config->mtu ? config->mtu : NET_PASST_MTU);
    const char *const always[] = {"passt", "--quiet", "--stderr", "--fd", "3", "--mtu", mtu};
    for (unsigned i = 0; i < ARRAY_SIZE(always); i++)
        arguments[count++] = always[i];
    if (!config->map_gw) /* or else the guest reaches what listens on 127.0.0.1 */
        arguments[count++] = "--no-map-gw";
    for (unsigned i = 0; i < config->forward_count; i++) {
        arguments[count++] = config->forwards[i].udp ? "--udp-ports" : "--tcp-ports";
        arguments[count++] = config->forwards[i].ports;
    }
    const struct net_guest *guest = &config->guest;
    const struct {
        const char *option, *value;
    } told[] = {{"--address", guest->prefix ? guest->address : ""},
                {"--netmask", guest->prefix && !strchr(guest->address, ':') ? prefix : ""},
                {"--gateway", guest->gateway},
                {"--dns", guest->dns}};
    for (unsigned i = 0; i < ARRAY_SIZE(told); i++)
        if (told[i].value[0]) {
            arguments[count++] = told[i].option;
            arguments[count++] = told[i].value;
        }
    arguments[count] = NULL;
}

/* With its end of the socket and our standard error, no signal blocked, and nothing else of ours. */
static int spawn(int socket, const char *const *arguments, pid_t *ret_pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    if (posix_spawn_file_actions_init(&files) != 0 || posix_spawnattr_init(&attributes) != 0)
        return -ENOMEM;
    int r = posix_spawn_file_actions_adddup2(&files, socket, PASST_FD);
    if (r == 0)
        r = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (r == 0)
        r = posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(&files, PASST_FD + 1);
    if (r == 0)
        r = posix_spawnattr_setsigmask(&attributes, &none);
    if (r == 0)
        r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (r == 0)
        r = posix_spawnp(ret_pid, arguments[0], &files, &attributes, (char *const *)arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return -r;
}

static int start(const struct net_config *config, int *ret_fd)
{
    const char *arguments[ARGUMENTS_MAX];
    char mtu[12], prefix[12];
    int ends[2], status = 0;
    pid_t pid = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return fail_errno(-errno, "passt=auto");
    CLEANUP_FD int ours = ends[0];
    CLEANUP_FD int its = ends[1];
    list_arguments(config, mtu, prefix, arguments);
    int r = spawn(its, arguments, &pid);
    if (r == -ENOENT)
        return fail(r, "passt=auto: this machine has no passt (apt-get install passt)");
    if (r < 0)
        return fail_errno(r, "passt=auto: starting passt");
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return fail_errno(-errno, "passt=auto: waiting for passt");
    if (status != 0)
        return fail(-EIO, "passt=auto: passt did not start (%s %d; its reason is above)",
                    WIFEXITED(status) ? "status" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    *ret_fd = fd_steal(&ours);
    return 0;
}

int passt_open(const struct net_config *config, struct net_backend **ret_backend)
{
    CLEANUP_FD int fd = -1;
    int r = config->socket[0] ? connect_to(config->socket, &fd) : start(config, &fd);
    if (r == 0)
        r = stream_adopt(fd, ret_backend);
    if (r == 0)
        (void)fd_steal(&fd);
    return r;
}
