/*
 * `voltctl fork`: running copies of a VM. What a copy needs of the host is made here and handed to the VM,
 * whose sandbox lets it make none: a listening socket, the files of its console and its log, and an unnamed
 * file for each disk that the VM writes to.
 */
#include "base/unix_listener.h"
#include "ctl/ctl.h"
#include "ctl/keys.h"
#include "ctl/voltctl/voltctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define COPIES_MAX 1024u

enum { SOCKET, INPUT, CONSOLE, LOG, FIXED };

struct copy {
    char name[NAME_MAX_BYTES + 1];
    struct unix_listener socket, vsock;
    pid_t pid;
};

struct forking {
    const struct invocation *invocation;
    struct copy *copies;
    unsigned count, written_disks;
    bool has_vsock;
    int fds[CLIENT_DESCRIPTORS_MAX]; /* of one request */
    unsigned fd_count;
};

static struct invocation of_copy(const struct forking *forking, const struct copy *copy)
{
    struct invocation invocation = *forking->invocation;
    invocation.name = copy->name;
    return invocation;
}

/* ---- Names ---- */

static bool exists(const struct forking *forking, const struct copy *copy)
{
    struct invocation invocation = of_copy(forking, copy);
    char path[PATH_MAX];
    struct stat status;
    return vm_file(&invocation, ".sock", path) == 0 && lstat(path, &status) == 0;
}

static int name_given(struct forking *forking)
{
    char **names = forking->invocation->rest;
    for (unsigned i = 0; i < forking->count; i++) {
        struct copy *copy = &forking->copies[i];
        if (ctl_check_id(names[i]) < 0)
            return fail(-EINVAL, "'%s' is no name of a VM: 1 to 64 letters, digits and hyphens", names[i]);
        snprintf(copy->name, sizeof(copy->name), "%s", names[i]);
    }
    return 0;
}

/* NAME-1 and on, as far as there is no VM of that name. */
static int make_names(struct forking *forking)
{
    const char *slash = strrchr(forking->invocation->name, '/');
    const char *base = slash ? slash + 1 : forking->invocation->name;
    int length = (int)strcspn(base, ".");
    for (unsigned i = 0, number = 1; i < forking->count; number++) {
        struct copy *copy = &forking->copies[i];
        if (snprintf(copy->name, sizeof(copy->name), "%.*s-%u", length, base, number) > NAME_MAX_BYTES)
            return fail(-ENAMETOOLONG, "%.*s: too long for a number behind it: name the copies", length,
                        base);
        i += !exists(forking, copy);
    }
    return 0;
}

/* ---- What a copy needs ---- */

static int add_fd(struct forking *forking, int fd)
{
    forking->fds[forking->fd_count++] = fd;
    return 0;
}

static int open_scratch(struct forking *forking)
{
    const char *folder = getenv("TMPDIR");
    folder = folder && *folder ? folder : "/var/tmp";
    int fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    return fd < 0 ? fail_errno(-errno,
                               "%s: a file for what a copy writes to its disk (TMPDIR names another folder)",
                               folder)
                  : add_fd(forking, fd);
}

static int listen_at(struct forking *forking, const struct invocation *invocation, const char *suffix,
                     struct unix_listener *listener)
{
    char path[PATH_MAX];
    int r = vm_file(invocation, suffix, path);
    if (r == 0)
        r = unix_listener_open(path, true, listener);
    return r < 0 ? r : add_fd(forking, listener->fd);
}

static int open_files(struct forking *forking, struct copy *copy)
{
    struct invocation invocation = of_copy(forking, copy);
    int r = listen_at(forking, &invocation, ".sock", &copy->socket);
    if (r < 0)
        return r;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "/dev/null");
    add_fd(forking, fd);
    r = vm_open_file(&invocation, ".console", &fd);
    if (r == 0)
        r = add_fd(forking, fd);
    if (r == 0)
        r = vm_open_file(&invocation, ".log", &fd);
    if (r == 0)
        r = add_fd(forking, fd);
    if (r == 0 && forking->has_vsock)
        r = listen_at(forking, &invocation, ".vsock", &copy->vsock);
    for (unsigned i = 0; r == 0 && i < forking->written_disks; i++)
        r = open_scratch(forking);
    return r;
}

static void close_fds(struct forking *forking)
{
    while (forking->fd_count)
        cleanup_fd(&forking->fds[--forking->fd_count]);
}

/* ---- Asking ---- */

/* How many disks the VM writes to, and whether it has a vsock device. */
static int look_at_devices(const struct invocation *invocation, struct forking *forking)
{
    struct keys_config config;
    pid_t pid;
    int r = vm_config(invocation, &config, &pid);
    if (r < 0)
        return r;
    forking->has_vsock = config.vsock;
    for (size_t i = 0; i < config.drives.count; i++)
        forking->written_disks += !((struct keys_drive *)config.drives.items)[i].is_read_only.value;
    json_free(&keys_config_struct, &config);
    return 0;
}

struct answered_copy {
    char *id;
    struct json_number pid;
};
struct answered {
    struct json_list copies;
};
static const struct json_field copy_fields[] = {
    {.name = "id",
     .kind = JSON_STRING,
     .presence = JSON_REQUIRED,
     .offset = offsetof(struct answered_copy, id)},
    {.name = "pid",
     .kind = JSON_U32,
     .presence = JSON_REQUIRED,
     .offset = offsetof(struct answered_copy, pid)},
};
static const struct json_struct copy_struct = {.name = "copy",
                                               .fields = copy_fields,
                                               .count = ARRAY_SIZE(copy_fields),
                                               .size = sizeof(struct answered_copy),
                                               .others = true};
static const struct json_field answer_fields[] = {{.name = "copies",
                                                   .kind = JSON_STRUCTS,
                                                   .presence = JSON_REQUIRED,
                                                   .offset = offsetof(struct answered, copies),
                                                   .of = &copy_struct}};
static const struct json_struct answer_struct = {.name = "answer",
                                                 .fields = answer_fields,
                                                 .count = ARRAY_SIZE(answer_fields),
                                                 .size = sizeof(struct answered),
                                                 .others = true};

static int take_pids(const struct text *text, struct copy *copies, unsigned count)
{
    struct answered answered;
    struct json_error error = {0};
    int r = json_read(text->at, text->length, &answer_struct, &answered, &error);
    text_free(&error.message);
    if (r < 0)
        return fail(-EPROTO, "the control socket's answer is not to be understood");
    for (unsigned i = 0; i < count && i < answered.copies.count; i++)
        copies[i].pid = (pid_t)((struct answered_copy *)answered.copies.items)[i].pid.value;
    json_free(&answer_struct, &answered);
    return 0;
}

static int ask(struct forking *forking, struct copy *copies, unsigned count)
{
    const struct invocation *invocation = forking->invocation;
    CLEANUP_TEXT struct text body = {0}, answer = {0};
    text_printf(&body, "{\"count\":%u,\"resume_vm\":%s,\"ids\":[", count,
                invocation->paused ? "false" : "true");
    for (unsigned i = 0; i < count; i++)
        text_printf(&body, "%s\"%s\"", i ? "," : "", copies[i].name);
    text_puts(&body, "]}");
    if (body.failed)
        return fail(-ENOMEM, "no memory");
    const struct client_request request = {.method = "PUT",
                                           .path = "/vm/fork",
                                           .body = body.at,
                                           .fds = forking->fds,
                                           .fd_count = forking->fd_count};
    int r = vm_ask(invocation, &request, &answer, NULL);
    return r < 0 ? r : take_pids(&answer, copies, count);
}

/* As many as there is room for in one request. */
static int make_some(struct forking *forking, struct copy *copies, unsigned count)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < count; i++)
        r = open_files(forking, &copies[i]);
    if (r == 0)
        r = ask(forking, copies, count);
    for (unsigned i = 0; i < count; i++) {
        if (r < 0) {
            unix_listener_remove(&copies[i].socket);
            unix_listener_remove(&copies[i].vsock);
        }
        free(copies[i].socket.path);
        free(copies[i].vsock.path);
    }
    close_fds(forking);
    return r;
}

/* ---- Waiting ---- */

/* Until its socket answers. Who listens on it is the copy as soon as it has begun. */
static int wait_for(const struct forking *forking, const struct copy *copy)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct invocation invocation = of_copy(forking, copy);
    while (!vm_answers(&invocation, copy->pid)) {
        char path[32];
        struct stat status;
        snprintf(path, sizeof(path), "/proc/%d", (int)copy->pid);
        if (stat(path, &status) < 0)
            return fail(-ECHILD, "%s: has ended at once (voltctl logs %s)", copy->name, copy->name);
        nanosleep(&pause, NULL);
    }
    return 0;
}

static void show(const struct forking *forking)
{
    for (unsigned i = 0; i < forking->count; i++) {
        const struct copy *copy = &forking->copies[i];
        if (forking->invocation->json)
            printf("%s{\"id\":\"%s\",\"pid\":%d}%s", i ? "," : "[", copy->name, (int)copy->pid,
                   i + 1 == forking->count ? "]\n" : "");
        else
            printf("%s\n", copy->name);
    }
}

int do_fork(const struct invocation *invocation)
{
    struct forking forking = {.invocation = invocation, .count = invocation->count};
    while (invocation->rest[0] && invocation->rest[forking.count])
        forking.count++;
    if (forking.count == 0)
        forking.count = 1;
    if (invocation->rest[0] && invocation->count)
        return fail(-EINVAL, "fork: give --count, or the copies' names");
    if (forking.count > COPIES_MAX)
        return fail(-EINVAL, "fork: at most %u copies at a time", COPIES_MAX);
    int r = look_at_devices(invocation, &forking);
    if (r < 0)
        return r;
    unsigned at_once = CLIENT_DESCRIPTORS_MAX / (FIXED + forking.has_vsock + forking.written_disks);
    if (at_once == 0)
        return fail(-E2BIG, "fork: %s writes to %u disks, which are too many", invocation->name,
                    forking.written_disks);
    CLEANUP_FREE struct copy *copies = calloc(forking.count, sizeof(*copies));
    if (!copies)
        return fail(-ENOMEM, "no memory");
    for (unsigned i = 0; i < forking.count; i++)
        copies[i].socket.fd = copies[i].vsock.fd = -1;
    forking.copies = copies;
    r = invocation->rest[0] ? name_given(&forking) : make_names(&forking);
    for (unsigned i = 0; r == 0 && i < forking.count; i += at_once)
        r = make_some(&forking, &copies[i], MIN(at_once, forking.count - i));
    for (unsigned i = 0; r == 0 && i < forking.count; i++)
        r = wait_for(&forking, &copies[i]);
    if (r == 0)
        show(&forking);
    return r;
}
