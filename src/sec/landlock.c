/*
 * Landlock: of the file system only what the configuration names, no TCP, no signals to and no abstract
 * sockets of other processes. By system calls, since Debian 12's headers know its second ABI and kernels are
 * at the seventh (Documentation/userspace-api/landlock.rst).
 */
#include "sec/internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define CREATE_RULESET 444
#define ADD_RULE       445
#define RESTRICT_SELF  446

#define CREATE_RULESET_VERSION 1u
#define RULE_PATH_BENEATH      1

enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_REG = 1 << 8,
    FS_ALL_OF_1 = (1 << 13) - 1,
    FS_REFER = 1 << 13,     /* ABI 2 */
    FS_TRUNCATE = 1 << 14,  /* 3 */
    FS_IOCTL_DEV = 1 << 15, /* 5 */
};
#define NET_TCP_ALL 3u /* ABI 4: bind, connect */
#define SCOPE_ALL   3u /* ABI 6: abstract sockets, signals */

struct ruleset {
    uint64_t fs, net, scoped;
};
struct beneath {
    uint64_t allowed;
    int32_t parent_fd;
} __attribute__((packed));

unsigned landlock_abi(void)
{
    long abi = syscall(CREATE_RULESET, NULL, 0, CREATE_RULESET_VERSION);
    return abi < 0 ? 0 : (unsigned)abi;
}

static struct ruleset handled_by(unsigned abi)
{
    struct ruleset handled = {.fs = FS_ALL_OF_1};
    if (abi >= 2)
        handled.fs |= FS_REFER;
    if (abi >= 3)
        handled.fs |= FS_TRUNCATE;
    if (abi >= 4)
        handled.net = NET_TCP_ALL;
    if (abi >= 5)
        handled.fs |= FS_IOCTL_DEV;
    if (abi >= 6)
        handled.scoped = SCOPE_ALL;
    return handled;
}

/* An older kernel takes a shorter structure. */
static size_t size_for(unsigned abi)
{
    return abi >= 6 ? sizeof(struct ruleset) : abi >= 4 ? 2 * sizeof(uint64_t) : sizeof(uint64_t);
}

static uint64_t access_of(const struct sandbox_path *path, bool directory)
{
    uint64_t wanted = path->removes ? FS_REMOVE_FILE | FS_READ_DIR : FS_READ_FILE;
    if (path->writable)
        wanted |= FS_WRITE_FILE | FS_TRUNCATE;
    if (path->writable && directory)
        wanted |= FS_MAKE_REG | FS_REMOVE_FILE; /* a name that is taken by another is removed */
    if (path->device)
        wanted |= FS_IOCTL_DEV;
    if (directory)
        wanted |= FS_READ_DIR;
    return wanted;
}

static int allow(int ruleset, int fd, uint64_t wanted)
{
    const struct beneath rule = {.allowed = wanted, .parent_fd = fd};
    return syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
}

static int allow_path(int ruleset, const struct sandbox_path *path, uint64_t handled)
{
    struct stat status;
    CLEANUP_FD int fd = open(path->path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s: the sandbox cannot keep it open for later", path->path);
    int r = allow(ruleset, fd, access_of(path, S_ISDIR(status.st_mode)) & handled);
    return r < 0 ? fail_errno(r, "%s: Landlock", path->path) : 0;
}

int landlock_restrict(const struct sandbox_config *config, int tasks, unsigned abi)
{
    const struct ruleset handled = handled_by(abi);
    CLEANUP_FD int ruleset = (int)syscall(CREATE_RULESET, &handled, size_for(abi), 0);
    if (ruleset < 0)
        return fail_errno(-errno, "Landlock: making its rules");
    int r = 0;
    for (unsigned i = 0; r == 0 && i < config->path_count; i++)
        r = allow_path(ruleset, &config->paths[i], handled.fs);
    if (r == 0 && tasks >= 0 && allow(ruleset, tasks, FS_READ_FILE | FS_READ_DIR) < 0)
        r = fail_errno(-errno, "Landlock: /proc/self/task");
    if (r == 0 && syscall(RESTRICT_SELF, ruleset, 0) < 0)
        r = fail_errno(-errno, "Landlock: its rules");
    return r;
}
