#include "init.h"

#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#define NEW_ROOT "/newroot"

/* Drivers find their devices while they load, so the root is nearly always there at once. initramfs-tools
 * waits ten seconds or more for slow ones. */
#define ROOT_PATIENCE_MS 10000
#define ROOT_POLL_MS     2

/* linux/magic.h: the two file systems that can hold an initramfs. */
#define RAMFS_MAGIC UINT64_C(0x858458f6)
#define TMPFS_MAGIC UINT64_C(0x01021994)

/* The names of the guest's disks, for the message of a failure. */
static void list_disks(char *buffer, size_t size)
{
    CLEANUP_FREE char *text = NULL;
    size_t length = 0;
    buffer[0] = '\0';
    if (file_text("/proc/partitions", &text) < 0)
        return;
    char *cursor = text;
    char *line;
    while ((line = file_line(&cursor)) != NULL) {
        const char *name = strrchr(line, ' '); /* the last of four columns; the first is a number */
        if (name == NULL || line[0] < '0' || line[0] > '9')
            continue;
        int added = snprintf(buffer + length, size - length, "%s", name);
        if (added < 0 || (size_t)added >= size - length)
            return;
        length += (size_t)added;
    }
}

static void wait_for_device(const char *device)
{
    struct stat file;
    for (int waited = 0; stat(device, &file) != 0; waited += ROOT_POLL_MS) {
        if (waited >= ROOT_PATIENCE_MS) {
            char disks[256];
            list_disks(disks, sizeof(disks));
            give_up("root=%s: no such device after %d s (disks there are:%s)", device,
                    ROOT_PATIENCE_MS / 1000,
                    disks[0] == '\0' ? " none; does the kernel have virtio_mmio and virtio_blk?" : disks);
        }
        nanosleep(&(struct timespec){.tv_nsec = ROOT_POLL_MS * 1000000L}, NULL);
    }
    if (!S_ISBLK(file.st_mode))
        give_up("root=%s: not a block device", device);
}

static int remove_one(const char *path, const struct stat *file, int kind, struct FTW *place)
{
    (void)file;
    (void)kind;
    if (place->level > 0 && strcmp(path, NEW_ROOT) != 0)
        (void)remove(path); /* a file that stays only costs memory */
    return 0;
}

/* Gives the memory of the initramfs back. Never deletes from a disk, where this program may be the init
 * too. */
static void free_initramfs(void)
{
    struct statfs root;
    if (statfs("/", &root) == 0 &&
        ((uint64_t)root.f_type == RAMFS_MAGIC || (uint64_t)root.f_type == TMPFS_MAGIC))
        nftw("/", remove_one, 8, FTW_DEPTH | FTW_MOUNT | FTW_PHYS);
}

/* Moves the mounts to the root, so that any init finds its console. */
static void move_mounts(void)
{
    const char *const mounts[] = {"/dev", "/proc", "/sys"};
    for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
        char to[sizeof(NEW_ROOT "/proc")];
        snprintf(to, sizeof(to), NEW_ROOT "%s", mounts[i]);
        if (mount(mounts[i], to, NULL, MS_MOVE, NULL) != 0)
            umount2(mounts[i], MNT_DETACH);
    }
}

void root_start(const struct boot_line *boot)
{
    const char *device = boot->root;
    const char *type = boot->root_type == NULL ? "ext4" : boot->root_type;
    if (strncmp(device, "/dev/", 5) != 0)
        give_up("root=%s: this initramfs knows device names only (say root=/dev/vda)", device);
    wait_for_device(device);
    mkdir(NEW_ROOT, 0755);
    if (mount(device, NEW_ROOT, type, boot->root_writable ? 0 : MS_RDONLY, boot->root_flags) != 0)
        give_up("root=%s: cannot mount it as %s: %s (rootfstype= names another type)", device, type,
                strerror(errno));

    move_mounts();
    free_initramfs();
    if (chdir(NEW_ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 ||
        chdir("/") != 0)
        give_up("root=%s: cannot make it the root: %s", device, strerror(errno));

    const char *const inits[] = {"/sbin/init", "/etc/init", "/bin/init"}; /* the kernel's own list */
    if (boot->init != NULL)
        execv(boot->init, (char *[]){(char *)boot->init, NULL});
    for (size_t i = 0; boot->init == NULL && i < ARRAY_SIZE(inits); i++)
        execv(inits[i], (char *[]){(char *)inits[i], NULL});
    give_up("%s: cannot start it from %s: %s (init= names another)",
            boot->init == NULL ? inits[0] : boot->init, device, strerror(errno));
}
