/*
 * Saving a machine into files. The loop only collects the machine's state, which is a few KiB a vCPU, and
 * makes a child by fork(2). The child has the guest's memory as it is at that moment, copy-on-write, and
 * writes it while the machine goes on.
 *
 *   loop    temporary files ── state ── fork ──► machine may resume          ──► answer: saved()
 *   child                                └─► memory, state, fsync, rename ──► pipe ─┘
 *
 * The files get their names when both are whole and on the disk. A child that dies leaves temporary ones,
 * which the loop removes. If the loop's process ends first, the child finishes on its own.
 */
#include "machine_internal.h"

#include "sec/sandbox.h"
#include "snapshot.h"
#include "snapshot_config.h"
#include "snapshot_store.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define WRITE_MAX (1 * MIB) /* bytes of one write(2) */

struct target {
    char path[PATH_MAX];
    char temporary[PATH_MAX]; /* the file's name so far; empty: naming it is not ours */
    int fd;
};

/* What the child says at its end. */
struct answer {
    int result;
    char message[252];
};

struct machine_saving {
    struct machine *machine;
    struct target state, memory;
    struct snapshot_header header;
    struct state_writer sections;
    int pipe_fd;
    pid_t child;
    struct loop_op op;
    struct answer answer;
    machine_saved *saved;
    void *context;
};

/* ---- The child ---- */

/* The parent's console, disks and locks must not live longer than the parent does. */
static void close_others(int state, int memory, int answer)
{
    int kept[] = {state, memory, answer};
    fd_close_others(kept, ARRAY_SIZE(kept));
}

static bool is_zero(const uint8_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, GUEST_PAGE - 1) == 0;
}

/* The next run of pages that are not zeros; false if there is none. */
static bool next_run(const uint8_t *memory, uint64_t size, uint64_t *at, uint64_t *ret_length)
{
    while (*at < size && is_zero(memory + *at))
        *at += GUEST_PAGE;
    uint64_t end = *at;
    while (end < size && end - *at < WRITE_MAX && !is_zero(memory + end))
        end += GUEST_PAGE;
    *ret_length = end - *at;
    return end > *at;
}

static int write_memory(const struct machine_saving *saving)
{
    const struct target *target = &saving->memory;
    const struct guest_mem *mem = &saving->machine->mem;
    union {
        struct snapshot_trailer trailer;
        uint8_t page[GUEST_PAGE];
    } last = {.trailer = {.memory = mem->size}};
    memcpy(last.trailer.magic, SNAPSHOT_MEMORY_MAGIC, sizeof(last.trailer.magic));
    memcpy(last.trailer.id, saving->header.id, sizeof(last.trailer.id));
    uint64_t length;
    int r = 0;
    for (uint64_t at = 0; r == 0 && next_run(mem->regions[0].host, mem->size, &at, &length); at += length)
        r = write_full_at(target->fd, mem->regions[0].host + at, length, at);
    if (r == 0)
        r = write_full_at(target->fd, &last, sizeof(last), mem->size);
    return r < 0 ? fail_errno(r, "%s", target->path) : 0;
}

static int write_state(const struct machine_saving *saving)
{
    const struct target *target = &saving->state;
    int r = write_full_at(target->fd, &saving->header, sizeof(saving->header), 0);
    if (r == 0)
        r = write_full_at(target->fd, saving->sections.bytes, saving->sections.length,
                          sizeof(saving->header));
    return r < 0 ? fail_errno(r, "%s", target->path) : 0;
}

/* The folder of `path`, which the caller closes; -errno. */
static int open_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Makes a new name last. */
static int sync_folder(const struct target *target)
{
    CLEANUP_FD int fd = open_folder(target->path);
    return fd < 0 || fsync(fd) < 0 ? fail_errno(-errno, "the folder of %s", target->path) : 0;
}

/* One that was handed in is made to last by who did, if it is to. */
static int sync_file(const struct target *target)
{
    return target->temporary[0] && fsync(target->fd) < 0 ? fail_errno(-errno, "%s", target->path) : 0;
}

/* From here on the target has its name. */
static int publish(struct target *target)
{
    if (!target->temporary[0])
        return 0;
    if (renameat(AT_FDCWD, target->temporary, AT_FDCWD, target->path) < 0)
        return fail_errno(-errno, "%s", target->path);
    target->temporary[0] = '\0';
    return sync_folder(target);
}

static int write_all(struct machine_saving *saving)
{
    int r = write_memory(saving);
    if (r == 0)
        r = write_state(saving);
    if (r == 0)
        r = sync_file(&saving->memory);
    if (r == 0)
        r = sync_file(&saving->state);
    if (r == 0)
        r = publish(&saving->memory);
    return r == 0 ? publish(&saving->state) : r;
}

static void remove_temporary(struct target *target)
{
    if (target->temporary[0])
        unlinkat(AT_FDCWD, target->temporary, 0);
    target->temporary[0] = '\0';
}

static _Noreturn void child(struct machine_saving *saving, int answer_fd)
{
    struct answer answer = {0};
    close_others(saving->state.fd, saving->memory.fd, answer_fd);
    answer.result = write_all(saving);
    if (answer.result < 0) {
        snprintf(answer.message, sizeof(answer.message), "%s", fail_text());
        remove_temporary(&saving->memory);
        remove_temporary(&saving->state);
    }
    (void)write_full(answer_fd, &answer, sizeof(answer));
    _exit(0);
}

/* ---- The loop ---- */

static void free_saving(struct machine_saving *saving)
{
    saving->machine->saving = NULL;
    remove_temporary(&saving->state);
    remove_temporary(&saving->memory);
    cleanup_fd(&saving->state.fd);
    cleanup_fd(&saving->memory.fd);
    cleanup_fd(&saving->pipe_fd);
    state_writer_free(&saving->sections);
    free(saving);
}

/* One in the store: the next snapshot says that it comes after this one, and shares what has not changed. */
static void remember(struct machine *machine, const char *state_path)
{
    const char *slash = strrchr(state_path, '/');
    if (!snapshot_is_stored(state_path))
        return;
    free(machine->saved_as);
    machine->saved_as = slash ? strndup(state_path, (size_t)(slash - state_path)) : NULL;
}

static void answered(struct loop_op *op, int result, unsigned flags)
{
    struct machine_saving *saving = container_of(op, struct machine_saving, op);
    (void)flags;
    while (waitpid(saving->child, NULL, 0) < 0 && errno == EINTR)
        ;
    int r = saving->answer.result;
    if (result != (int)sizeof(saving->answer))
        r = fail(
            -ECHILD, "%s: the process that was to write it has died%s", saving->memory.path,
            saving->machine->mem.pages == GUEST_PAGES_HUGETLB
                ? " (a machine with --hugepages must not run meanwhile, unless the pool has as many again)"
                : "");
    else if (r < 0)
        r = fail(r, "%.*s", (int)sizeof(saving->answer.message) - 1, saving->answer.message);
    if (r == 0) {
        saving->state.temporary[0] = saving->memory.temporary[0] = '\0';
        remember(saving->machine, saving->state.path);
    }
    machine_saved *saved = saving->saved;
    void *context = saving->context;
    free_saving(saving);
    saved(context, r);
}

int machine_check_empty(const char *name, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", name);
    if (!S_ISREG(status.st_mode) || status.st_size != 0)
        return fail(-EINVAL, "%s: what was handed in for it is no empty file", name);
    return 0;
}

static int take_file(const struct machine_snapshot_file *file, struct target *target)
{
    int r = machine_check_empty(file->path, file->fd);
    if (r < 0)
        return r;
    snprintf(target->path, sizeof(target->path), "%s", file->path);
    target->fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
    return target->fd < 0 ? fail_errno(-errno, "%s", file->path) : 0;
}

static int make_file(const char *path, struct target *target)
{
    uint32_t random;
    if (!sandbox_may_make_files())
        return fail(-EACCES,
                    "%s: this VM's sandbox lets it make no file: start it with --allow-path and the folder "
                    "(voltctl snapshot needs none)",
                    path);
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return fail_errno(-errno, "random bytes");
    if (snprintf(target->path, sizeof(target->path), "%s", path) >= PATH_MAX ||
        snprintf(target->temporary, sizeof(target->temporary), "%s.new-%08x", path, random) >= PATH_MAX) {
        target->temporary[0] = '\0';
        return fail(-ENAMETOOLONG, "%s: too long", path);
    }
    target->fd = open(target->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (target->fd >= 0)
        return 0;
    int error = -errno;
    target->temporary[0] = '\0';
    if (error == -EACCES)
        return fail(
            error,
            "%s: may not be written (if it is the sandbox that refuses: start the VM with --allow-path "
            "and the folder)",
            path);
    return fail_errno(error, "%s", path);
}

static int open_target(const struct machine_snapshot_file *file, struct target *target)
{
    return file->fd < 0 ? make_file(file->path, target) : take_file(file, target);
}

int machine_collect(const struct machine *machine, struct state_writer *to)
{
    size_t begin = state_begin(to, "CONF", 1);
    int r = machine_save_config(machine, to);
    state_end(to, begin);
    begin = state_begin(to, "MACH", 1);
    if (r == 0)
        r = machine_save(machine, to);
    state_end(to, begin);
    return r == 0 ? to->error : r;
}

/* The state of the machine as it stands, with a new id. */
static int collect(struct machine_saving *saving)
{
    struct machine *machine = saving->machine;
    struct state_writer *to = &saving->sections;
    int r = machine_collect(machine, to);
    if (r < 0)
        return r;
    saving->header.memory = machine->mem.size;
    if (getrandom(saving->header.id, sizeof(saving->header.id), 0) != sizeof(saving->header.id))
        return fail_errno(-errno, "random bytes");
    snapshot_seal(&saving->header, to->bytes, to->length);
    return 0;
}

static int start_child(struct machine_saving *saving)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(-errno, "a pipe");
    saving->pipe_fd = ends[0];
    CLEANUP_FD int write_end = ends[1];
    saving->child = fork();
    if (saving->child < 0)
        return fail_errno(-errno, "a process that writes the snapshot (fork)");
    if (saving->child == 0)
        child(saving, write_end);
    return 0;
}

/*
 * Of the hugetlb pool there may be no page for a copy. The kernel then takes the page away from the child, so
 * that the parent can write, and the child dies of it (mm/hugetlb.c, unmap_ref_private).
 */
bool machine_snapshot_needs_pause(const struct machine *machine)
{
    return machine->mem.pages == GUEST_PAGES_HUGETLB;
}

/* What is written to a clone that is thrown away is in no file that a snapshot could go on with. */
static int check_drives(const struct config *config)
{
    for (unsigned i = 0; i < config->drive_count; i++)
        if (snapshot_is_stored(config->drives[i].path) && !config->drives[i].read_only)
            return fail(
                -ENOTSUP,
                "disk %u is a clone of %s that is thrown away at the end, and a snapshot has no disks: "
                "use a volume (stellarium clone), or %s,ro",
                i, config->drives[i].path, config->drives[i].path);
    return 0;
}

int machine_snapshot(struct machine *machine, const struct machine_snapshot_file *state,
                     const struct machine_snapshot_file *memory, machine_saved *saved, void *context)
{
    CHECK(machine->state == MACHINE_PAUSED);
    if (machine->saving)
        return fail(-EBUSY, "another snapshot of this machine is being written");
    if (!sandbox_may_fork())
        return fail(-EACCES, "%s: this VM's sandbox lets it make no copy of itself: it has no control socket",
                    state->path);
    struct machine_saving *saving = calloc(1, sizeof(*saving));
    if (!saving)
        return fail(-ENOMEM, "no memory for a snapshot");
    *saving = (struct machine_saving){.machine = machine,
                                      .state = {.fd = -1},
                                      .memory = {.fd = -1},
                                      .pipe_fd = -1,
                                      .op = {.done = answered},
                                      .saved = saved,
                                      .context = context};
    int r = check_drives(machine->config);
    if (r == 0)
        r = open_target(state, &saving->state);
    if (r == 0)
        r = open_target(memory, &saving->memory);
    if (r == 0)
        r = collect(saving);
    if (r == 0)
        r = start_child(saving);
    if (r < 0) {
        free_saving(saving);
        return r;
    }
    machine->saving = saving;
    cleanup_fd(&saving->state.fd);
    cleanup_fd(&saving->memory.fd);
    state_writer_free(&saving->sections);
    loop_read(machine->loop, &saving->op, saving->pipe_fd, &saving->answer, sizeof(saving->answer),
              (uint64_t)-1);
    return 0;
}
