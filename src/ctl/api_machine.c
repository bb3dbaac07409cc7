/* The machine: what it is made of, its start, pause and end. */
#include "ctl/api.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Firecracker has 32; ours is what 8-bit APIC ids allow. */
#define FIRECRACKER_CPUS_MAX 32u
#define CPUS_MAX             254u

/* ---- machine-config ---- */

static void take(struct json_number *to, const struct json_number *from)
{
    if (from->present)
        *to = *from;
}

static int update_machine(struct api_call *call, const struct keys_machine *change)
{
    struct ctl *ctl = call->ctl;
    struct keys_machine wanted = *ctl->keys.machine_config;
    uint64_t most = ctl->config.firecracker ? FIRECRACKER_CPUS_MAX : CPUS_MAX;
    ctl->boot_path = true;
    take(&wanted.vcpu_count, &change->vcpu_count);
    take(&wanted.mem_size_mib, &change->mem_size_mib);
    take(&wanted.smt, &change->smt);
    take(&wanted.cpu_template, &change->cpu_template);
    take(&wanted.track_dirty_pages, &change->track_dirty_pages);
    take(&wanted.huge_pages, &change->huge_pages);
    uint64_t cpus = wanted.vcpu_count.value;
    if (cpus == 0 || cpus > most || (wanted.smt.value && cpus > 1 && cpus % 2 == 1))
        return api_fault(
            call, -EINVAL,
            "Machine config error: The number of vCPUs must be greater than 0, less than %llu and must be 1 "
            "or an even number if SMT is enabled.",
            (unsigned long long)most);
    uint64_t multiple = wanted.huge_pages.value == KEYS_HUGE_NONE ? 1 : 2;
    if (wanted.mem_size_mib.value == 0 || wanted.mem_size_mib.value % multiple)
        return api_fault(
            call, -EINVAL,
            "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured "
            "page size.");
    if (wanted.cpu_template.present && wanted.cpu_template.value == KEYS_TEMPLATE_NONE)
        wanted.cpu_template = (struct json_number){0};
    *ctl->keys.machine_config = wanted;
    return 0;
}

static void log_deprecated(const struct api_call *call, const char *method)
{
    if (call->deprecated)
        logger_say(&call->ctl->logger, LOGGER_WARN, api_log_name(call->ctl),
                   "%s /machine-config: cpu_template field is deprecated.", method);
}

int api_put_machine_config(struct api_call *call, void *object)
{
    struct keys_machine *wanted = object;
    int r = update_machine(call, wanted);
    log_deprecated(call, "PUT");
    return r;
}

int api_patch_machine_config(struct api_call *call, void *object)
{
    const struct keys_machine *change = object;
    if (!change->vcpu_count.present && !change->mem_size_mib.present && !change->smt.present &&
        !change->cpu_template.present && !change->track_dirty_pages.present && !change->huge_pages.present)
        return api_fault(call, -EINVAL, "Empty PATCH request.");
    int r = update_machine(call, change);
    log_deprecated(call, "PATCH");
    return r;
}

/* ---- boot-source, cpu-config ---- */

/* 0, or the -errno of opening `path` for reading. */
static int try_open(const char *path)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : 0;
}

int api_put_boot_source(struct api_call *call, void *object)
{
    struct keys_boot_source *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    int r = try_open(wanted->kernel_image_path);
    if (r < 0)
        return api_fault(call, -EINVAL, "Boot source error: The kernel file cannot be opened: %s",
                         api_os_error(r));
    r = wanted->initrd_path ? try_open(wanted->initrd_path) : 0;
    if (r < 0)
        return api_fault(call, -EINVAL,
                         "Boot source error: The initrd file cannot be opened due to invalid path or invalid "
                         "permissions. %s",
                         api_os_error(r));
    if (wanted->boot_args && strlen(wanted->boot_args) >= 2048)
        return api_fault(
            call, -EINVAL,
            "Boot source error: The kernel command line is invalid: Command line string overflowed");
    if (!ctl->keys.boot_source)
        ctl->keys.boot_source = calloc(1, sizeof(*wanted));
    if (!ctl->keys.boot_source)
        return api_fault(call, -ENOMEM, "out of memory");
    json_free(&keys_boot_source_struct, ctl->keys.boot_source);
    *ctl->keys.boot_source = *wanted;
    *wanted = (struct keys_boot_source){0};
    return 0;
}

int api_put_cpu_config(struct api_call *call, void *object)
{
    const struct keys_cpu *wanted = object;
    if (wanted->kvm_capabilities.count || wanted->cpuid_modifiers.count || wanted->msr_modifiers.count)
        return api_fault(call, -EINVAL, "The requested operation is not supported: CPU templates.");
    return 0;
}

/* ---- Pause and resumption ---- */

/* Has the request wait for the end of a pause. */
static int wait_for_pause(struct api_call *call, bool resume)
{
    struct api_pause *pause = calloc(1, sizeof(*pause));
    if (!pause)
        return api_fault(call, -ENOMEM, "out of memory");
    *pause = (struct api_pause){
        .request = call->request, .next = call->ctl->pausing, .begin_us = api_now_us(), .resume = resume};
    call->ctl->pausing = pause;
    call->later = true;
    return 0;
}

int api_patch_vm(struct api_call *call, void *object)
{
    const struct keys_vm *wanted = object;
    struct machine *machine = call->ctl->machine;
    bool resume = wanted->state.value == KEYS_RESUMED;
    enum machine_state state = machine_state(machine);
    int r = 0;
    if (state == MACHINE_PAUSING || (state == MACHINE_RUNNING && !resume))
        r = wait_for_pause(call, resume);
    if (r == 0 && state == MACHINE_RUNNING && !resume)
        machine_pause(machine);
    if (state == MACHINE_PAUSED && resume) {
        uint64_t begin = api_now_us();
        machine_resume(machine);
        call->ctl->metrics.resume_us = api_now_us() - begin;
    }
    return r;
}

bool api_is_busy(const struct ctl *ctl)
{
    return ctl->saving || ctl->resetting || ctl->forking;
}

/* Answers who waited for the pause, the first first. */
static void pause_ended(struct ctl *ctl, bool paused)
{
    struct api_pause *reversed = NULL;
    bool resume = false;
    while (ctl->pausing) {
        struct api_pause *pause = ctl->pausing;
        ctl->pausing = pause->next;
        pause->next = reversed;
        reversed = pause;
    }
    while (reversed) {
        struct api_pause *pause = reversed;
        struct api_call call = {.ctl = ctl, .request = pause->request};
        reversed = pause->next;
        resume = pause->resume;
        if (!pause->resume)
            ctl->metrics.pause_us = api_now_us() - pause->begin_us;
        free(pause);
        if (paused)
            api_answer_success(&call);
        else
            api_answer_late_fault(ctl, call.request, "The microVM is ending.");
    }
    if (paused && resume && machine_state(ctl->machine) == MACHINE_PAUSED)
        machine_resume(ctl->machine); /* the last word was to resume */
}

/* A snapshot of a machine that ran has it go on, unless somebody else wants it to be paused. */
void api_state_changed(struct ctl *ctl, enum machine_state state)
{
    static const char *const words[] = {"not-started", "running", "pausing", "paused", "ending"};
    CLEANUP_TEXT struct text more = {0};
    if (state == MACHINE_ENDING) {
        text_puts(&more, ",\"reason\":");
        const char *reason = machine_end_message(ctl->machine);
        text_json_string(&more, reason, strlen(reason));
    }
    events_send(&ctl->events, words[state], more.at ? more.at : "");
    if (state == MACHINE_ENDING) {
        api_saving_ended(ctl);
        api_reset_ended(ctl);
        api_fork_ended(ctl);
        api_drives_ended(ctl);
    }
    if (state != MACHINE_PAUSED && state != MACHINE_ENDING)
        return;
    if (state == MACHINE_PAUSED && (api_reset_paused(ctl) || api_fork_paused(ctl)) &&
        machine_state(ctl->machine) != MACHINE_PAUSED)
        return; /* it goes on already, or has ended of it */
    bool resume = state == MACHINE_PAUSED && api_saving_paused(ctl) && !ctl->pausing;
    pause_ended(ctl, state == MACHINE_PAUSED);
    if (!resume)
        return;
    machine_resume(ctl->machine);
    api_saving_resumed(ctl);
}

void api_signalled(void *context, int number)
{
    struct ctl *ctl = context;
    char message[80];
    metrics_signal(&ctl->metrics, number);
    if (number == SIGPIPE) { /* who writes sees it as an error */
        logger_say(&ctl->logger, LOGGER_ERROR, "main", "Received signal %d, code 0.", number);
        return;
    }
    snprintf(message, sizeof(message), "Shutting down VM after intercepting signal %d, code 0.", number);
    logger_say(&ctl->logger, LOGGER_ERROR, "main", "%s", message);
    machine_end(ctl->machine, MACHINE_SIGNAL + number, message);
}

/* ---- Actions ---- */

int api_put_action(struct api_call *call, void *object)
{
    const struct keys_action *action = object;
    struct ctl *ctl = call->ctl;
    bool started = machine_state(ctl->machine) != MACHINE_NOT_STARTED;
    if (action->action_type.value == KEYS_INSTANCE_START)
        return started ? api_not_after_start(call) : api_start(call);
    if (!started)
        return api_not_before_start(call);
    if (action->action_type.value == KEYS_FLUSH_METRICS) {
        int r = api_write_metrics(ctl);
        return r < 0 ? api_fault(call, r, "Internal VMM error: Metrics error: Failed to write metrics: %s",
                                 api_os_error(r))
                     : 0;
    }
    /* There is no keyboard here: probing one costs every boot. The guest is asked to shut down, as it is
     * meant. */
    machine_power_button(ctl->machine);
    return 0;
}

int api_put_power_button(struct api_call *call, void *object)
{
    (void)object;
    machine_power_button(call->ctl->machine);
    return 0;
}

int api_put_shutdown(struct api_call *call, void *object)
{
    const struct keys_shutdown *wanted = object;
    struct ctl *ctl = call->ctl;
    uint64_t milliseconds = wanted ? wanted->timeout_ms.value : 30000;
    if (machine_state(ctl->machine) != MACHINE_RUNNING)
        return api_fault(call, -EINVAL, "A paused VM cannot shut down: resume it.");
    machine_power_button(ctl->machine);
    if (!ctl->shutdown_timer.op.in_flight) /* the first deadline holds */
        loop_timer_start(ctl->loop, &ctl->shutdown_timer, MAX(milliseconds, 1) * 1000000);
    return 0;
}
