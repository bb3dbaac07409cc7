#include "machine_internal.h"

#include "base/log.h"
#include "confine.h"
#include "dev/disk_opener.h"
#include "dev/virtio_net.h"
#include "terminal.h"

#include <linux/virtio_ids.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* What a message from a vCPU thread is, beside enum vcpu_end. */
#define NEWS_PARKED 0x100u

static void set_state(struct machine *machine, enum machine_state state)
{
    machine->state = state;
    if (machine->observer.changed)
        machine->observer.changed(machine->observer.context, state);
}

enum machine_state machine_state(const struct machine *machine)
{
    return machine->state;
}

/* ---- How it ends ---- */

void machine_end(struct machine *machine, enum machine_status status, const char *message)
{
    if (machine->end_message[0])
        return;
    snprintf(machine->end_message, sizeof(machine->end_message), "%s", message);
    if (machine->state != MACHINE_PAUSING) /* whose end comes first */
        set_state(machine, MACHINE_ENDING);
    loop_stop(machine->loop, status);
}

const char *machine_end_message(const struct machine *machine)
{
    return machine->end_message;
}

static void shutdown_requested(void *context, enum shutdown_cause cause)
{
    struct machine *machine = context;
    machine->powered_off = cause == MACHINE_POWEROFF;
    machine_end(machine, MACHINE_ENDED,
                machine->powered_off ? "the guest powered off" : "the guest rebooted");
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
    mailbox_post(machine->news, &message);
}

static void vcpu_parked(void *context, unsigned index)
{
    struct machine *machine = context;
    const struct message message = {.address = index, .kind = NEWS_PARKED};
    mailbox_post(machine->news, &message);
}

static void vcpu_started(void *context, unsigned index)
{
    (void)context;
    confine_vcpu(index);
}

static void all_parked(struct machine *machine);

static void deliver_news(void *owner, const struct message *message)
{
    struct machine *machine = owner;
    if (message->kind == NEWS_PARKED) {
        if (++machine->parked == machine->vm.cpu_count)
            all_parked(machine);
        return;
    }
    CLEANUP_FREE char *reason = message->payload;
    bus_drain(machine->bus);
    if (message->kind != VCPU_END_ERROR && strstr(machine->command_line, "reboot=t"))
        machine_end(machine, MACHINE_ENDED, "the guest rebooted");
    else
        machine_end(machine, MACHINE_CRASHED, reason ? reason : "the guest crashed (a triple fault)");
}

static void signalled(struct ev_loop *ev, ev_signal *watcher, int events)
{
    (void)ev;
    (void)events;
    struct machine *machine = watcher->data;
    char message[64];
    if (machine->observer.signalled)
        machine->observer.signalled(machine->observer.context, watcher->signum);
    snprintf(message, sizeof(message), "ended by signal %d (%s)", watcher->signum,
             strsignal(watcher->signum));
    machine_end(machine, MACHINE_SIGNAL + watcher->signum, message);
}

static void device_quiet_at_end(void *context)
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
        if (virtio_quiesce(machine->devices[i], device_quiet_at_end, machine) < 0)
            device_quiet_at_end(machine); /* it is quiet: the machine was paused */
    /* With a broken ring, what ended before is kept all the same. */
    while (machine->busy_devices && loop_run(machine->loop) >= 0)
        ;
    for (unsigned i = 0; i < machine->slots; i++)
        virtio_write_back(machine->devices[i]);
}

static void console_closed(void *context)
{
    struct machine *machine = context;
    machine->console_closed = true;
    loop_stop(machine->loop, 0);
}

static void say_what_console_lost(struct machine *machine)
{
    struct console_losses losses;
    console_losses(machine->console, &losses);
    if (losses.slow)
        say("the console's reader was too slow: %llu characters are lost", (unsigned long long)losses.slow);
    if (losses.failed && losses.error == -EPIPE)
        say("the console's reader went away: %llu characters are lost", (unsigned long long)losses.failed);
    else if (losses.failed)
        say("the console could not be written (%s): %llu characters are lost", strerror(-losses.error),
            (unsigned long long)losses.failed);
}

uint64_t machine_age(const struct machine *machine)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (!machine->started.tv_sec)
        return 0;
    return (uint64_t)((now.tv_sec - machine->started.tv_sec) * 1000000000 + now.tv_nsec -
                      machine->started.tv_nsec);
}

int machine_finish(struct machine *machine, int status)
{
    while (machine->state == MACHINE_PAUSING && loop_run(machine->loop) >= 0)
        ;
    bool was_started = machine->console != NULL;
    if (was_started) {
        write_back(machine);
        console_close(machine->console, console_closed, machine);
        while (!machine->console_closed && loop_run(machine->loop) >= 0)
            ;
        terminal_restore();
    }
    if (status < 0) {
        say("%s", fail_text());
        return MACHINE_HOST_FAILED;
    }
    if (was_started && !machine->powered_off && console_saw_panic(machine->console) &&
        status < MACHINE_SIGNAL) {
        status = MACHINE_PANICKED;
        snprintf(machine->end_message, sizeof(machine->end_message), "the guest's kernel panicked");
    }
    say("%s after %.2f s", machine->end_message, (double)machine_age(machine) / 1e9);
    if (was_started)
        say_what_console_lost(machine);
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
        struct sigaction was;
        /* Who started us said that it is not to end us: nohup does, and a shell that starts a job with
         * "&". */
        if (sigaction(numbers[i], NULL, &was) == 0 && was.sa_handler == SIG_IGN)
            continue;
        ev_signal_init(&machine->signals[i], signalled, numbers[i]);
        machine->signals[i].data = machine;
        ev_signal_start(ev, &machine->signals[i]);
    }
    return 0;
}

/* ---- Counting ---- */

const struct virtio_device *machine_device(const struct machine *machine, unsigned index)
{
    return index < machine->slots ? machine->devices[index] : NULL;
}

bool machine_count_vcpu(const struct machine *machine, unsigned index, struct vcpu_counts *ret_counts)
{
    if (index >= machine->vm.cpu_count)
        return false;
    vm_count(&machine->vm, index, ret_counts);
    return true;
}

uint64_t machine_console_dropped(const struct machine *machine)
{
    struct console_losses losses = {0};
    if (machine->console)
        console_losses(machine->console, &losses);
    return losses.slow + losses.failed;
}

/* ---- Pausing ---- */

void machine_pause(struct machine *machine)
{
    CHECK(machine->state == MACHINE_RUNNING);
    machine->parked = 0;
    set_state(machine, MACHINE_PAUSING);
    vm_pause(&machine->vm);
}

static void device_quiet(void *context)
{
    struct machine *machine = context;
    if (--machine->busy_devices > 0)
        return;
    set_state(machine, MACHINE_PAUSED);
    if (!machine->end_message[0])
        return;
    set_state(machine, MACHINE_ENDING); /* something ended it meanwhile */
    loop_stop(machine->loop, 0);        /* of machine_finish() */
}

/* The guest's last writes are taken in, then its devices come to rest. */
static void all_parked(struct machine *machine)
{
    bus_drain(machine->bus);
    machine->busy_devices = machine->slots + 2; /* one for this loop, so that it is not done before its end */
    console_quiesce(machine->console, device_quiet, machine);
    for (unsigned i = 0; i < machine->slots; i++)
        if (virtio_quiesce(machine->devices[i], device_quiet, machine) < 0)
            device_quiet(machine);
    device_quiet(machine);
}

void machine_resume(struct machine *machine)
{
    CHECK(machine->state == MACHINE_PAUSED);
    for (unsigned i = 0; i < machine->slots; i++)
        virtio_resume(machine->devices[i]);
    console_resume(machine->console);
    vm_resume(&machine->vm);
    set_state(machine, MACHINE_RUNNING);
}

void machine_limit_net(struct machine *machine, unsigned index, const struct rate_limiter_config *rx,
                       const struct rate_limiter_config *tx)
{
    for (unsigned i = 0; i < machine->slots; i++)
        if (machine->devices[i]->ops->device_id == VIRTIO_ID_NET && index-- == 0)
            virtio_net_limit(machine->devices[i], rx, tx);
}

struct virtio_device *machine_balloon(const struct machine *machine)
{
    for (unsigned i = 0; i < machine->slots; i++)
        if (machine->devices[i]->ops->device_id == VIRTIO_ID_BALLOON)
            return machine->devices[i];
    return NULL;
}

void machine_power_button(struct machine *machine)
{
    acpi_pm_power_button(&machine->acpi_pm);
}

/* ---- What was typed ---- */

static size_t filter_input(void *context, uint8_t *bytes, size_t length)
{
    struct machine *machine = context;
    enum terminal_command command;
    size_t kept = terminal_filter(bytes, length, &command);
    switch (command) {
    case TERMINAL_END: machine_end(machine, MACHINE_ENDED, "ended by Ctrl-A x"); break;
    case TERMINAL_POWER_BUTTON: acpi_pm_power_button(&machine->acpi_pm); break;
    case TERMINAL_HELP: say_text(terminal_help); break;
    case TERMINAL_NOTHING: break;
    }
    return kept;
}

int machine_start(struct machine *machine, const struct config *config, enum machine_status *ret_blame)
{
    CHECK(machine->state == MACHINE_NOT_STARTED);
    *ret_blame = MACHINE_HOST_FAILED;
    if (machine->broken)
        return fail(-ENOTRECOVERABLE, "the host failed at the start before this one: end this process");
    machine->config = config;
    clock_gettime(CLOCK_MONOTONIC, &machine->started);
    machine->callbacks.kicks_by_timer = config->copy;
    int r = machine_assemble(machine, ret_blame);
    if (r == 0 && config->serial == SERIAL_STDIO)
        terminal_raw();
    if (r == 0) {
        r = config->copy ? 0 : confine(config); /* it is already */
        if (r == 0)
            r = vm_start(&machine->vm, &machine->callbacks);
        if (r == 0 && config->control_socket && !config->copy)
            r = disk_opener_new(machine->loop, confine_opener, &machine->opener);
        machine->broken = r < 0;
    }
    if (r < 0) {
        machine->started = (struct timespec){0};
        return r;
    }
    if (!config->copy)
        confine_loop();
    if (config->snapshot) {
        set_state(machine, MACHINE_PAUSED);
        if (!config->stay_paused)
            machine_resume(machine);
        return 0;
    }
    vm_resume(&machine->vm);
    set_state(machine, MACHINE_RUNNING);
    return 0;
}

int machine_new(struct loop *loop, const struct machine_observer *observer, struct machine **ret_machine)
{
    static struct machine machine; /* lives as long as the vCPU threads: to the end of the process */
    machine = (struct machine){
        .observer = *observer, .loop = loop, .kvm_fd = -1, .kernel_fd = -1, .initrd_fd = -1, .serial_fd = -1};
    machine.callbacks = (struct vcpu_callbacks){.context = &machine,
                                                .started = vcpu_started,
                                                .access = guest_access,
                                                .ended = vcpu_ended,
                                                .parked = vcpu_parked};
    machine.shutdown = (struct shutdown_handler){.request = shutdown_requested, .context = &machine};
    machine.deliver_news = deliver_news;
    machine.filter_input = filter_input;
    int r = watch_signals(&machine);
    if (r == 0)
        *ret_machine = &machine;
    return r;
}
