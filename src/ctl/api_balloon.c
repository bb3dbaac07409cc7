/* The balloon, by Firecracker's requests and with its words. A machine has one even if no request asked for
 * it. */
#include "ctl/api.h"

#include "dev/virtio_balloon.h"

#include <string.h>

/* Firecracker keeps pages in 32 bits. */
#define AMOUNT_MAX (UINT32_MAX / 256)

/* Words in front of a fault: of what was to be changed, and of what was to be told. */
static const char update_fault[] = "Balloon update error", tell_fault[] = "Internal VMM error";

static int no_balloon(struct api_call *call, const char *what)
{
    return api_fault(call, -EINVAL, "%s: Failed perform action on device: Device not found", what);
}

static int not_active(struct api_call *call)
{
    return api_fault(call, -EINVAL, "%s: Balloon: Device not activated yet.", update_fault);
}

static struct virtio_device *balloon_of(const struct ctl *ctl, struct virtio_balloon_status *ret_status)
{
    struct virtio_device *device = machine_balloon(ctl->machine);
    if (device)
        virtio_balloon_status(device, ret_status);
    return device;
}

/* ---- Before the start ---- */

int api_put_balloon(struct api_call *call, void *object)
{
    const struct keys_balloon *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    if (wanted->amount_mib.value > AMOUNT_MAX)
        return api_fault(
            call, -EINVAL,
            "Balloon config error: Error creating the balloon device: Requested memory should be "
            "less than %uMiB",
            AMOUNT_MAX);
    if (!ctl->keys.balloon)
        ctl->keys.balloon = calloc(1, sizeof(*ctl->keys.balloon));
    if (!ctl->keys.balloon)
        return api_fault(call, -ENOMEM, "out of memory");
    *ctl->keys.balloon = *wanted;
    return 0;
}

void api_build_balloon(const struct ctl *ctl, struct config *built)
{
    const struct keys_balloon *balloon = ctl->keys.balloon;
    built->balloon = ctl->base->balloon;
    if (balloon)
        built->balloon = (struct balloon_config){
            .target = balloon->amount_mib.value * MIB,
            .deflate_on_oom = balloon->deflate_on_oom.value,
            .reporting = balloon->free_page_reporting.value,
            .hinting = balloon->free_page_hinting.value,
            .stats_seconds = (unsigned)balloon->stats_polling_interval_s.value,
        };
}

/* ---- What there is ---- */

static int tell_config(struct api_call *call)
{
    struct virtio_balloon_status status;
    if (machine_state(call->ctl->machine) == MACHINE_NOT_STARTED) {
        if (!call->ctl->keys.balloon)
            return api_fault(call, -EINVAL, "Balloon config error: No balloon device found.");
        json_write(&call->body, &keys_balloon_struct, call->ctl->keys.balloon);
        return 0;
    }
    if (!balloon_of(call->ctl, &status))
        return no_balloon(call, tell_fault);
    const struct keys_balloon shown = {
        .amount_mib = {status.target / MIB, true},
        .deflate_on_oom = {status.deflate_on_oom, true},
        .stats_polling_interval_s = {status.stats_seconds, true},
        .free_page_hinting = {status.hinting, true},
        .free_page_reporting = {status.reporting, true},
    };
    json_write(&call->body, &keys_balloon_struct, &shown);
    return 0;
}

static int tell_statistics(struct api_call *call)
{
    struct virtio_balloon_status status;
    if (!balloon_of(call->ctl, &status))
        return no_balloon(call, tell_fault);
    if (!status.stats_seconds)
        return api_fault(call, -EINVAL, "%s: Balloon: Received stats query when stats are disabled.",
                         tell_fault);
    text_printf(
        &call->body, "{\"target_pages\":%llu,\"actual_pages\":%llu,\"target_mib\":%llu,\"actual_mib\":%llu",
        (unsigned long long)(status.target / GUEST_PAGE), (unsigned long long)(status.actual / GUEST_PAGE),
        (unsigned long long)(status.target / MIB), (unsigned long long)(status.actual / MIB));
    for (unsigned tag = 0; tag < BALLOON_STATS_MAX; tag++)
        if (status.known & 1u << tag)
            text_printf(&call->body, ",\"%s\":%llu", virtio_balloon_stat_name(tag),
                        (unsigned long long)status.stats[tag]);
    text_puts(&call->body, "}");
    return 0;
}

/* The part of the path behind /balloon/hinting/, or an empty string. */
static const char *hinting_action(const struct api_call *call)
{
    const char *action = strstr(call->request->path, "hinting");
    action += strlen("hinting");
    return action + (*action == '/');
}

static int unknown_action(struct api_call *call, const char *method, const char *action)
{
    return api_fault(call, -EINVAL, "Unrecognized %s request path `/hinting/%s`.", method, action);
}

static int tell_hinting(struct api_call *call)
{
    struct virtio_balloon_status status;
    if (!balloon_of(call->ctl, &status))
        return no_balloon(call, update_fault);
    if (!status.hinting)
        return api_fault(call, -EINVAL, "%s: Balloon: Attempting to use hinting when not enabled",
                         update_fault);
    text_printf(&call->body, "{\"host_cmd\":%u,\"guest_cmd\":", status.host_command);
    if (status.answered)
        text_printf(&call->body, "%u}", status.guest_command);
    else
        text_puts(&call->body, "null}");
    return 0;
}

int api_get_balloon(struct api_call *call, void *object)
{
    (void)object;
    const char *what = call->id;
    bool hinting = what && strcmp(what, "hinting") == 0;
    if (!what)
        return tell_config(call);
    if (!hinting && strcmp(what, "statistics") != 0)
        return api_fault(call, -EINVAL, "Unrecognized GET request path `%s`.", what);
    if (hinting && strcmp(hinting_action(call), "status") != 0)
        return unknown_action(call, "GET", hinting_action(call));
    if (machine_state(call->ctl->machine) == MACHINE_NOT_STARTED)
        return api_not_before_start(call);
    return hinting ? tell_hinting(call) : tell_statistics(call);
}

/* ---- Changes ---- */

int api_patch_balloon(struct api_call *call, void *object)
{
    const struct keys_balloon_update *wanted = object;
    struct virtio_balloon_status status;
    struct virtio_device *device = balloon_of(call->ctl, &status);
    if (!device)
        return no_balloon(call, update_fault);
    if (!status.active)
        return not_active(call);
    if (virtio_balloon_set_target(device, wanted->amount_mib.value * MIB) < 0)
        return api_fault(call, -EINVAL, "%s: Balloon: Requested memory should be less than %lluMiB",
                         update_fault, (unsigned long long)wanted->amount_mib.value);
    if (call->ctl->keys.balloon)
        call->ctl->keys.balloon->amount_mib = wanted->amount_mib;
    return 0;
}

int api_patch_balloon_stats(struct api_call *call, void *object)
{
    const struct keys_balloon_stats *wanted = object;
    struct virtio_balloon_status status;
    struct virtio_device *device = balloon_of(call->ctl, &status);
    unsigned seconds = (unsigned)wanted->stats_polling_interval_s.value;
    if (!device)
        return no_balloon(call, update_fault);
    if (seconds == status.stats_seconds)
        return 0;
    if (!seconds || !status.stats_seconds)
        return api_fault(call, -EINVAL,
                         "%s: Balloon: Statistics cannot be enabled/disabled after activation.",
                         update_fault);
    virtio_balloon_set_stats(device, seconds);
    if (call->ctl->keys.balloon)
        call->ctl->keys.balloon->stats_polling_interval_s = wanted->stats_polling_interval_s;
    return 0;
}

/* `acknowledge_on_stop` of the body, which may be left out. */
static int read_start(struct api_call *call, bool *ret_acknowledge)
{
    const struct http_request *request = call->request;
    struct json_error error = {0};
    struct keys_hinting start;
    *ret_acknowledge = true;
    if (!request->body || request->body_length == 0)
        return 0;
    int r = json_read(request->body, request->body_length, &keys_hinting_struct, &start, &error);
    if (r < 0)
        api_fault(call, r, "An error occurred when deserializing the json body of a request: %s.",
                  error.message.at ? error.message.at : "out of memory");
    else
        *ret_acknowledge = start.acknowledge_on_stop.value;
    text_free(&error.message);
    return r;
}

int api_patch_balloon_hinting(struct api_call *call, void *object)
{
    (void)object;
    const char *action = hinting_action(call);
    bool starts = strcmp(action, "start") == 0, acknowledge = false;
    if (!starts && strcmp(action, "stop") != 0)
        return unknown_action(call, "PATCH", action);
    int r = starts ? read_start(call, &acknowledge) : 0;
    if (r < 0)
        return r;
    if (machine_state(call->ctl->machine) == MACHINE_NOT_STARTED)
        return api_not_before_start(call);
    struct virtio_balloon_status status;
    struct virtio_device *device = balloon_of(call->ctl, &status);
    if (!device)
        return no_balloon(call, update_fault);
    if (!status.hinting)
        return api_fault(call, -EINVAL, "%s: Balloon: Attempting to use hinting when not enabled",
                         update_fault);
    if (!status.active)
        return not_active(call);
    if (!starts)
        virtio_balloon_stop_hinting(device);
    else if (virtio_balloon_start_hinting(device, acknowledge) < 0)
        return api_fault(call, -EINVAL, "%s: Balloon: %s", update_fault, fail_text());
    return 0;
}
