/* Snapshots: saving a machine into files, and going on from them. */
#include "ctl/api.h"

#include "base/log.h"
#include "snapshot.h"
#include "snapshot_config.h"
#include "snapshot_store.h"

#include <stdio.h>
#include <string.h>

/* ---- Saving ---- */

/* One that was asked for. There is one at a time. */
struct api_saving {
    struct http_request *request;
    char *state_path, *memory_path;
    bool live;   /* the machine ran: it goes on as soon as its state is taken */
    bool resume; /* it goes on when all is written */
    bool diff;
    bool begun;
};

/* Answers the request, 0 or with fail_text(), and forgets it. */
static void end_saving(struct ctl *ctl, int result)
{
    struct api_saving *saving = ctl->saving;
    struct api_call call = {.ctl = ctl, .request = saving->request};
    uint64_t *last = saving->diff ? &ctl->metrics.save_diff_us : &ctl->metrics.save_full_us;
    ctl->saving = NULL;
    *last = api_now_us() - ctl->saving_begin_us;
    if (result == 0)
        api_answer_success(&call);
    else
        api_answer_late_fault(ctl, saving->request, "Create snapshot error: %s", fail_text());
    free(saving->state_path);
    free(saving->memory_path);
    free(saving);
}

static void saved(void *context, int result)
{
    struct ctl *ctl = context;
    bool resume = ctl->saving->resume;
    end_saving(ctl, result);
    if (resume && machine_state(ctl->machine) == MACHINE_PAUSED)
        machine_resume(ctl->machine);
}

static void begin_saving(struct ctl *ctl)
{
    struct api_saving *saving = ctl->saving;
    saving->begun = true;
    const struct http_request *request = saving->request;
    bool handed_in = request->descriptor_count == 2;
    const struct machine_snapshot_file state = {saving->state_path, handed_in ? request->descriptors[0] : -1},
                                       memory = {saving->memory_path,
                                                 handed_in ? request->descriptors[1] : -1};
    int r = machine_snapshot(ctl->machine, &state, &memory, saved, ctl);
    if (r < 0)
        end_saving(ctl, r);
}

void api_saving_resumed(struct ctl *ctl)
{
    ctl_log(ctl, false, "The VM stood still for %llu us to be saved.",
            (unsigned long long)(api_now_us() - ctl->saving_begin_us));
}

bool api_saving_paused(struct ctl *ctl)
{
    if (!ctl->saving || ctl->saving->begun)
        return false;
    bool live = ctl->saving->live, waits = live && machine_snapshot_needs_pause(ctl->machine);
    ctl->saving->resume = waits && !ctl->pausing;
    begin_saving(ctl);
    return live && (!waits || !ctl->saving);
}

void api_saving_ended(struct ctl *ctl)
{
    if (!ctl->saving || ctl->saving->begun)
        return;
    (void)fail(-ESHUTDOWN, "The microVM is ending.");
    end_saving(ctl, -ESHUTDOWN);
}

int api_put_snapshot_create(struct api_call *call, void *object)
{
    struct keys_snapshot_create *wanted = object;
    struct ctl *ctl = call->ctl;
    enum machine_state state = machine_state(ctl->machine);
    if (state == MACHINE_RUNNING && ctl->config.firecracker)
        return api_fault(call, -EINVAL,
                         "Create snapshot error: Cannot save the microVM state: Operation not allowed: "
                         "save/restore unavailable while running");
    if (call->request->descriptor_count != 0 && call->request->descriptor_count != 2)
        return api_fault(call, -EINVAL,
                         "Create snapshot error: with descriptors there must be two, of the state and of the "
                         "memory.");
    if (api_is_busy(ctl))
        return api_fault(
            call, -EBUSY,
            "Create snapshot error: another one is being written, or the VM is reset or forked.");
    struct api_saving *saving = calloc(1, sizeof(*saving));
    if (!saving)
        return api_fault(call, -ENOMEM, "out of memory");
    *saving = (struct api_saving){.request = call->request,
                                  .live = state == MACHINE_RUNNING,
                                  .diff = wanted->snapshot_type.value == KEYS_DIFF};
    saving->state_path = ptr_steal(&wanted->snapshot_path);
    saving->memory_path = ptr_steal(&wanted->mem_file_path);
    ctl->saving = saving;
    call->later = true;
    ctl->saving_begin_us = api_now_us();
    if (state == MACHINE_RUNNING)
        machine_pause(ctl->machine);
    else if (state == MACHINE_PAUSED)
        begin_saving(ctl);
    return 0;
}

/* ---- Loading ---- */

static int load_fault(struct api_call *call, int error, const char *why)
{
    return api_fault(call, error, "Load snapshot error: %s", why);
}

/* The keys become those of the machine that is there now. */
static int show_config(struct ctl *ctl)
{
    struct keys_config keys = {0};
    int r = api_take_config(&ctl->built, &keys);
    if (r == 0)
        r = api_take_nets(&ctl->built, &keys);
    if (r == 0)
        r = api_take_balloon(&ctl->built, &keys);
    if (r < 0) {
        json_free(&keys_config_struct, &keys);
        return r;
    }
    struct keys_config *shown = &ctl->keys;
    keys.mmds_config = ptr_steal(&shown->mmds_config);
    json_free(&keys_config_struct, shown);
    *shown = keys;
    return 0;
}

/* Another end on the host for the card `override->iface_id`. */
static int override_net(struct config *config, const struct keys_network_override *override)
{
    for (unsigned i = 0; i < config->net_count; i++) {
        struct net_config *net = &config->nets[i];
        char id[16];
        snprintf(id, sizeof(id), "net%u", i);
        if (strcmp(net->id[0] ? net->id : id, override->iface_id) != 0)
            continue;
        net->kind = NET_KIND_TAP;
        return net_config_set_target(net, "host_dev_name", override->host_dev_name);
    }
    return fail(-ENODEV, "the snapshot has no network interface '%s'", override->iface_id);
}

/* The end of a load that began at `begin_us`. */
static int loaded(struct api_call *call, int result, uint64_t begin_us)
{
    struct ctl *ctl = call->ctl;
    ctl->metrics.load_us = api_now_us() - begin_us;
    if (result == 0)
        return 0;
    snapshot_close(&ctl->snapshot);
    return load_fault(call, result, fail_text());
}

/* What was built is run. */
static int run_built(struct ctl *ctl)
{
    enum machine_status blame;
    int r = snapshot_check_config(&ctl->built);
    if (r < 0)
        return r;
    ctl->built.control_socket = ctl->socket.path;
    ctl->built.same_folders = ctl->config.firecracker;
    ctl->unlisted_nets = 0;
    ctl->start_cpu_us = metrics_cpu_us();
    r = machine_start(ctl->machine, &ctl->built, &blame);
    if (r == 0)
        r = show_config(ctl);
    if (r == 0)
        api_started(ctl);
    return r;
}

int api_restore_base(struct api_call *call)
{
    struct ctl *ctl = call->ctl;
    uint64_t begin = api_now_us();
    config_free(&ctl->built);
    int r = snapshot_open_any(ctl->base->restore, ctl->base->cas_store, &ctl->snapshot);
    if (r == 0)
        r = snapshot_make_config(&ctl->snapshot, ctl->base, &ctl->built);
    if (r == 0)
        r = run_built(ctl);
    return loaded(call, r, begin);
}

/* The vsock device's socket is the one that the copy was given. */
static int take_vsock(struct unix_listener *listener, struct config *built)
{
    if (listener->fd < 0)
        return 0;
    int r = unix_listener_adopt(listener->fd, listener);
    return r == 0 ? api_set_text(&built->vsock.path, listener->path) : r;
}

int api_start_copy(struct api_call *call)
{
    struct ctl *ctl = call->ctl;
    const struct ctl_copy *copy = ctl->config.copy;
    uint64_t begin = api_now_us();
    config_free(&ctl->built);
    int r = snapshot_make_config(&copy->machine->snapshot, ctl->base, &ctl->built);
    for (unsigned i = 0; i < ctl->built.net_count; i++) /* who else is where the other VM is? */
        ctl->built.nets[i].kind = NET_KIND_NONE;
    if (r == 0)
        r = take_vsock(&copy->machine->vsock, &ctl->built);
    ctl->built.copy = copy->machine;
    ctl->built.stay_paused = !copy->run;
    ctl->built.clock_catches_up = true;
    if (r == 0)
        r = run_built(ctl);
    if (r == 0)
        say("goes on as a copy of process %d, %llu us after the fork", (int)getppid(),
            (unsigned long long)(api_now_us() - copy->forked_us));
    return loaded(call, r, begin);
}

/* From the command line's options and the request's wishes to what is to be run. */
static int build(struct ctl *ctl, const struct keys_snapshot_load *wanted)
{
    static const enum guest_pages pages[] = {[KEYS_RESTORE_NONE] = GUEST_PAGES_THP_OFF,
                                             [KEYS_RESTORE_TRANSPARENT] = GUEST_PAGES_THP_ON,
                                             [KEYS_RESTORE_2M] = GUEST_PAGES_HUGETLB};
    config_free(&ctl->built);
    int r = snapshot_make_config(&ctl->snapshot, ctl->base, &ctl->built);
    for (size_t i = 0; r == 0 && i < wanted->network_overrides.count; i++)
        r = override_net(&ctl->built, (struct keys_network_override *)wanted->network_overrides.items + i);
    if (r == 0)
        r = api_override_vsock(wanted->vsock_override, &ctl->built);
    if (wanted->huge_pages.value != KEYS_RESTORE_SNAPSHOT)
        ctl->built.pages = pages[wanted->huge_pages.value];
    ctl->built.stay_paused = !wanted->resume_vm.value;
    ctl->built.clock_catches_up = wanted->clock_realtime.value;
    if (r == 0 && ctl->serial.serial_out_path) {
        ctl->built.serial = SERIAL_FILE;
        r = api_set_text(&ctl->built.serial_path, ctl->serial.serial_out_path);
    }
    return r;
}

int api_put_snapshot_load(struct api_call *call, void *object)
{
    const struct keys_snapshot_load *wanted = object;
    struct ctl *ctl = call->ctl;
    uint64_t begin = api_now_us();
    if (wanted->mem_backend && wanted->mem_file_path)
        return api_fault(
            call, -EINVAL,
            "An error occurred when deserializing the json body of a request: too many fields: either "
            "`mem_backend` or `mem_file_path` exclusively is required.");
    if (!wanted->mem_backend && !wanted->mem_file_path)
        return api_fault(
            call, -EINVAL,
            "An error occurred when deserializing the json body of a request: missing field: either "
            "`mem_backend` or `mem_file_path` is required.");
    if (ctl->boot_path || ctl->keys.boot_source)
        return load_fault(
            call, -EINVAL,
            "Loading a microVM snapshot not allowed after configuring boot-specific resources.");
    if (wanted->mem_backend && wanted->mem_backend->backend_type.value == KEYS_UFFD)
        return load_fault(call, -EINVAL,
                          "The requested operation is not supported: a handler of page faults (Uffd): memory "
                          "that is in a file is read when it is touched.");
    int r = snapshot_open(wanted->snapshot_path,
                          wanted->mem_backend ? wanted->mem_backend->backend_path : wanted->mem_file_path,
                          &ctl->snapshot);
    if (r == 0)
        r = build(ctl, wanted);
    if (r == 0)
        r = run_built(ctl);
    return loaded(call, r, begin);
}

/* ---- Resetting ---- */

struct api_resetting {
    struct http_request *request;
    bool resume; /* it ran */
    uint64_t begin_us;
};

/* Answers, and has the machine go on. One that cannot be reset is of no use any more. */
static void reset(struct ctl *ctl)
{
    struct api_resetting *resetting = ptr_steal(&ctl->resetting);
    struct api_call call = {.ctl = ctl, .request = resetting->request};
    uint64_t paused_us = api_now_us();
    int r = machine_reset(ctl->machine);
    if (r == 0) {
        if (resetting->resume && !ctl->pausing)
            machine_resume(ctl->machine);
        ctl_log(ctl, false, "The VM was reset in %llu us, after a pause that took %llu us.",
                (unsigned long long)(api_now_us() - paused_us),
                (unsigned long long)(paused_us - resetting->begin_us));
        api_answer_success(&call);
    } else {
        api_answer_late_fault(ctl, resetting->request, "Reset error: %s", fail_text());
        machine_end(ctl->machine, MACHINE_HOST_FAILED, "the VM could not be reset");
    }
    free(resetting);
}

void api_reset_ended(struct ctl *ctl)
{
    struct api_resetting *resetting = ptr_steal(&ctl->resetting);
    if (!resetting)
        return;
    api_answer_late_fault(ctl, resetting->request, "The microVM is ending.");
    free(resetting);
}

bool api_reset_paused(struct ctl *ctl)
{
    if (!ctl->resetting)
        return false;
    reset(ctl);
    return true;
}

int api_put_reset(struct api_call *call, void *object)
{
    struct ctl *ctl = call->ctl;
    enum machine_state state = machine_state(ctl->machine);
    (void)object;
    int r = machine_may_reset(ctl->machine);
    if (r < 0)
        return api_fault(call, r, "Reset error: %s", fail_text());
    if (state == MACHINE_PAUSING || api_is_busy(ctl))
        return api_fault(call, -EBUSY, "Reset error: the VM is being paused or saved: try again.");
    struct api_resetting *resetting = calloc(1, sizeof(*resetting));
    if (!resetting)
        return api_fault(call, -ENOMEM, "out of memory");
    *resetting = (struct api_resetting){
        .request = call->request, .resume = state == MACHINE_RUNNING, .begin_us = api_now_us()};
    ctl->resetting = resetting;
    call->later = true;
    if (state == MACHINE_RUNNING)
        machine_pause(ctl->machine);
    else
        reset(ctl);
    return 0;
}

int api_put_snapshot_other(struct api_call *call, void *object)
{
    (void)object;
    if (!call->id)
        return api_fault(call, -EINVAL, "Missing snapshot operation type.");
    return api_fault(call, -EINVAL, "Invalid request method and/or path: PUT /snapshot/%s.", call->id);
}
