/* Putting a machine together from its configuration, step by step. */
#include "devices.h"
#include "machine_internal.h"
#include "snapshot_store.h"

#include <fcntl.h>

/* Everything that a wrong configuration can name is opened before the host is asked for anything. */
static int open_files(struct machine *machine)
{
    const struct config *config = machine->config;
    bool boots = !config->snapshot;
    int r = boots && config->kernel ? open_input_file("--kernel", config->kernel, &machine->kernel_fd) : 0;
    if (r == 0 && boots && config->initrd)
        r = open_input_file("--initrd", config->initrd, &machine->initrd_fd);
    if (r == 0)
        r = config_command_line(config, &machine->command_line);
    if (r == 0 && config->serial == SERIAL_FILE) {
        machine->serial_fd = open(config->serial_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (machine->serial_fd < 0)
            r = fail_errno(-errno, "--serial file=%s", config->serial_path);
    }
    return r;
}

static int make_memory(struct machine *machine)
{
    const struct config *config = machine->config;
    if (config->copy) {
        machine->mem = config->copy->mem;
        machine->kvm_fd = config->copy->kvm_fd;
        return 0;
    }
    if (config->snapshot)
        return snapshot_map_memory(config->snapshot, config->pages, &machine->mem);
    return guest_mem_new(config->memory, config->pages, &machine->mem);
}

static int make_vm(struct machine *machine)
{
    const struct vm_reg_pages reg_pages = {
        .first = layout_virtio_reg_page_gpa(0),
        .stride = LAYOUT_VIRTIO_STRIDE,
        .count = machine->slots,
    };
    int r = machine->kvm_fd < 0 ? kvm_open(&machine->kvm_fd) : 0;
    return r < 0 ? r
                 : vm_new(machine->kvm_fd, &machine->mem, &reg_pages, machine->config->cpus, &machine->vm);
}

static int make_bus(struct machine *machine)
{
    int r = bus_new(machine->loop, &machine->vm, &machine->bus);
    if (r == 0)
        r = mailbox_new(machine->loop, machine->deliver_news, machine, &machine->news);
    if (r == 0)
        r = irq_lines_new(&machine->vm, &machine->lines);
    return r;
}

static int add_console(struct machine *machine)
{
    const struct config *config = machine->config;
    struct console_config console = {.input_fd = -1, .output_fd = machine->serial_fd, .context = machine};
    if (config->serial == SERIAL_STDIO) {
        console.input_fd = fd_own_description(STDIN_FILENO, O_RDONLY);
        console.output_fd = fd_own_description(STDOUT_FILENO, O_WRONLY);
        if (isatty(STDIN_FILENO))
            console.filter_input = machine->filter_input;
    }
    int r = console_new(machine->loop, &console, &machine->console);
    if (r == 0)
        r = console_attach(machine->console, machine->bus, machine->lines);
    return r;
}

static int add_pc_chips(struct machine *machine)
{
    int r = i8042_attach(&machine->i8042, machine->bus, &machine->shutdown);
    if (r == 0)
        r = cmos_attach(&machine->cmos, machine->bus);
    if (r == 0)
        r = acpi_pm_attach(&machine->acpi_pm, machine->bus, machine->lines, &machine->shutdown);
    if (r == 0 && machine->config->boot_timer && machine->observer.booted) {
        machine->boot_timer.booted = machine->observer.booted;
        machine->boot_timer.context = machine->observer.context;
        r = boot_timer_attach(&machine->boot_timer, machine->bus);
    }
    return r;
}

static int make_device(struct machine *machine, const struct device_kind *kind, unsigned index)
{
    if (machine->slots == LAYOUT_VIRTIO_MAX)
        return fail(-ENOSPC, "a VM has at most %u devices: leave out a disk", LAYOUT_VIRTIO_MAX);
    int r = kind->make(machine->loop, machine->config, index, &machine->devices[machine->slots]);
    if (r == 0)
        machine->slots++;
    return r;
}

/* Of those that the configuration asks for, or of those that each machine has. */
static int make_devices(struct machine *machine, bool always)
{
    int r = 0;
    for (const struct device_kind *const *kind = device_kinds; r == 0 && *kind; kind++) {
        unsigned count = (*kind)->always == always ? (*kind)->count(machine->config) : 0;
        for (unsigned i = 0; r == 0 && i < count; i++)
            r = make_device(machine, *kind, i);
    }
    return r;
}

static int make_wanted_devices(struct machine *machine)
{
    return make_devices(machine, false);
}

static int make_standing_devices(struct machine *machine)
{
    return make_devices(machine, true);
}

static int attach_devices(struct machine *machine)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && i < machine->slots; i++)
        r = virtio_attach(machine->devices[i], i, machine->bus, &machine->vm, machine->lines);
    return r;
}

static int load_guest(struct machine *machine)
{
    const struct config *config = machine->config;
    const struct boot_config boot = {
        .kernel_fd = machine->kernel_fd,
        .kernel_name = config->kernel,
        .initrd_fd = machine->initrd_fd,
        .initrd_name = config->initrd,
        .cmdline = machine->command_line,
        .cpu_count = config->cpus,
        .virtio_count = machine->slots,
        .serial = config->serial != SERIAL_OFF,
    };
    if (config->snapshot)
        return 0;
    int r = boot_load(&boot, &machine->mem, &machine->entry);
    cleanup_fd(&machine->kernel_fd);
    cleanup_fd(&machine->initrd_fd);
    return r;
}

static int set_entry(struct machine *machine)
{
    if (machine->config->snapshot)
        return machine_load_snapshot(machine);
    return vm_set_pvh_entry(&machine->vm, machine->entry.kernel_entry, machine->entry.start_info);
}

/* Undoes the steps up to make_vm(): the machine can be started in another way. */
static void disassemble(struct machine *machine)
{
    for (unsigned i = 0; i < machine->slots; i++)
        virtio_close(machine->devices[i], NULL, NULL);
    machine->slots = 0;
    guest_mem_free(&machine->mem);
    cleanup_fd(&machine->kernel_fd);
    cleanup_fd(&machine->initrd_fd);
    cleanup_fd(&machine->serial_fd);
    free(machine->command_line);
    machine->command_line = NULL;
}

/* The steps from a configuration to a machine that can run, and whose fault it is when one fails. What a
 * configuration can be wrong about comes before the VM is made. */
int machine_assemble(struct machine *machine, enum machine_status *ret_blame)
{
    static const struct {
        int (*step)(struct machine *machine);
        enum machine_status blame;
    } steps[] = {
        {open_files, MACHINE_BAD_CONFIG},          {make_memory, MACHINE_HOST_FAILED},
        {make_wanted_devices, MACHINE_BAD_CONFIG}, {make_standing_devices, MACHINE_HOST_FAILED},
        {load_guest, MACHINE_BAD_CONFIG},          {make_vm, MACHINE_HOST_FAILED},
        {make_bus, MACHINE_HOST_FAILED},           {add_console, MACHINE_HOST_FAILED},
        {add_pc_chips, MACHINE_HOST_FAILED},       {attach_devices, MACHINE_HOST_FAILED},
        {set_entry, MACHINE_HOST_FAILED},
    };
    bool past_vm = false;
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        int r = steps[i].step(machine);
        if (r < 0) {
            *ret_blame = steps[i].blame;
            machine->broken = past_vm;
            if (!past_vm)
                disassemble(machine);
            return r;
        }
        past_vm = past_vm || steps[i].step == make_vm;
    }
    return 0;
}
