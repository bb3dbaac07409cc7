/*
 * `voltctl snapshot`: makes the files and hands them to the VM, whose sandbox lets it make none. When the VM
 * has written all of them they get their names, memory first: the state names the memory that it goes with.
 * Or they go into the store, which has no room for either as a file.
 */
#include "ctl/voltctl/voltctl.h"
#include "snapshot_store.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { STATE, MEMORY, FILES };
static const char *const names[FILES] = {[STATE] = SNAPSHOT_STATE, [MEMORY] = SNAPSHOT_MEMORY};

struct saving {
    const char *folder;
    int folder_fd;
    int fds[FILES];
    char temporary[FILES][NAME_MAX + 1]; /* empty: the file has no name */
    bool shown;                          /* there is a line of progress on the terminal */
};

static void temporary_name(unsigned file, char name[NAME_MAX + 1])
{
    snprintf(name, NAME_MAX + 1, ".%s.new-%d", names[file], (int)getpid());
}

/* A file without a name, so that nothing is left of one that is not finished; with one where the file system
 * knows no such files. */
static int make_file(struct saving *saving, unsigned file)
{
    int fd = openat(saving->folder_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        temporary_name(file, saving->temporary[file]);
        fd = openat(saving->folder_fd, saving->temporary[file], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    }
    if (fd < 0)
        return fail_errno(-errno, "%s/%s", saving->folder, names[file]);
    saving->fds[file] = fd;
    return 0;
}

/* The file takes the place of what has its name now. */
static int publish(struct saving *saving, unsigned file)
{
    char *temporary = saving->temporary[file], link[32];
    if (fsync(saving->fds[file]) < 0)
        return fail_errno(-errno, "%s/%s", saving->folder, names[file]);
    if (!temporary[0]) {
        char name[NAME_MAX + 1];
        temporary_name(file, name);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", saving->fds[file]);
        if (linkat(AT_FDCWD, link, saving->folder_fd, name, AT_SYMLINK_FOLLOW) < 0)
            return fail_errno(-errno, "%s/%s", saving->folder, names[file]);
        memcpy(temporary, name, sizeof(name));
    }
    if (renameat(saving->folder_fd, temporary, saving->folder_fd, names[file]) < 0 ||
        fsync(saving->folder_fd) < 0)
        return fail_errno(-errno, "%s/%s", saving->folder, names[file]);
    temporary[0] = '\0';
    return 0;
}

/* Once a second, while the VM writes. */
static void waiting(void *context)
{
    struct saving *saving = context;
    struct stat status;
    char size[SIZE_TEXT_MAX];
    if (!isatty(STDERR_FILENO) || fstat(saving->fds[MEMORY], &status) < 0)
        return;
    saving->shown = true;
    fprintf(stderr, "\r%s: %s written\033[K", saving->folder,
            size_text((uint64_t)status.st_blocks * 512, size));
}

/* "FOLDER/NAME", for messages of the VM's. */
static void add_path(struct text *body, const struct saving *saving, unsigned file)
{
    CLEANUP_TEXT struct text path = {0};
    text_printf(&path, "%s/%s", saving->folder, names[file]);
    text_json_string(body, path.at ? path.at : "", path.length);
}

static int ask(const struct invocation *invocation, struct saving *saving)
{
    CLEANUP_TEXT struct text body = {0}, answer = {0};
    text_puts(&body, "{\"snapshot_path\":");
    add_path(&body, saving, STATE);
    text_puts(&body, ",\"mem_file_path\":");
    add_path(&body, saving, MEMORY);
    text_puts(&body, "}");
    if (body.failed)
        return fail(-ENOMEM, "no memory");
    const struct client_request request = {.method = "PUT",
                                           .path = "/snapshot/create",
                                           .body = body.at,
                                           .fds = saving->fds,
                                           .fd_count = FILES,
                                           .waiting = waiting,
                                           .context = saving};
    int r = vm_ask(invocation, &request, &answer, NULL);
    if (saving->shown)
        fprintf(stderr, "\r\033[K");
    return r;
}

static int save(const struct invocation *invocation, struct saving *saving)
{
    int r = make_file(saving, STATE);
    if (r == 0)
        r = make_file(saving, MEMORY);
    return r == 0 ? ask(invocation, saving) : r;
}

static void clean_up(struct saving *saving)
{
    for (unsigned file = 0; file < FILES; file++) {
        if (saving->temporary[file][0])
            unlinkat(saving->folder_fd, saving->temporary[file], 0);
        cleanup_fd(&saving->fds[file]);
    }
    cleanup_fd(&saving->folder_fd);
}

static int save_to_folder(const struct invocation *invocation, struct saving *saving)
{
    bool made = mkdir(saving->folder, 0700) == 0;
    saving->folder_fd =
        made || errno == EEXIST ? open(saving->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (saving->folder_fd < 0)
        return fail_errno(-errno, "%s", saving->folder);
    int r = save(invocation, saving);
    if (r == 0)
        r = publish(saving, MEMORY);
    if (r == 0)
        r = publish(saving, STATE);
    clean_up(saving);
    if (r < 0 && made)
        rmdir(saving->folder);
    return r;
}

static void storing(void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
    const struct saving *saving = opaque;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%s: %3llu %% stored\033[K", saving->folder,
                (unsigned long long)(total_bytes ? done_bytes * 100 / total_bytes : 100));
}

/* The files are the store's, where there is room for what is to come, and never have a name. */
static int save_to_store(const struct invocation *invocation, struct saving *saving)
{
    struct store *store = NULL;
    uint64_t stored = 0;
    char size[SIZE_TEXT_MAX];
    const char *path = invocation->store ? invocation->store : getenv("STELLARIUM_STORE");
    const char *name = strchr(saving->folder, ':') + 1;
    if (!path)
        return fail(-EINVAL, "%s: in which store? (--cas-store DIR, or $STELLARIUM_STORE)", saving->folder);
    int r = ref_check_name(name);
    if (r == 0)
        r = store_open(path, &store);
    if (r < 0)
        return r;
    saving->folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    r = saving->folder_fd < 0 ? fail_errno(-errno, "%s", path) : save(invocation, saving);
    if (r == 0)
        r = snapshot_store(store, name, saving->fds[STATE], saving->fds[MEMORY], storing, saving, &stored);
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K");
    if (r == 0)
        printf("%s: %s stored\n", saving->folder, size_text(stored, size));
    clean_up(saving);
    store_close(store);
    return r;
}

int do_snapshot(const struct invocation *invocation)
{
    struct saving saving = {.folder = invocation->word, .folder_fd = -1, .fds = {-1, -1}};
    if (!saving.folder)
        return fail(-EINVAL, "snapshot: name a folder for it, or cas:NAME");
    return snapshot_is_stored(saving.folder) ? save_to_store(invocation, &saving)
                                             : save_to_folder(invocation, &saving);
}
