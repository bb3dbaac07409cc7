/* Drives of a machine that runs: another disk in the place of one, and other limits. */
#include "machine_internal.h"

#include "dev/disk.h"
#include "dev/disk_cas.h"
#include "dev/disk_opener.h"

#include <fcntl.h>

struct replacing {
    struct machine *machine;
    unsigned index;
    int held_fd; /* of the old disk, so that the same file can be opened again; -1: none */
    machine_replaced *replaced;
    void *context;
};

void machine_limit_drive(struct machine *machine, unsigned index, const struct rate_limiter_config *limits)
{
    virtio_blk_limit(machine->devices[index], limits); /* drives come first */
}

static void end(struct replacing *replacing, int result)
{
    machine_replaced *replaced = replacing->replaced;
    void *context = replacing->context;
    cleanup_fd(&replacing->held_fd);
    free(replacing);
    replaced(context, result);
}

static void swapped(void *context)
{
    end(context, 0);
}

static void opened(void *context, int result, const char *message, struct disk *disk)
{
    struct replacing *replacing = context;
    struct machine *machine = replacing->machine;
    if (result < 0) {
        (void)fail(result, "%s", message);
        end(replacing, result);
        return;
    }
    int r = machine->end_message[0]
                ? fail(-ESHUTDOWN, "the VM is ending")
                : virtio_blk_replace(machine->devices[replacing->index], disk, swapped, replacing);
    if (r < 0) {
        disk->ops->close(disk);
        end(replacing, r);
    }
}

static void take_first(void *context, int fd)
{
    int *held = context;
    if (*held < 0)
        *held = fd;
}

int machine_replace_drive(struct machine *machine, unsigned index, const char *path,
                          machine_replaced *replaced, void *context)
{
    const struct drive_config *drive = &machine->config->drives[index];
    if (!machine->opener)
        return fail(-EOPNOTSUPP, "a VM that is a copy of another one keeps its disks");
    if (disk_cas_is(path))
        return fail(-EOPNOTSUPP, "%s: a disk of the store must be there when the VM starts", path);
    struct replacing *replacing = calloc(1, sizeof(*replacing));
    if (!replacing)
        return fail(-ENOMEM, "%s: no memory to open it", path);
    *replacing = (struct replacing){
        .machine = machine, .index = index, .held_fd = -1, .replaced = replaced, .context = context};
    struct disk *disk = virtio_blk_disk(machine->devices[index]);
    int fd = -1;
    if (!disk_cas_is(drive->path))
        disk->ops->each_fd(disk, take_first, &fd);
    if (fd >= 0)
        replacing->held_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    const struct disk_options options = {.read_only = drive->read_only,
                                         .direct = drive->direct,
                                         .sector = drive->sector,
                                         .held_fd = replacing->held_fd > 0 ? replacing->held_fd : 0};
    int r = disk_opener_open(machine->opener, NULL, path, &options, opened, replacing);
    if (r < 0) {
        cleanup_fd(&replacing->held_fd);
        free(replacing);
    }
    return r;
}
