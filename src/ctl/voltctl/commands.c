/* The commands, but `start`. */
#include "ctl/keys.h"
#include "ctl/voltctl/agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- One request ---- */

/* Sends it, prints a 200's body, and fails with the words of what is no success. */
static int request(const struct invocation *invocation, const char *method, const char *path,
                   const char *body)
{
    CLEANUP_TEXT struct text answer = {0};
    const struct client_request wanted = {.method = method, .path = path, .body = body};
    int r = vm_ask(invocation, &wanted, &answer, NULL);
    if (r < 0)
        return r;
    if (answer.length > 0)
        printf("%s%s", answer.at, answer.at[answer.length - 1] == '\n' ? "" : "\n");
    return 0;
}

int do_pause(const struct invocation *invocation)
{
    return request(invocation, "PATCH", "/vm", "{\"state\":\"Paused\"}");
}

int do_resume(const struct invocation *invocation)
{
    return request(invocation, "PATCH", "/vm", "{\"state\":\"Resumed\"}");
}

int do_reset(const struct invocation *invocation)
{
    return request(invocation, "PUT", "/vm/reset", "{}");
}

int do_balloon(const struct invocation *invocation)
{
    uint64_t bytes = 0;
    char body[64];
    if (!invocation->word)
        return request(invocation, "GET", "/balloon", NULL);
    int r = size_parse(invocation->word, &bytes);
    if (r < 0)
        return r;
    if (bytes % MIB || bytes / MIB > UINT32_MAX)
        return fail(-EINVAL, "balloon %s: give whole MiB, as in 256M", invocation->word);
    snprintf(body, sizeof(body), "{\"amount_mib\":%llu}", (unsigned long long)(bytes / MIB));
    return request(invocation, "PATCH", "/balloon", body);
}

/* The VM has a folder of its own: the file's whole path is sent. */
int do_drive(const struct invocation *invocation)
{
    CLEANUP_TEXT struct text path = {0}, body = {0};
    const char *file = invocation->word ? strchr(invocation->word, '=') : NULL;
    if (!file || file == invocation->word || !file[1])
        return fail(-EINVAL, "drive %s: give ID=FILE (voltctl config has the IDs)", invocation->name);
    size_t length = (size_t)(file++ - invocation->word);
    CLEANUP_FREE char *whole = realpath(file, NULL);
    if (whole)
        file = whole;
    text_printf(&path, "/drives/%.*s", (int)length, invocation->word);
    text_puts(&body, "{\"drive_id\":");
    text_json_string(&body, invocation->word, length);
    text_puts(&body, ",\"path_on_host\":");
    text_json_string(&body, file, strlen(file));
    text_puts(&body, "}");
    if (!path.at || !body.at)
        return fail(-ENOMEM, "no memory for the request");
    return request(invocation, "PATCH", path.at, body.at);
}

int do_config(const struct invocation *invocation)
{
    return request(invocation, "GET", "/vm/config", NULL);
}

int do_sandbox(const struct invocation *invocation)
{
    return request(invocation, "GET", "/sandbox", NULL);
}

int do_metrics(const struct invocation *invocation)
{
    return request(invocation, "GET", "/metrics", NULL);
}

int do_events(const struct invocation *invocation)
{
    struct client client;
    int r = vm_connect(invocation, &client);
    if (r < 0)
        return r;
    r = client_follow(&client, "/events");
    client_close(&client);
    return r;
}

/* ---- stop ---- */

/* Until the process is no more, for `seconds`. */
static int wait_for_end(int process, unsigned seconds)
{
    struct pollfd ended = {.fd = process, .events = POLLIN};
    int r;
    do
        r = poll(&ended, 1, (int)MIN(seconds, 1000000u) * 1000);
    while (r < 0 && errno == EINTR);
    return r > 0 ? 0 : -ETIMEDOUT;
}

/* Sends the signal through `process`: it is the VM's or nobody's, whoever has its number by now. */
static int end_by_signal(const struct invocation *invocation, int process)
{
    if (syscall(SYS_pidfd_send_signal, process, SIGTERM, NULL, 0) < 0)
        return fail_errno(-errno, "%s", invocation->name);
    if (wait_for_end(process, 10) < 0)
        return fail(-ETIMEDOUT, "%s: does not end (see its process)", invocation->name);
    return 0;
}

int do_stop(const struct invocation *invocation)
{
    struct client client;
    CLEANUP_TEXT struct text answer = {0};
    char body[64];
    int r = vm_connect(invocation, &client);
    if (r < 0)
        return r;
    CLEANUP_FD int process = (int)syscall(SYS_pidfd_open, client.pid, 0);
    if (process < 0) {
        client_close(&client);
        return fail_errno(-errno, "%s: its process", invocation->name);
    }
    snprintf(body, sizeof(body), "{\"timeout_ms\":%u}", MIN(invocation->timeout_seconds, 1000000u) * 1000);
    r = invocation->force ? 0 : client_request(&client, "PUT", "/vm/shutdown", body, &answer);
    client_close(&client);
    if (r < 0)
        return r;
    /* A VM that was not started, or is paused, has nothing to shut down. */
    if (invocation->force || r >= 300)
        return end_by_signal(invocation, process);
    return wait_for_end(process, invocation->timeout_seconds + 10) < 0
               ? fail(-ETIMEDOUT, "%s: did not end in time (try --force)", invocation->name)
               : 0;
}

int do_shutdown(const struct invocation *invocation)
{
    struct client client;
    int r = vm_connect(invocation, &client);
    if (r < 0)
        return r;
    CLEANUP_FD int process = (int)syscall(SYS_pidfd_open, client.pid, 0);
    client_close(&client);
    if (process < 0)
        return fail_errno(-errno, "%s: its process", invocation->name);
    if (invocation->force || agent_power_off(invocation) < 0)
        return do_stop(invocation);
    return wait_for_end(process, invocation->timeout_seconds) < 0 ? end_by_signal(invocation, process) : 0;
}

/* ---- list ---- */

struct instance {
    char *id, *state;
};

static const struct json_field instance_fields[] = {
    {.name = "id", .kind = JSON_STRING, .presence = JSON_REQUIRED, .offset = offsetof(struct instance, id)},
    {.name = "state",
     .kind = JSON_STRING,
     .presence = JSON_REQUIRED,
     .offset = offsetof(struct instance, state)},
};
static const struct json_struct instance_struct = {.name = "instance",
                                                   .fields = instance_fields,
                                                   .count = ARRAY_SIZE(instance_fields),
                                                   .size = sizeof(struct instance),
                                                   .others = true};

struct seen {
    pid_t pid;
    struct instance instance;
    struct keys_config config;
};

/* Asks one VM what it is. */
static int look(const struct invocation *invocation, struct seen *seen)
{
    struct client client;
    struct json_error error = {0};
    CLEANUP_TEXT struct text answer = {0};
    int r = vm_connect(invocation, &client);
    if (r < 0)
        return r;
    seen->pid = client.pid;
    r = client_request(&client, "GET", "/", NULL, &answer);
    if (r == 200)
        r = json_read(answer.at, answer.length, &instance_struct, &seen->instance, &error);
    if (r >= 0)
        r = client_request(&client, "GET", "/vm/config", NULL, &answer);
    if (r == 200)
        r = json_read(answer.at, answer.length, &keys_config_struct, &seen->config, &error);
    if (r < 0)
        json_free(&instance_struct, &seen->instance);
    text_free(&error.message);
    client_close(&client);
    return r < 0 ? r : 0;
}

static void print_row(const struct invocation *invocation, bool first, const char *name,
                      const struct seen *seen)
{
    const struct keys_machine *machine = seen ? seen->config.machine_config : NULL;
    const char *state = seen && seen->instance.state ? seen->instance.state : "Gone";
    unsigned long long cpus = machine ? machine->vcpu_count.value : 0,
                       mib = machine ? machine->mem_size_mib.value : 0;
    size_t drives = seen ? seen->config.drives.count : 0;
    int pid = seen ? seen->pid : 0;
    if (!invocation->json) {
        if (seen)
            printf("%-20s %-12s %8d %5llu %9llu %7zu\n", name, state, pid, cpus, mib, drives);
        else
            printf("%-20s %-12s %8s %5s %9s %7s\n", name, state, "-", "-", "-", "-");
        return;
    }
    CLEANUP_TEXT struct text text = {0};
    text_puts(&text, first ? "{\"name\":" : ",\n{\"name\":");
    text_json_string(&text, name, strlen(name));
    text_puts(&text, ",\"state\":");
    text_json_string(&text, state, strlen(state));
    text_printf(&text, ",\"pid\":%d,\"cpus\":%llu,\"memory_mib\":%llu,\"drives\":%zu}", pid, cpus, mib,
                drives);
    fputs(text.at ? text.at : "", stdout);
}

static int is_socket_name(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 5 && strcmp(entry->d_name + length - 5, ".sock") == 0;
}

int do_list(const struct invocation *invocation)
{
    struct dirent **entries = NULL;
    int count = scandir(invocation->directory, &entries, is_socket_name, alphasort);
    if (count < 0 && errno != ENOENT)
        return fail_errno(-errno, "%s", invocation->directory);
    if (invocation->json)
        printf("[");
    else
        printf("%-20s %-12s %8s %5s %9s %7s\n", "NAME", "STATE", "PID", "CPUS", "MEM(MiB)", "DRIVES");
    for (int i = 0; i < count; i++) {
        char name[NAME_MAX + 1];
        struct seen seen = {0};
        struct invocation one = *invocation;
        snprintf(name, sizeof(name), "%.*s", (int)strlen(entries[i]->d_name) - 5, entries[i]->d_name);
        one.name = name;
        int r = look(&one, &seen);
        print_row(invocation, i == 0, name, r == 0 ? &seen : NULL);
        json_free(&instance_struct, &seen.instance);
        json_free(&keys_config_struct, &seen.config);
        free(entries[i]);
    }
    free(entries);
    if (invocation->json)
        printf("]\n");
    return 0;
}

/* ---- logs, rm ---- */

int do_logs(const struct invocation *invocation)
{
    char path[PATH_MAX], buffer[16384];
    int r = vm_file(invocation, invocation->console ? ".console" : ".log", path);
    if (r < 0)
        return r;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s (only VMs of `voltctl start` have one)", path);
    ssize_t length;
    while ((length = read(fd, buffer, sizeof(buffer))) > 0)
        fwrite(buffer, 1, (size_t)length, stdout);
    return length < 0 ? fail_errno(-errno, "%s", path) : 0;
}

int do_rm(const struct invocation *invocation)
{
    static const char *const suffixes[] = {".sock", ".log", ".console"};
    struct client client;
    int r = vm_connect(invocation, &client);
    if (r == 0) {
        client_close(&client);
        return fail(-EBUSY, "%s: runs (stop it first)", invocation->name);
    }
    if (r != -ECONNREFUSED && r != -ENOENT)
        return r;
    bool any = false;
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        char path[PATH_MAX];
        r = vm_file(invocation, suffixes[i], path);
        if (r < 0)
            return r;
        if (unlink(path) == 0)
            any = true;
        else if (errno != ENOENT)
            return fail_errno(-errno, "%s", path);
    }
    return any ? 0
               : fail(-ENOENT, "%s: there is nothing of that name in %s", invocation->name,
                      invocation->directory);
}
