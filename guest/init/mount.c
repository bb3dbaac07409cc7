#include "init.h"
#include "mountlist.h"

#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* What user space expects to find mounted, in order; an initramfs that goes on to a root needs the first few,
 * which go along to the root. Flags and modes are those of systemd's and Debian's own inits. */
static const struct {
    const char *where;
    const char *type;
    unsigned long flags;
    const char *options;
    bool optional; /* a kernel may be built without it */
} kernel_file_systems[] = {
    {"/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, false},
    {"/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
    {"/dev", "devtmpfs", MS_NOSUID, "mode=0755", false},
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666",
     true}, /* 5 is Debian's tty */
    {"/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", true},
    {"/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", true},
    {"/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", true},
    {"/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
};

#define FIRST_MOUNTS 3

static void mount_some(size_t first, size_t behind)
{
    for (size_t i = first; i < behind; i++) {
        const char *where = kernel_file_systems[i].where;
        const char *type = kernel_file_systems[i].type;
        if (mount(type, where, type, kernel_file_systems[i].flags, kernel_file_systems[i].options) == 0)
            continue;
        /* An image may lack the folder, and a read-only one keeps lacking it: then the second try says why.
         */
        if (errno == ENOENT && mkdir(where, 0755) == 0 &&
            mount(type, where, type, kernel_file_systems[i].flags, kernel_file_systems[i].options) == 0)
            continue;
        bool absent = kernel_file_systems[i].optional && (errno == ENODEV || errno == ENOENT);
        if (errno != EBUSY && !absent) /* busy: the kernel or the initramfs has mounted it */
            say("%s: cannot mount %s: %s", where, type, strerror(errno));
    }
}

void mount_first(void)
{
    mount_some(0, FIRST_MOUNTS);
}

void mount_rest(void)
{
    mount_some(FIRST_MOUNTS, ARRAY_SIZE(kernel_file_systems));
}

static void make_read_only(const char *where)
{
    if (mount(NULL, where, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0)
        say("%s: neither unmounted nor made read-only: %s", where, strerror(errno));
}

/* Unmounts what stands in the list behind `cursor`, the last first, since a later mount may stand on an
 * earlier one. */
static void unmount_behind(char **cursor)
{
    struct mount_entry entry;
    if (!mount_next(cursor, &entry))
        return;
    unmount_behind(cursor);
    if (!mount_keeps_data(entry.type))
        return;
    if (strcmp(entry.where, "/") == 0 || umount2(entry.where, UMOUNT_NOFOLLOW) != 0)
        make_read_only(entry.where);
}

void unmount_all(void)
{
    sync();
    CLEANUP_FREE char *list = NULL;
    int error = file_text("/proc/self/mounts", &list);
    if (error < 0) {
        say("/proc/self/mounts: %s: only the root is unmounted", strerror(-error));
        make_read_only("/");
        return;
    }
    char *cursor = list;
    unmount_behind(&cursor);
}
