/* Where a VM's files are, and the way to its socket. */
#include "ctl/ctl.h"
#include "ctl/voltctl/voltctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int vm_file(const struct invocation *invocation, const char *suffix, char ret_path[PATH_MAX])
{
    int length;
    if (strchr(invocation->name, '/') && strcmp(suffix, ".sock") == 0)
        length = snprintf(ret_path, PATH_MAX, "%s", invocation->name);
    else {
        int r = ctl_check_id(invocation->name);
        if (r < 0)
            return fail(r, "'%s' is no name of a VM: 1 to 64 letters, digits and hyphens", invocation->name);
        length = snprintf(ret_path, PATH_MAX, "%s/%s%s", invocation->directory, invocation->name, suffix);
    }
    return length < PATH_MAX ? 0 : fail(-ENAMETOOLONG, "%s: too long", invocation->name);
}

int vm_open_file(const struct invocation *invocation, const char *suffix, int *ret_fd)
{
    char path[PATH_MAX];
    int r = vm_file(invocation, suffix, path);
    if (r < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fail_errno(-errno, "%s", path);
    *ret_fd = fd;
    return 0;
}

int vm_connect(const struct invocation *invocation, struct client *ret_client)
{
    char path[PATH_MAX];
    int r = vm_file(invocation, ".sock", path);
    if (r == 0)
        r = client_connect(path, ret_client);
    if (r == -ENOENT)
        return fail(r, "%s: no VM of that name (%s is not there)", invocation->name, path);
    if (r == -ECONNREFUSED)
        return fail(r, "%s: has ended (voltctl rm takes away what it left)", invocation->name);
    return r;
}

int vm_ask(const struct invocation *invocation, const struct client_request *request, struct text *answer,
           pid_t *ret_pid)
{
    struct client client;
    int r = vm_connect(invocation, &client);
    if (r < 0)
        return r;
    r = client_ask(&client, request, answer);
    client_close(&client);
    if (r < 0)
        return r;
    if (r >= 300)
        return fail(-EPROTO, "%s: %s", invocation->name, client_fault(answer));
    if (ret_pid)
        *ret_pid = client.pid;
    return 0;
}

bool vm_answers(const struct invocation *invocation, pid_t pid)
{
    struct client client;
    CLEANUP_TEXT struct text answer = {0};
    if (vm_connect(invocation, &client) < 0)
        return false;
    bool is_it = client.pid == pid && client_request(&client, "GET", "/", NULL, &answer) == 200;
    client_close(&client);
    return is_it;
}

int vm_config(const struct invocation *invocation, struct keys_config *ret_config, pid_t *ret_pid)
{
    struct keys_config config = {0};
    struct json_error error = {0};
    CLEANUP_TEXT struct text answer = {0};
    const struct client_request request = {.method = "GET", .path = "/vm/config"};
    int r = vm_ask(invocation, &request, &answer, ret_pid);
    if (r < 0)
        return r;
    r = json_read(answer.at, answer.length, &keys_config_struct, &config, &error);
    text_free(&error.message);
    if (r < 0)
        return fail(-EPROTO, "%s: its configuration is not to be understood", invocation->name);
    *ret_config = config;
    return 0;
}
