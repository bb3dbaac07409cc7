/*
 * PUT /vm/fork: running copies of the VM. Each is a process with a control socket of its own, on a socket
 * that listens already and came with the request; so did its standard input, output and error, and an empty
 * file for each disk that is written to. voltctl hands them in: the sandbox lets the VM make none.
 */
#include "ctl/api.h"

#include "base/log.h"

#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* Descriptors of a copy; then come those of its vsock device and its disks. */
enum { LISTENER, INPUT, OUTPUT, LOG, FIXED };

struct api_forking {
    struct http_request *request;
    char **ids;
    unsigned count, each; /* copies, and descriptors of each */
    unsigned others;      /* those that are not of disks */
    bool resume;          /* the VM ran: it goes on */
    bool run;             /* the copies run */
    uint64_t begin_us;
    pid_t *pids;
};

/* A copy that was made, until it ends. */
struct copy_watch {
    struct ctl *ctl;
    struct loop_op op;
    int fd; /* of the process */
    pid_t pid;
    char id[65];
};

/* ---- Copies that end ---- */

static void copy_ended(struct loop_op *op, int result, unsigned flags)
{
    struct copy_watch *watch = container_of(op, struct copy_watch, op);
    int status = 0;
    (void)flags;
    if (result == -ECANCELED)
        return;
    while (waitpid(watch->pid, &status, 0) < 0 && errno == EINTR)
        ;
    ctl_log(watch->ctl, false, "The copy %s (process %d) has ended with status %d.", watch->id,
            (int)watch->pid, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    cleanup_fd(&watch->fd);
    free(watch);
}

/* A process that cannot be watched stays a zombie until this one ends. */
static void watch_copy(struct ctl *ctl, pid_t pid, const char *id)
{
    struct copy_watch *watch = calloc(1, sizeof(*watch));
    int fd = watch ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    if (fd < 0) {
        free(watch);
        return;
    }
    *watch = (struct copy_watch){.ctl = ctl, .op.done = copy_ended, .fd = fd, .pid = pid};
    memcpy(watch->id, id, strlen(id) + 1);
    loop_poll(ctl->loop, &watch->op, fd, POLLIN);
}

/* ---- Making them ---- */

static void free_forking(struct api_forking *forking)
{
    for (unsigned i = 0; forking->ids && i < forking->count; i++)
        free(forking->ids[i]);
    free(forking->ids);
    free(forking->pids);
    free(forking);
}

/* In the copy number `index`. */
static _Noreturn void begin_copy(struct ctl *ctl, struct machine_copy *copy, struct api_forking *forking,
                                 unsigned index, uint64_t forked_us)
{
    const int *fds = forking->request->descriptors + (size_t)index * forking->each;
    const char *id = forking->ids[index];
    machine_copy_begin(ctl->machine, copy, fds, forking->others, fds + forking->others);
    if (forking->others > FIXED)
        copy->vsock.fd = fds[FIXED];
    if (dup2(fds[INPUT], STDIN_FILENO) < 0 || dup2(fds[OUTPUT], STDOUT_FILENO) < 0 ||
        dup2(fds[LOG], STDERR_FILENO) < 0)
        _exit(MACHINE_HOST_FAILED);
    for (unsigned i = INPUT; i < FIXED; i++)
        if (fds[i] > STDERR_FILENO)
            close(fds[i]);
    log_set_name(id);
    const struct ctl_copy made = {.machine = copy,
                                  .id = id,
                                  .sandbox = &ctl->base->sandbox,
                                  .listen_fd = fds[LISTENER],
                                  .run = forking->run,
                                  .forked_us = forked_us};
    ctl->config.copied(&ctl->config, &made);
    _exit(MACHINE_HOST_FAILED);
}

static int make_copies(struct ctl *ctl, struct api_forking *forking)
{
    struct machine_copy *copy = NULL;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < forking->count; i++)
        r = machine_copy_disks(ctl->machine,
                               forking->request->descriptors + (size_t)i * forking->each + forking->others);
    if (r == 0)
        r = machine_copy_new(ctl->machine, &copy);
    if (r < 0)
        return r;
    for (unsigned i = 0; r == 0 && i < forking->count; i++) {
        uint64_t now_us = api_now_us();
        forking->pids[i] = fork();
        if (forking->pids[i] == 0)
            begin_copy(ctl, copy, forking, i, now_us);
        if (forking->pids[i] < 0)
            r = fail_errno(-errno, "copy %u of %u: fork", i + 1, forking->count);
    }
    machine_copy_free(copy);
    return r;
}

static void answer(struct ctl *ctl, const struct api_forking *forking, int result)
{
    struct api_call call = {.ctl = ctl, .request = forking->request};
    text_puts(&call.body, "{\"copies\":[");
    for (unsigned i = 0; i < forking->count && forking->pids[i] > 0; i++) {
        watch_copy(ctl, forking->pids[i], forking->ids[i]);
        text_printf(&call.body, "%s{\"id\":\"%s\",\"pid\":%d}", i ? "," : "", forking->ids[i],
                    (int)forking->pids[i]);
    }
    text_puts(&call.body, "]}");
    if (result == 0)
        api_answer_success(&call);
    else
        api_answer_late_fault(ctl, forking->request, "Fork error: %s", fail_text());
    text_free(&call.body);
}

static void fork_now(struct ctl *ctl)
{
    struct api_forking *forking = ptr_steal(&ctl->forking);
    uint64_t paused_us = api_now_us();
    int r = make_copies(ctl, forking);
    if (forking->resume && !ctl->pausing)
        machine_resume(ctl->machine);
    ctl_log(ctl, r < 0, "The VM was copied %u times in %llu us, after a pause that took %llu us.",
            forking->count, (unsigned long long)(api_now_us() - paused_us),
            (unsigned long long)(paused_us - forking->begin_us));
    answer(ctl, forking, r);
    free_forking(forking);
}

bool api_fork_paused(struct ctl *ctl)
{
    if (!ctl->forking)
        return false;
    fork_now(ctl);
    return true;
}

void api_fork_ended(struct ctl *ctl)
{
    if (!ctl->forking)
        return;
    struct api_forking *forking = ptr_steal(&ctl->forking);
    (void)fail(-ESHUTDOWN, "The microVM is ending.");
    answer(ctl, forking, -ESHUTDOWN);
    free_forking(forking);
}

/* ---- The request ---- */

static int check_request(struct api_call *call, const struct keys_fork *wanted, unsigned each)
{
    uint64_t count = wanted->count.value;
    struct ctl *ctl = call->ctl;
    int r = machine_may_copy(ctl->machine);
    if (r < 0)
        return api_fault(call, r, "Fork error: %s", fail_text());
    if (machine_state(ctl->machine) == MACHINE_PAUSING || api_is_busy(ctl))
        return api_fault(call, -EBUSY, "Fork error: the VM is being paused, saved or forked: try again.");
    if (count == 0)
        return api_fault(call, -EINVAL, "Fork error: count is 0.");
    if (call->request->descriptor_count != count * each)
        return api_fault(call, -EINVAL,
                         "Fork error: %u descriptors came with the request, and a copy needs %u: a listening "
                         "socket, its input, output and log, another socket for a vsock device, and an empty "
                         "file for each disk that is written to (voltctl fork hands them in).",
                         call->request->descriptor_count, each);
    if (wanted->ids.count != count)
        return api_fault(call, -EINVAL, "Fork error: %zu ids for %llu copies.", wanted->ids.count,
                         (unsigned long long)count);
    for (size_t i = 0; i < wanted->ids.count; i++)
        if (ctl_check_id(((char **)wanted->ids.items)[i]) < 0)
            return api_fault(call, -EINVAL, "Fork error: %s", fail_text());
    return 0;
}

int api_put_fork(struct api_call *call, void *object)
{
    struct keys_fork *wanted = object;
    struct ctl *ctl = call->ctl;
    unsigned others = FIXED + (ctl->built.vsock.path != NULL);
    unsigned each = others + machine_written_disks(ctl->machine);
    int r = check_request(call, wanted, each);
    if (r < 0)
        return r;
    bool running = machine_state(ctl->machine) == MACHINE_RUNNING;
    struct api_forking *forking = calloc(1, sizeof(*forking));
    if (!forking)
        return api_fault(call, -ENOMEM, "out of memory");
    *forking = (struct api_forking){.request = call->request,
                                    .ids = wanted->ids.items,
                                    .count = (unsigned)wanted->count.value,
                                    .each = each,
                                    .others = others,
                                    .resume = running,
                                    .run = wanted->resume_vm.value,
                                    .begin_us = api_now_us()};
    wanted->ids = (struct json_list){0};
    forking->pids = calloc(MAX(forking->count, 1u), sizeof(*forking->pids));
    if (!forking->pids) {
        free_forking(forking);
        return api_fault(call, -ENOMEM, "out of memory");
    }
    ctl->forking = forking;
    call->later = true;
    if (running)
        machine_pause(ctl->machine);
    else
        fork_now(ctl);
    return 0;
}
