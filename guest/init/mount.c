#include "init.h"
#include "mountlist.h"

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* The file systems that programs expect, in the order to mount them. An initramfs needs the first few and
 * moves them to the root. Flags and modes are those of systemd and of Debian's inits. */
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
    /* 5 is Debian's group tty. */
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666", true},
    {"/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", true},
    {"/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", true},
    {"/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", true},
    {"/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, true},
};

#define FIRST_MOUNTS 3

/* Whether the kernel or the initramfs has mounted something there. mount(2) fails with EBUSY for some
 * types only. */
static bool is_mounted(const char *where)
{
    char parent[sizeof("/sys/fs/cgroup/..")];
    struct stat here;
    struct stat above;
    snprintf(parent, sizeof(parent), "%s/..", where);
    return stat(where, &here) == 0 && stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

static void mount_some(size_t first, size_t behind)
{
    for (size_t i = first; i < behind; i++) {
        const char *where = kernel_file_systems[i].where;
        const char *type = kernel_file_systems[i].type;
        if (is_mounted(where))
            continue;
        (void)mkdir(where, 0755); /* where that fails, mounting says what is missing */
        if (mount(type, where, type, kernel_file_systems[i].flags, kernel_file_systems[i].options) == 0)
            continue;
        /* The kernel's own folders under /sys come with what is mounted on them. */
        bool absent = errno == ENODEV || (errno == ENOENT && strncmp(where, "/sys/", 5) == 0);
        if (!absent || !kernel_file_systems[i].optional)
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

/* The mounts there are, in their order; strings point into *ret_text. The caller frees both. */
static int list_mounts(char **ret_text, struct mount_entry **ret_entries, size_t *ret_count)
{
    CLEANUP_FREE char *text = NULL;
    int error = file_text("/proc/self/mounts", &text);
    if (error < 0)
        return error;
    size_t lines = 1;
    for (const char *end = text; (end = strchr(end, '\n')) != NULL; end++)
        lines++;
    struct mount_entry *entries = calloc(lines, sizeof(*entries));
    if (entries == NULL)
        return -ENOMEM;
    size_t count = 0;
    char *cursor = text;
    while (mount_next(&cursor, &entries[count]))
        count++;
    *ret_text = ptr_steal(&text);
    *ret_entries = entries;
    *ret_count = count;
    return 0;
}

void unmount_all(void)
{
    sync();
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE struct mount_entry *entries = NULL;
    size_t count;
    int error = list_mounts(&text, &entries, &count);
    if (error < 0) {
        say("/proc/self/mounts: %s: only the root is made read-only", strerror(-error));
        make_read_only("/");
        return;
    }
    while (count-- > 0) { /* the last first: a later mount may stand on an earlier one */
        const char *where = entries[count].where;
        if (!mount_keeps_data(entries[count].type))
            continue;
        if (strcmp(where, "/") == 0 || umount2(where, UMOUNT_NOFOLLOW) != 0)
            make_read_only(where);
    }
}
