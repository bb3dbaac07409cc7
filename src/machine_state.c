/* The state of a machine beside its memory, as parts (base/state.h). Devices and chips come before the VM,
 * since an interrupt that they raise to the last is part of it. */
#include "machine_internal.h"

#include "boot/acpi.h"
#include "dev/virtio_net.h"
#include "snapshot_config.h"
#include "snapshot_store.h"

#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <string.h>

#define DEVICE_TAG     "VDEV"
#define DEVICE_VERSION 1u

static int save_devices(const void *owner, struct state_writer *to)
{
    const struct machine *machine = owner;
    int r = 0;
    for (unsigned i = 0; r == 0 && i < machine->slots; i++) {
        size_t begin = state_begin(to, DEVICE_TAG, DEVICE_VERSION);
        r = virtio_save(machine->devices[i], to);
        state_end(to, begin);
    }
    return r;
}

static int load_devices(void *owner, struct state_reader *from, uint16_t version)
{
    struct machine *machine = owner;
    struct state_section section;
    (void)version;
    for (unsigned i = 0; i < machine->slots; i++) {
        int r = state_next(from, &section);
        if (r < 0)
            return r;
        if (r == 0 || strcmp(section.tag, DEVICE_TAG) != 0)
            return fail(-EBADMSG, "saved state has fewer devices than this machine");
        if (section.version > DEVICE_VERSION)
            return fail(-ENOTSUP, "saved state has devices of a newer version of this program");
        r = virtio_load(machine->devices[i], section.body);
        if (r < 0)
            return r;
    }
    return 0;
}

/* A part of a member of the machine, by the member's own part. */
#define PART_OF_MEMBER(name, member)                                                                         \
    static int save_##name(const void *owner, struct state_writer *to)                                       \
    {                                                                                                        \
        const struct machine *machine = owner;                                                               \
        return name##_state.save(member, to);                                                                \
    }                                                                                                        \
    static int load_##name(void *owner, struct state_reader *from, uint16_t version)                         \
    {                                                                                                        \
        struct machine *machine = owner;                                                                     \
        return name##_state.load(member, from, version);                                                     \
    }
PART_OF_MEMBER(console, machine->console)
PART_OF_MEMBER(cmos, &machine->cmos)
PART_OF_MEMBER(acpi_pm, &machine->acpi_pm)

static int save_vm(const void *owner, struct state_writer *to)
{
    const struct machine *machine = owner;
    return vm_save(&machine->vm, to);
}

static int load_vm(void *owner, struct state_reader *from, uint16_t version)
{
    struct machine *machine = owner;
    (void)version;
    return vm_load(&machine->vm, from,
                   machine->config->clock_catches_up ? VM_CLOCK_CATCHES_UP : VM_CLOCK_GOES_ON);
}

static const struct state_part parts[] = {
    {"DEVS", 1, STATE_REQUIRED, save_devices, load_devices},
    {"UART", 1, STATE_REQUIRED, save_console, load_console},
    {"CMOS", 1, STATE_REQUIRED, save_cmos, load_cmos},
    {"ACPI", 1, STATE_REQUIRED, save_acpi_pm, load_acpi_pm},
    {"KVM ", 1, STATE_REQUIRED, save_vm, load_vm},
};

int machine_save(const struct machine *machine, struct state_writer *to)
{
    CHECK(machine->state == MACHINE_PAUSED);
    return state_save(parts, ARRAY_SIZE(parts), machine, to);
}

int machine_load(struct machine *machine, struct state_reader from)
{
    return state_load(parts, ARRAY_SIZE(parts), machine, from);
}

/* A copy is a new machine from its first instruction. */
int machine_load_snapshot(struct machine *machine)
{
    int r = machine_load(machine, machine->config->snapshot->machine);
    if (r == 0)
        r = acpi_write_generation(&machine->mem);
    if (r == 0)
        acpi_pm_new_generation(&machine->acpi_pm);
    return r;
}

int machine_may_reset(const struct machine *machine)
{
    const struct config *config = machine->config;
    if (config->copy)
        return fail(-EOPNOTSUPP, "this VM is a fork, and has no snapshot to go back to");
    if (!config->snapshot)
        return fail(-EOPNOTSUPP, "this VM did not come from a snapshot (voltctl restore)");
    for (unsigned i = 0; i < config->drive_count; i++)
        if (!config->drives[i].read_only)
            return fail(-EOPNOTSUPP, "disk %u (%s) is writable, and what was written to it would stay", i,
                        config->drives[i].path);
    return 0;
}

int machine_reset(struct machine *machine)
{
    CHECK(machine->state == MACHINE_PAUSED);
    for (unsigned i = 0; i < machine->slots; i++)
        virtio_forget(machine->devices[i]);
    int r = snapshot_revert_memory(machine->config->snapshot, &machine->mem);
    return r == 0 ? machine_load_snapshot(machine) : r;
}

/* What was derived or made up is the guest's from now on: addresses, its command line, what it is offered. */
int machine_save_config(const struct machine *machine, struct state_writer *to)
{
    struct config config = *machine->config; /* shares all texts */
    unsigned card = 0;
    for (unsigned i = 0; i < machine->slots; i++) {
        if (machine->devices[i]->ops->device_id == VIRTIO_ID_BALLOON)
            config.balloon.reporting =
                machine->devices[i]->offered & (UINT64_C(1) << VIRTIO_BALLOON_F_REPORTING);
        if (machine->devices[i]->ops->device_id == VIRTIO_ID_NET) {
            config.nets[card].has_mac = true;
            virtio_net_mac(machine->devices[i], config.nets[card++].mac);
        }
    }
    config.cmdline = machine->command_line;
    if (machine->saved_as)
        config.restore = machine->saved_as;
    config.append = NULL;
    return snapshot_save_config(&config, to);
}
