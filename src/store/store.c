#include "store/private.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

static const char format_line[] = "stellarium 1 sha256 2097152\n";
static const char *const directories[] = {"objects", "manifests", "refs", "volumes",
                                          "leases",  "tmp",       "cache"};

static int any_entry(void *opaque, const char *name)
{
    (void)name;
    *(bool *)opaque = true;
    return 1;
}

/* Every shard is made now, so that publishing an object never has to make a directory durable. */
static int make_shards(int root, const char *kind)
{
    for (unsigned shard = 0; shard < 256; shard++) {
        char path[32];
        snprintf(path, sizeof(path), "%s/%02x", kind, shard);
        int r = sys_mkdir(root, path, 0755);
        if (r < 0 && r != -EEXIST)
            return r;
    }
    return 0;
}

static int write_new(int root, const char *name, const char *text)
{
    CLEANUP_FD int fd = sys_open(root, name, O_WRONLY | O_CREAT, 0644);
    if (fd < 0)
        return fd;
    int r = sys_write(fd, text, strlen(text), 0);
    return r < 0 ? r : sys_fsync(fd);
}

static int fill_root(int root)
{
    int r = write_new(root, "lock", "");
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(directories); i++) {
        r = sys_mkdir(root, directories[i], 0755);
        if (r == -EEXIST)
            r = 0;
    }
    if (r == 0)
        r = make_shards(root, "objects");
    if (r == 0)
        r = make_shards(root, "manifests");
    if (r == 0)
        r = write_new(root, "epoch", "1\n");
    if (r == 0)
        r = sys_syncfs(root);
    if (r == 0)
        r = write_new(root, "format.new", format_line);
    if (r == 0)
        r = sys_rename(root, "format.new", root, "format", 0);
    return r < 0 ? r : sys_fsync(root);
}

int store_init(const char *path)
{
    int r = sys_mkdir(AT_FDCWD, path, 0755);
    if (r < 0 && r != -EEXIST)
        return fail_errno(r, "%s: cannot make the store", path);
    CLEANUP_FD int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail_errno(-errno, "%s: cannot make the store", path);
    if (faccessat(root, "format", F_OK, 0) == 0)
        return fail(-EEXIST, "%s: is a store already", path);
    bool occupied = false;
    r = each_entry(root, ".", any_entry, &occupied);
    if (r < 0)
        return r;
    /* "lock" is the first thing made: where it is, an init was interrupted and may be gone on with. */
    if (occupied && faccessat(root, "lock", F_OK, 0) != 0)
        return fail(-EEXIST, "%s: not empty (give a directory that does not exist yet)", path);
    r = fill_root(root);
    return r < 0 ? fail_errno(r, "%s: cannot make the store", path) : 0;
}

static int check_format(int root, const char *path)
{
    char text[128];
    int r = text_read(root, "format", text, sizeof(text));
    if (r == -ENOENT)
        return fail(r, "%s: not a Stellarium store (make one with: stellarium init --store %s)", path, path);
    if (r < 0 && r != -EFBIG)
        return fail_errno(r, "%s/format", path);
    if (r == -EFBIG || strcmp(text, format_line) != 0)
        return fail(-EPROTO, "%s/format: not the format of this program, which is \"%.*s\"", path,
                    (int)sizeof(format_line) - 2, format_line);
    return 0;
}

/* A number from 1 to 999,999,999 that is another one after a reboot, almost certainly; 0 if the kernel has no
 * boot id. */
static uint32_t read_boot_tag(void)
{
    char text[64];
    if (text_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof(text)) < 0)
        return 0;
    uint64_t tag = 1469598103934665603u; /* FNV-1a, 64 bits */
    for (const char *at = text; *at; at++)
        tag = (tag ^ (uint8_t)*at) * 1099511628211u;
    return (uint32_t)(tag % 999999999u) + 1;
}

int store_open(const char *path, struct store **ret_store)
{
    CLEANUP_FD int root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail_errno(-errno, "%s: cannot open the store", path);
    int r = check_format(root, path);
    if (r < 0)
        return r;
    struct store *store = malloc(sizeof(*store));
    if (!store)
        return fail(-ENOMEM, "%s: no memory to open the store", path);
    int *const descriptors[] = {&store->objects, &store->manifests, &store->refs, &store->volumes,
                                &store->leases,  &store->tmp,       &store->cache};
    *store = (struct store){.root = fd_steal(&root), .path = strdup(path), .boot_tag = read_boot_tag()};
    for (unsigned i = 0; i < ARRAY_SIZE(directories); i++)
        *descriptors[i] = -1;
    store->read_only = faccessat(store->root, ".", W_OK, AT_EACCESS) != 0;
    for (unsigned i = 0; i < ARRAY_SIZE(directories); i++) {
        *descriptors[i] = openat(store->root, directories[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (*descriptors[i] < 0) {
            r = fail_errno(-errno, "%s/%s", path, directories[i]);
            store_close(store);
            return r;
        }
    }
    if (!store->path) {
        store_close(store);
        return fail(-ENOMEM, "%s: no memory to open the store", path);
    }
    *ret_store = store;
    return 0;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    int *const descriptors[] = {&store->root,    &store->objects, &store->manifests, &store->refs,
                                &store->volumes, &store->leases,  &store->tmp,       &store->cache};
    for (unsigned i = 0; i < ARRAY_SIZE(descriptors); i++)
        cleanup_fd(descriptors[i]);
    free(store->path);
    free(store);
}

void store_each_fd(const struct store *store, void (*told)(void *context, int fd), void *context)
{
    const int descriptors[] = {store->root,    store->objects, store->manifests, store->refs,
                               store->volumes, store->leases,  store->tmp,       store->cache};
    for (unsigned i = 0; i < ARRAY_SIZE(descriptors); i++)
        told(context, descriptors[i]);
}

const char *store_path(const struct store *store)
{
    return store->path;
}

void store_on_warning(struct store *store, void (*warn)(void *opaque, const char *message), void *opaque)
{
    store->warn = warn;
    store->warn_opaque = opaque;
}

void store_warn(struct store *store, const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    if (store->warn)
        store->warn(store->warn_opaque, message);
}

static int flock_wait(int fd, int how)
{
    while (flock(fd, how) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

int flock_soon(int fd, int how)
{
    unsigned attempts = 0;
    int r;
    do
        r = flock_wait(fd, how | LOCK_NB);
    while (r == -EWOULDBLOCK && lock_again(&attempts));
    return r;
}

int store_lock(struct store *store, int how, int *ret_fd)
{
    /* A descriptor of its own each time: flock() belongs to the open file, which threads would share. */
    CLEANUP_FD int fd = openat(store->root, "lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s/lock", store->path);
    int r = flock_wait(fd, how);
    if (r == -EWOULDBLOCK)
        return r;
    if (r < 0)
        return fail_errno(r, "%s/lock", store->path);
    *ret_fd = fd_steal(&fd);
    return 0;
}

int epoch_read(struct store *store, uint32_t *ret_epoch)
{
    char text[32], *end;
    int r = text_read(store->root, "epoch", text, sizeof(text));
    if (r < 0)
        return fail_errno(r, "%s/epoch", store->path);
    unsigned long epoch = strtoul(text, &end, 10);
    if (epoch == 0 || epoch > EPOCH_MAX || strcmp(end, "\n") != 0)
        return fail(-EBADMSG, "%s/epoch: not a number from 1 to %d (was it edited?)", store->path, EPOCH_MAX);
    *ret_epoch = (uint32_t)epoch;
    return 0;
}

int text_publish(struct store *store, int directory, const char *path, const char *text)
{
    return file_publish(store->tmp, directory, path, text, strlen(text), 0644);
}

void shard_path(const struct object_id *id, char path[SHARD_PATH_MAX])
{
    object_id_text(id, path + 1); /* leaves room for the slash */
    path[0] = path[1];
    path[1] = path[2];
    path[2] = '/';
}

int shard_lock(int kind, const struct object_id *id, bool wait, int *ret_fd)
{
    char path[SHARD_PATH_MAX];
    shard_path(id, path);
    path[2] = '\0';
    CLEANUP_FD int fd = openat(kind, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = flock_wait(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
    if (r < 0)
        return r;
    *ret_fd = fd_steal(&fd);
    return 0;
}

static bool is_stamp(const struct stat *status)
{
    return status->st_mtim.tv_sec > 0 && status->st_mtim.tv_sec <= EPOCH_MAX;
}

/* The boot's tag mixed with the id's: a file that was moved or copied to another's name, times and all, is
 * not verified there. */
static long verified_tag(const struct store *store, const struct object_id *id)
{
    uint32_t name;
    memcpy(&name, id->bytes, sizeof(name));
    return (long)((store->boot_tag + (uint64_t)name) % 999999999u) + 1;
}

struct timespec stamp_verified(const struct store *store, const struct object_id *id, uint32_t epoch)
{
    return (struct timespec){.tv_sec = epoch, .tv_nsec = store->boot_tag ? verified_tag(store, id) : 0};
}

bool stamp_is_verified(const struct store *store, const struct object_id *id, const struct stat *status)
{
    return is_stamp(status) && store->boot_tag != 0 && status->st_mtim.tv_nsec == verified_tag(store, id);
}

uint32_t stamp_epoch(const struct stat *status)
{
    return is_stamp(status) ? (uint32_t)status->st_mtim.tv_sec : 0;
}

void stamp_mark_verified(struct store *store, int kind, const struct object_id *id, bool good)
{
    CLEANUP_FD int lock = -1;
    char path[SHARD_PATH_MAX];
    struct stat status;
    shard_path(id, path);
    if (store->read_only || store->boot_tag == 0 || shard_lock(kind, id, !good, &lock) < 0 ||
        fstatat(lock, path + 3, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    struct timespec stamp = stamp_verified(store, id, MAX(stamp_epoch(&status), 1u));
    if (!good)
        stamp.tv_nsec = 0;
    (void)sys_stamp(lock, path + 3, &stamp);
}

int stamp_touch(struct store *store, int kind, const struct object_id *id, uint64_t length, uint32_t epoch,
                bool *ret_verified)
{
    CLEANUP_FD int lock = -1;
    char path[SHARD_PATH_MAX];
    struct stat status;
    shard_path(id, path);
    int r = shard_lock(kind, id, true, &lock);
    if (r < 0)
        return fail_errno(r, "%s: cannot lock a shard", store->path);
    if (fstatat(lock, path + 3, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : fail_errno(-errno, "%s: object %s", store->path, path);
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != length)
        return 0;
    *ret_verified = stamp_is_verified(store, id, &status);
    if (stamp_epoch(&status) >= epoch)
        return 1;
    struct timespec stamp = {.tv_sec = epoch, .tv_nsec = is_stamp(&status) ? status.st_mtim.tv_nsec : 0};
    r = sys_stamp(lock, path + 3, &stamp);
    return r < 0 ? fail_errno(r, "%s: object %s", store->path, path) : 1;
}
