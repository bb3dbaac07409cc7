/* From what was configured to a machine that runs. */
#include "ctl/api.h"

#include <stdio.h>
#include <string.h>

#define METRICS_NS UINT64_C(60000000000) /* between two JSON lines, as Firecracker has it */

/* What the command line sets and requests cannot. */
static int copy_base(const struct config *base, struct config *built)
{
    config_init(built);
    built->pages = base->pages;
    built->serial = base->serial;
    built->boot_timer = base->boot_timer;
    built->sandbox = base->sandbox;
    int r = api_set_text(&built->append, base->append);
    if (r == 0)
        r = api_set_text(&built->cas_store, base->cas_store);
    if (r == 0)
        r = api_set_text(&built->serial_path, base->serial_path);
    return r;
}

/* The cards of the command line come first. */
static int build_nets(const struct ctl *ctl, const struct config *base, struct config *built)
{
    memcpy(built->nets, base->nets, sizeof(built->nets));
    built->net_count = base->net_count;
    int r = base->name ? api_set_text(&built->name, base->name) : 0;
    return r < 0 ? r : api_build_nets(ctl, built);
}

static int build_drives(const struct ctl *ctl, struct config *built)
{
    const struct keys_drive *drives = ctl->keys.drives.items;
    for (size_t i = 0; i < ctl->keys.drives.count; i++) {
        bool root = drives[i].is_root_device.value;
        struct drive_config drive = {0};
        if (drives[i].given)
            drive = *drives[i].given;
        drive.id = drives[i].drive_id;
        drive.path = drives[i].path_on_host;
        drive.read_only = drives[i].is_read_only.value;
        api_take_limits(drives[i].rate_limiter, &drive.limits);
        int r = config_add_drive(built, &drive, root);
        if (r == 0 && root && drives[i].partuuid) {
            free(built->append);
            if (asprintf(&built->append, "root=PARTUUID=%s %s", drives[i].partuuid,
                         drive.read_only ? "ro" : "rw") < 0) {
                built->append = NULL;
                r = fail(-ENOMEM, "no memory for the configuration");
            }
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int build(struct ctl *ctl, const struct config *base)
{
    struct config *built = &ctl->built;
    const struct keys_boot_source *boot = ctl->keys.boot_source;
    const struct keys_machine *machine = ctl->keys.machine_config;
    config_free(built);
    int r = copy_base(base, built);
    if (r == 0)
        r = api_set_text(&built->kernel, boot->kernel_image_path);
    if (r == 0)
        r = api_set_text(&built->initrd, boot->initrd_path);
    if (r == 0)
        r = api_set_text(&built->cmdline, boot->boot_args);
    if (r == 0)
        r = build_drives(ctl, built);
    if (r == 0)
        r = build_nets(ctl, base, built);
    if (r == 0)
        r = api_build_vsock(ctl, built);
    api_build_balloon(ctl, built);
    built->control_socket = ctl->socket.path;
    built->same_folders = ctl->config.firecracker;
    if (r == 0 && ctl->serial.serial_out_path) {
        built->serial = SERIAL_FILE;
        r = api_set_text(&built->serial_path, ctl->serial.serial_out_path);
    }
    built->cpus = (unsigned)machine->vcpu_count.value;
    if (mul_overflows(machine->mem_size_mib.value, MIB, &built->memory))
        built->memory = UINT64_MAX;
    else if (built->memory % GUEST_MEM_ALIGN)
        built->memory += MIB; /* Firecracker takes odd numbers; memory here is in pages of 2 MiB */
    if (machine->huge_pages.value == KEYS_HUGE_2M)
        built->pages = GUEST_PAGES_HUGETLB;
    else if (machine->huge_pages.value == KEYS_HUGE_TRANSPARENT)
        built->pages = GUEST_PAGES_THP_ON;
    return r;
}

static void metrics_due(struct loop_op *op, int result, unsigned flags)
{
    (void)result;
    (void)flags;
    struct ctl *ctl = container_of(op, struct ctl, metrics_timer.op);
    (void)api_write_metrics(ctl); /* failures are counted */
    loop_timer_start(ctl->loop, &ctl->metrics_timer, METRICS_NS);
}

static void shutdown_due(struct loop_op *op, int result, unsigned flags)
{
    (void)result;
    (void)flags;
    struct ctl *ctl = container_of(op, struct ctl, shutdown_timer.op);
    machine_end(ctl->machine, MACHINE_ENDED, "the guest did not shut down in time");
}

int api_start(struct api_call *call)
{
    struct ctl *ctl = call->ctl;
    enum machine_status blame;
    if (!ctl->keys.boot_source)
        return api_fault(call, -EINVAL,
                         "Start microvm error: Cannot start microvm without kernel configuration.");
    if (ctl->keys.machine_config->cpu_template.present)
        return api_fault(
            call, -EINVAL,
            "Start microvm error: Failed to get CPU template: static CPU templates are not supported.");
    int r = build(ctl, ctl->base);
    if (r == 0 && ctl->built.memory > GUEST_MEM_MAX)
        r = fail(-ENOMEM, "more memory than a guest can have");
    ctl->start_cpu_us = metrics_cpu_us();
    ctl->unlisted_nets = ctl->base->net_count;
    if (r == 0)
        r = machine_start(ctl->machine, &ctl->built, &blame);
    if (r == -ENOMEM)
        return api_fault(call, r,
                         "Start microvm error: Invalid Memory Configuration: Cannot create mmap region: %s",
                         api_os_error(ENOMEM));
    if (r < 0)
        return api_fault(call, r, "Start microvm error: %s", fail_text());
    api_started(ctl);
    return 0;
}

void api_started(struct ctl *ctl)
{
    (void)api_write_metrics(ctl);
    if (ctl->metrics.fd >= 0)
        loop_timer_start(ctl->loop, &ctl->metrics_timer, METRICS_NS);
}

void api_init_timers(struct ctl *ctl)
{
    ctl->metrics_timer.op.done = metrics_due;
    ctl->shutdown_timer.op.done = shutdown_due;
}
