/*
 * Copies of a machine that go on as VMs of their own: fork(2), with the guest's memory copy-on-write.
 *
 *   paused ── state, what was written to disks ── fork() ──► resume
 *                                                   │ child: all descriptors closed but those of the list
 *                                                   └──► a new loop, a new VM around the memory, the state
 *
 * The child uses nothing of what the parent had but the guest's memory, its disks (dev/disk.h), the
 * descriptor of /dev/kvm and the state. What else is in its memory is forgotten, and stays untouched: freeing
 * it would cost pages that both share.
 */
#include "machine_internal.h"

#include "dev/disk.h"
#include "sec/sandbox.h"
#include "terminal.h"

/* ---- The parent ---- */

static struct disk *disk_of(const struct machine *machine, unsigned index)
{
    return virtio_blk_disk(machine->devices[index]); /* drives come first */
}

int machine_may_copy(const struct machine *machine)
{
    if (!sandbox_may_copy())
        return fail(-EACCES, "this VM's sandbox lets it make no copy of itself: start it with --allow-fork");
    if (machine->mem.pages == GUEST_PAGES_HUGETLB)
        return fail(-ENOTSUP, "this VM's memory is of the hugetlb pool, whose pages a copy would lose again "
                              "(leave --hugepages out: its memory is of 2 MiB pages anyway)");
    return 0;
}

unsigned machine_written_disks(const struct machine *machine)
{
    unsigned count = 0;
    for (unsigned i = 0; i < machine->config->drive_count; i++)
        count += !machine->config->drives[i].read_only;
    return count;
}

int machine_copy_disks(const struct machine *machine, const int *fds)
{
    for (unsigned i = 0; i < machine->config->drive_count; i++) {
        const struct drive_config *drive = &machine->config->drives[i];
        if (drive->read_only)
            continue;
        int r = machine_check_empty(drive->path, *fds);
        if (r == 0)
            r = disk_copy(disk_of(machine, i), *fds++);
        if (r < 0)
            return fail(r, "disk %u, %s: %s", i, drive->path, fail_text());
    }
    return 0;
}

int machine_copy_new(const struct machine *machine, struct machine_copy **ret_copy)
{
    struct state_writer sections = {0};
    CHECK(machine->state == MACHINE_PAUSED);
    struct machine_copy *copy = calloc(1, sizeof(*copy));
    if (!copy)
        return fail(-ENOMEM, "no memory for a copy");
    int r = machine_collect(machine, &sections);
    if (r == 0)
        r = snapshot_of_sections(sections.bytes, sections.length, machine->mem.size, &copy->snapshot);
    if (r < 0) {
        state_writer_free(&sections);
        free(copy);
        return r;
    }
    copy->kvm_fd = machine->kvm_fd;
    copy->vsock.fd = -1;
    copy->mem = machine->mem;
    for (unsigned i = 0; i < machine->config->drive_count; i++)
        copy->disks[i] = disk_of(machine, i);
    *ret_copy = copy;
    return 0;
}

void machine_copy_free(struct machine_copy *copy)
{
    snapshot_close(&copy->snapshot);
    free(copy);
}

/* ---- The child ---- */

struct kept {
    int *fds;
    size_t count, capacity;
};

static void keep(void *context, int fd)
{
    struct kept *kept = context;
    if (fd < 0)
        return;
    CHECK(array_reserve(&kept->fds, kept->count + 1, &kept->capacity) == 0);
    kept->fds[kept->count++] = fd;
}

void machine_copy_begin(struct machine *machine, struct machine_copy *copy, const int *fds, unsigned fd_count,
                        const int *disk_fds)
{
    struct kept kept = {0};
    struct ev_loop *ev = NULL;
    keep(&kept, copy->kvm_fd);
    for (unsigned i = 0; i < fd_count; i++)
        keep(&kept, fds[i]);
    for (unsigned i = 0; i < machine_written_disks(machine); i++)
        keep(&kept, disk_fds[i]);
    for (unsigned i = 0; i < machine->config->drive_count; i++)
        copy->disks[i]->ops->each_fd(copy->disks[i], keep, &kept);
    fd_close_others(kept.fds, kept.count);
    free(kept.fds);

    /* The descriptors are closed already, so that this changes nothing of the parent's. */
    CHECK(loop_libev(machine->loop, &ev) == 0);
    for (size_t i = 0; i < ARRAY_SIZE(machine->signals); i++)
        ev_signal_stop(ev, &machine->signals[i]);
    loop_abandon(machine->loop);
    terminal_forget();
    sandbox_copied();
    for (unsigned i = 0; i < machine->config->drive_count; i++)
        disk_copied(copy->disks[i], machine->config->drives[i].read_only ? -1 : *disk_fds++);
}
