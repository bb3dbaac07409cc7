#include "machine.h"

#include "boot/boot.h"
#include "dev/disk_cas.h"
#include "dev/layout.h"
#include "dev/legacy.h"
#include "dev/uart.h"
#include "dev/virtio.h"
#include "terminal.h"

#include <ev.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* SQEs of one batch: two full virtqueues. */
#define LOOP_ENTRIES 256u

struct machine {
    const struct config *config;
    char *command_line;
    int kernel_fd, initrd_fd, serial_fd;
    struct timespec started;

    struct guest_mem mem;
    struct vm vm;
    struct loop *loop;
    struct bus *bus;
    struct irq_lines *lines;
    struct uart *uart;
    struct legacy *legacy;
    struct virtio_device *devices[CONFIG_DRIVES_MAX + 1];
    unsigned slots;        /* virtio devices so far */
    unsigned busy_devices; /* at the end: not yet quiet */

    struct vcpu_callbacks callbacks;
    struct mailbox *ends; /* from vCPU threads: why one has stopped */
    ev_signal signals[3];
    char end_message[256]; /* why it ended; empty while it runs */
};

/* ---- How it ends
 * ---------------------------------------------------------------------------------------------- */

/* The first reason counts; the message is kept for after the console's last output. */
static void end_with(struct machine *machine, enum machine_status status, const char *message)
{
    if (machine->end_message[0])
        return;
    snprintf(machine->end_message, sizeof(machine->end_message), "%s", message);
    loop_stop(machine->loop, status);
}

static void shutdown_requested(void *context, enum shutdown_cause cause)
{
    end_with(context, MACHINE_ENDED,
             cause == MACHINE_POWEROFF ? "the guest powered off" : "the guest rebooted");
}

/* vCPU threads. */
static void guest_access(void *context, struct vcpu_access *access)
{
    struct machine *machine = context;
    bus_access(machine->bus, access);
}

static void vcpu_ended(void *context, unsigned index, enum vcpu_end why, const char *reason)
{
    struct machine *machine = context;
    const struct message message = {.address = index, .kind = why, .payload = reason ? strdup(reason) : NULL};
    mailbox_post(machine->ends, &message);
}

static void deliver_end(void *owner, const struct message *message)
{
    struct machine *machine = owner;
    CLEANUP_FREE char *reason = message->payload;
    bus_drain(machine->bus);
    if (message->kind != VCPU_END_ERROR && strstr(machine->command_line, "reboot=t"))
        end_with(machine, MACHINE_ENDED, "the guest rebooted");
    else
        end_with(machine, MACHINE_CRASHED, reason ? reason : "the guest crashed (a triple fault)");
}

static void signalled(struct ev_loop *ev, ev_signal *watcher, int events)
{
    (void)ev;
    (void)events;
    char message[64];
    snprintf(message, sizeof(message), "ended by signal %d (%s)", watcher->signum,
             strsignal(watcher->signum));
    end_with(watcher->data, MACHINE_SIGNAL + watcher->signum, message);
}

static void device_quiet(void *context)
{
    struct machine *machine = context;
    if (--machine->busy_devices == 0)
        loop_stop(machine->loop, 0);
}

/* What the guest wrote to its disks outlasts the process. */
static void write_back(struct machine *machine)
{
    machine->busy_devices = machine->slots;
    for (unsigned i = 0; i < machine->slots; i++)
        if (virtio_quiesce(machine->devices[i], device_quiet, machine) < 0)
            device_quiet(machine); /* it is quiet, or becomes so, for another reason */
    /* With a broken ring, what ended before is kept all the same. */
    while (machine->busy_devices && loop_run(machine->loop) >= 0)
        ;
    for (unsigned i = 0; i < machine->slots; i++)
        virtio_write_back(machine->devices[i]);
}

/* After the loop: what the guest wrote, then the guest's last message, then ours. */
static int say_the_end(struct machine *machine, int status)
{
    write_back(machine);
    uart_close(machine->uart);
    terminal_restore();
    if (status < 0) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return MACHINE_HOST_FAILED;
    }
    if (uart_saw_panic(machine->uart) && status < MACHINE_SIGNAL) {
        status = MACHINE_PANICKED;
        snprintf(machine->end_message, sizeof(machine->end_message), "the guest's kernel panicked");
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)(now.tv_sec - machine->started.tv_sec) +
                     (double)(now.tv_nsec - machine->started.tv_nsec) / 1e9;
    fprintf(stderr, "volt-vmm: %s after %.2f s\n", machine->end_message, seconds);
    uint64_t dropped = uart_dropped(machine->uart);
    if (dropped)
        fprintf(stderr, "volt-vmm: the console's reader was too slow: %llu characters are lost\n",
                (unsigned long long)dropped);
    return status;
}

static int watch_signals(struct machine *machine)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct ev_loop *ev = NULL;
    int r = loop_libev(machine->loop, &ev);
    if (r < 0)
        return r;
    signal(SIGPIPE, SIG_IGN); /* a console that nobody reads any more is an error of its write */
    signal(SIGXFSZ, SIG_IGN); /* so is a disk that may not become so long (ulimit -f) */
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        ev_signal_init(&machine->signals[i], signalled, numbers[i]);
        machine->signals[i].data = machine;
        ev_signal_start(ev, &machine->signals[i]);
    }
    return 0;
}

/* ---- What was typed
 * ------------------------------------------------------------------------------------------- */

static size_t filter_input(void *context, uint8_t *bytes, size_t length)
{
    struct machine *machine = context;
    enum terminal_command command;
    size_t kept = terminal_filter(bytes, length, &command);
    switch (command) {
    case TERMINAL_END: end_with(machine, MACHINE_ENDED, "ended by Ctrl-A x"); break;
    case TERMINAL_POWER_BUTTON: legacy_power_button(machine->legacy); break;
    case TERMINAL_HELP: fputs(terminal_help, stderr); break;
    case TERMINAL_NOTHING: break;
    }
    return kept;
}

/* ---- Putting it together
 * -------------------------------------------------------------------------------------- */

static int open_input(const char *path, const char *option, int *ret_fd)
{
    if (!path)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s %s", option, path);
    *ret_fd = fd;
    return 0;
}

/* Everything that a wrong configuration can name is opened before the host is asked for anything. */
static int open_files(struct machine *machine)
{
    const struct config *config = machine->config;
    int r = open_input(config->kernel, "--kernel", &machine->kernel_fd);
    if (r == 0)
        r = open_input(config->initrd, "--initrd", &machine->initrd_fd);
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
    return guest_mem_new(machine->config->memory, machine->config->pages, &machine->mem);
}

static int make_vm(struct machine *machine)
{
    const struct vm_reg_pages reg_pages = {
        .first = layout_virtio_reg_page_gpa(0),
        .stride = LAYOUT_VIRTIO_STRIDE,
        .count = machine->config->drive_count + 1, /* the virtio devices to come */
    };
    return vm_new(&machine->mem, &reg_pages, machine->config->cpus, &machine->vm);
}

static int make_loop(struct machine *machine)
{
    int r = loop_new(LOOP_ENTRIES, &machine->loop);
    if (r == 0)
        r = bus_new(machine->loop, &machine->bus);
    if (r == 0)
        r = mailbox_new(machine->loop, deliver_end, machine, &machine->ends);
    if (r == 0)
        r = irq_lines_new(&machine->vm, &machine->lines);
    if (r == 0)
        r = watch_signals(machine);
    return r;
}

/*
 * A description of its own for a terminal or pipe, so that it can be non-blocking without changing it for the
 * others who have it: a ring op on a blocking one goes to a worker thread of the kernel's. Anything else, or
 * one that may not be opened again, is used as it is.
 */
static int own_description(int fd, int mode)
{
    struct stat status;
    char path[32];
    if (fstat(fd, &status) < 0 || !(S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
        return fd;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own < 0 ? fd : own;
}

static int add_console(struct machine *machine)
{
    const struct config *config = machine->config;
    struct uart_config uart = {.input_fd = -1, .output_fd = machine->serial_fd, .context = machine};
    if (config->serial == SERIAL_STDIO) {
        uart.input_fd = own_description(STDIN_FILENO, O_RDONLY);
        uart.output_fd = own_description(STDOUT_FILENO, O_WRONLY);
        if (isatty(STDIN_FILENO))
            uart.filter_input = filter_input;
    }
    int r = uart_new(machine->loop, &uart, &machine->uart);
    if (r == 0)
        r = uart_attach(machine->uart, machine->bus, machine->lines);
    return r;
}

static int add_legacy(struct machine *machine)
{
    const struct legacy_config legacy = {.shutdown = shutdown_requested, .context = machine};
    int r = legacy_new(&legacy, &machine->legacy);
    if (r == 0)
        r = legacy_attach(machine->legacy, machine->bus, machine->lines);
    return r;
}

static int add_virtio(struct machine *machine, struct virtio_device *device)
{
    machine->devices[machine->slots] = device;
    return virtio_attach(device, machine->slots++, machine->bus, &machine->vm, machine->lines);
}

static int open_disk(struct machine *machine, const struct drive_config *drive, struct disk **ret_disk)
{
    const char *store = machine->config->cas_store ? machine->config->cas_store : getenv("STELLARIUM_STORE");
    const struct disk_options options = {
        .read_only = drive->read_only, .direct = drive->direct, .sector = drive->sector};
    if (disk_cas_is(drive->path))
        return disk_cas_open(store, drive->path, &options, ret_disk);
    return disk_file_open(drive->path, &options, ret_disk);
}

static int add_disks(struct machine *machine)
{
    for (unsigned i = 0; i < machine->config->drive_count; i++) {
        const struct drive_config *drive = &machine->config->drives[i];
        struct disk *disk = NULL;
        struct virtio_device *device = NULL;
        char label[24];
        snprintf(label, sizeof(label), "disk %u", i);
        int r = open_disk(machine, drive, &disk);
        if (r == 0)
            r = virtio_blk_new(machine->loop, disk, label, &device);
        if (r == 0)
            r = add_virtio(machine, device);
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_entropy(struct machine *machine)
{
    struct virtio_device *device = NULL;
    int r = virtio_rng_new(machine->loop, &device);
    return r < 0 ? r : add_virtio(machine, device);
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
    struct boot_entry entry;
    int r = boot_load(&boot, &machine->mem, &entry);
    if (r == 0)
        r = vm_set_pvh_entry(&machine->vm, entry.kernel_entry, entry.start_info);
    cleanup_fd(&machine->kernel_fd);
    cleanup_fd(&machine->initrd_fd);
    return r;
}

/* The steps from a configuration to a machine that can run, and whose fault it is when one fails. */
static enum machine_status assemble(struct machine *machine)
{
    static const struct {
        int (*step)(struct machine *machine);
        enum machine_status blame;
    } steps[] = {
        {open_files, MACHINE_BAD_CONFIG},   {make_memory, MACHINE_HOST_FAILED},
        {make_vm, MACHINE_HOST_FAILED},     {make_loop, MACHINE_HOST_FAILED},
        {add_console, MACHINE_HOST_FAILED}, {add_legacy, MACHINE_HOST_FAILED},
        {add_disks, MACHINE_BAD_CONFIG},    {add_entropy, MACHINE_HOST_FAILED},
        {load_guest, MACHINE_BAD_CONFIG},
    };
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++)
        if (steps[i].step(machine) < 0)
            return steps[i].blame;
    return MACHINE_ENDED;
}

int machine_run(const struct config *config)
{
    static struct machine machine; /* lives as long as the vCPU threads: to the end of the process */
    machine = (struct machine){.config = config, .kernel_fd = -1, .initrd_fd = -1, .serial_fd = -1};
    clock_gettime(CLOCK_MONOTONIC, &machine.started);
    machine.callbacks =
        (struct vcpu_callbacks){.context = &machine, .access = guest_access, .ended = vcpu_ended};

    enum machine_status status = assemble(&machine);
    if (status != MACHINE_ENDED) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return status;
    }
    if (config->serial == SERIAL_STDIO)
        terminal_raw();
    int r = vm_start(&machine.vm, &machine.callbacks);
    if (r == 0) {
        vm_resume(&machine.vm);
        r = loop_run(machine.loop);
    }
    return say_the_end(&machine, r);
}
