/* Drives: before the start what they are to be, and of a VM that runs another disk and other limits. */
#include "ctl/api.h"

#include "dev/disk_cas.h"

#include <fcntl.h>
#include <string.h>

/* A limiter that limits nothing is shown as none. */
static void drop_limiter(struct keys_rate_limiter **limiter)
{
    if (*limiter)
        json_free(&keys_rate_limiter_struct, *limiter);
    free(*limiter);
    *limiter = NULL;
}

static int drive_fault(struct api_call *call, const char *why)
{
    return api_fault(call, -EINVAL, "Drive config error: Unable to create the virtio block device: %s", why);
}

/* Opens what the drive names, as the start will do it. 0 or -errno, without words. */
static int try_drive(const char *path, bool read_only)
{
    if (disk_cas_is(path))
        return 0; /* the store is asked at the start */
    CLEANUP_FD int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : 0;
}

static int check_drive(struct api_call *call, struct keys_drive *drive)
{
    if (drive->socket && !drive->path_on_host && !drive->is_read_only.present && !drive->rate_limiter &&
        !drive->io_engine.present)
        return api_fault(call, -EINVAL, "The requested operation is not supported: vhost-user-block.");
    if (!drive->path_on_host || drive->socket)
        return drive_fault(call, "Invalid block config.");
    struct rate_limiter_config unused = {0};
    api_take_limits(drive->rate_limiter, &unused);
    int r = rate_limiter_check(&unused, "rate_limiter");
    if (r < 0)
        return drive_fault(call, fail_text());
    r = try_drive(drive->path_on_host, drive->is_read_only.value);
    if (r < 0)
        return api_fault(
            call, -EINVAL,
            "Drive config error: Unable to create the virtio block device: Virtio backend error: Error "
            "manipulating the backing file: %s %s",
            api_os_error(r), drive->path_on_host);
    if (!api_is_limited(drive->rate_limiter))
        drop_limiter(&drive->rate_limiter);
    if (!drive->is_read_only.present)
        drive->is_read_only = (struct json_number){false, true};
    if (!drive->io_engine.present)
        drive->io_engine = (struct json_number){1, true}; /* Sync, as Firecracker shows it */
    return 0;
}

static struct keys_drive *drive_at(const struct ctl *ctl, size_t index)
{
    return (struct keys_drive *)ctl->keys.drives.items + index;
}

/* The drive's index, or the count of all. */
static size_t find_drive(const struct ctl *ctl, const char *id)
{
    size_t i = 0;
    while (i < ctl->keys.drives.count && strcmp(drive_at(ctl, i)->drive_id, id) != 0)
        i++;
    return i;
}

/* Moves `drive` into the list: to its old place, to the end, or to the front if it is the root. */
static int place_drive(struct api_call *call, struct keys_drive *drive, size_t index)
{
    struct json_list *list = &call->ctl->keys.drives;
    if (index == list->count) {
        void *grown = reallocarray(list->items, list->count + 1, sizeof(*drive));
        if (!grown)
            return api_fault(call, -ENOMEM, "out of memory");
        list->items = grown;
        size_t before = drive->is_root_device.value ? 0 : index;
        memmove(drive_at(call->ctl, before + 1), drive_at(call->ctl, before),
                (index - before) * sizeof(*drive));
        list->count++;
        index = before;
    } else {
        json_free(&keys_drive_struct, drive_at(call->ctl, index));
        if (drive->is_root_device.value && index != 0) {
            *drive_at(call->ctl, index) = *drive_at(call->ctl, 0);
            index = 0;
        }
    }
    *drive_at(call->ctl, index) = *drive;
    *drive = (struct keys_drive){0};
    return 0;
}

int api_put_drive(struct api_call *call, void *object)
{
    struct keys_drive *drive = object;
    struct ctl *ctl = call->ctl;
    if (machine_state(ctl->machine) != MACHINE_NOT_STARTED)
        return api_fault(call, -EINVAL, "PCI is not enabled");
    ctl->boot_path = true;
    size_t index = find_drive(ctl, drive->drive_id);
    bool has_root = ctl->keys.drives.count > 0 && drive_at(ctl, 0)->is_root_device.value;
    if (drive->is_root_device.value && has_root && index != 0)
        return api_fault(call, -EINVAL, "Drive config error: A root block device already exists!");
    if (index == ctl->keys.drives.count && index == CONFIG_DRIVES_MAX)
        return api_fault(call, -EINVAL, "Drive config error: a VM has at most %u drives.", CONFIG_DRIVES_MAX);
    int r = check_drive(call, drive);
    return r < 0 ? r : place_drive(call, drive, index);
}

/* ---- Of a VM that runs ---- */

/* A disk that was asked for. */
struct api_replacing {
    struct api_replacing *next;
    struct ctl *ctl;
    struct http_request *request; /* NULL: answered, as the VM ended */
    size_t index;
    struct keys_drive_update update;
};

static int patch_fault(struct api_call *call, int error, const char *why)
{
    return api_fault(
        call, error,
        "Drive config error: Unable to patch the block device: %s Please verify the request arguments.", why);
}

/* Firecracker's words for a file that cannot be opened; ours for a disk that cannot be used. */
static void open_fault(struct api_call *call, int error, const char *path)
{
    CLEANUP_FREE char *why = strdup(fail_text());
    static const char *const hint =
        " (was its folder given with --allow-path, and may this VM's user open it? A drive that is not "
        "read-only must be writable)";
    bool denied = error == -EACCES || error == -EPERM;
    if (denied || error == -ENOENT || error == -EROFS)
        (void)api_fault(call, -EINVAL,
                        "Drive config error: Unable to patch the block device: Block: Virtio backend error: "
                        "Error manipulating the backing file: %s %s%s Please verify the request arguments.",
                        api_os_error(error), path, denied ? hint : "");
    else
        (void)patch_fault(call, -EINVAL, why ? why : "out of memory");
}

static void merge_bucket(struct keys_token_bucket **to, struct keys_token_bucket **from)
{
    if (!*from)
        return;
    free(*to);
    *to = ptr_steal(from);
}

/* The buckets that were given count; the others stay. A limiter that limits nothing is shown as none. */
static void set_limits(struct ctl *ctl, size_t index, struct keys_rate_limiter *limiter)
{
    if (!limiter)
        return;
    struct keys_drive *drive = drive_at(ctl, index);
    struct rate_limiter_config *limits = &ctl->built.drives[index].limits;
    api_take_limits(limiter, limits);
    machine_limit_drive(ctl->machine, (unsigned)index, limits);
    if (!drive->rate_limiter)
        drive->rate_limiter = calloc(1, sizeof(*drive->rate_limiter));
    if (!drive->rate_limiter)
        return;
    merge_bucket(&drive->rate_limiter->bandwidth, &limiter->bandwidth);
    merge_bucket(&drive->rate_limiter->ops, &limiter->ops);
    if (!api_is_limited(drive->rate_limiter))
        drop_limiter(&drive->rate_limiter);
}

static void forget(struct api_replacing *replacing)
{
    struct api_replacing **at = &replacing->ctl->replacing;
    while (*at != replacing)
        at = &(*at)->next;
    *at = replacing->next;
    json_free(&keys_drive_update_struct, &replacing->update);
    free(replacing);
}

static void replaced(void *context, int result)
{
    struct api_replacing *replacing = context;
    struct ctl *ctl = replacing->ctl;
    struct api_call call = {.ctl = ctl, .request = replacing->request};
    char **path = &replacing->update.path_on_host;
    if (result < 0 && call.request) {
        open_fault(&call, result, *path);
        api_answer_fault(&call, 400);
        text_free(&call.fault);
    }
    if (result == 0) {
        struct keys_drive *drive = drive_at(ctl, replacing->index);
        struct drive_config *built = &ctl->built.drives[replacing->index];
        (void)api_set_text(&built->path, *path); /* for snapshots; without memory they name the old one */
        free(drive->path_on_host);
        drive->path_on_host = ptr_steal(path);
        set_limits(ctl, replacing->index, replacing->update.rate_limiter);
        if (call.request)
            api_answer_success(&call);
    }
    forget(replacing);
}

void api_drives_ended(struct ctl *ctl)
{
    struct api_replacing *replacing = ctl->replacing;
    for (; replacing; replacing = replacing->next) {
        struct http_request *request = ptr_steal(&replacing->request);
        if (request)
            api_answer_late_fault(ctl, request, "The microVM is ending.");
    }
}

static int replace(struct api_call *call, size_t index, struct keys_drive_update *update)
{
    struct ctl *ctl = call->ctl;
    if (machine_state(ctl->machine) == MACHINE_ENDING)
        return api_fault(call, -ESHUTDOWN, "The microVM is ending.");
    for (const struct api_replacing *other = ctl->replacing; other; other = other->next)
        if (other->index == index)
            return patch_fault(call, -EBUSY, "another disk is being put in its place already.");
    struct api_replacing *replacing = calloc(1, sizeof(*replacing));
    if (!replacing)
        return api_fault(call, -ENOMEM, "out of memory");
    *replacing = (struct api_replacing){
        .next = ctl->replacing, .ctl = ctl, .request = call->request, .index = index, .update = *update};
    ctl->replacing = replacing;
    *update = (struct keys_drive_update){0};
    int r = machine_replace_drive(ctl->machine, (unsigned)index, replacing->update.path_on_host, replaced,
                                  replacing);
    if (r < 0) {
        forget(replacing);
        return patch_fault(call, r, fail_text());
    }
    call->later = true;
    return 0;
}

int api_patch_drive(struct api_call *call, void *object)
{
    struct keys_drive_update *update = object;
    struct ctl *ctl = call->ctl;
    size_t index = find_drive(ctl, update->drive_id);
    if (index == ctl->keys.drives.count)
        return patch_fault(call, -EINVAL, "Failed perform action on device: Device not found");
    if (!update->path_on_host && !update->rate_limiter)
        return patch_fault(call, -EINVAL, "Block: Running method expected different backend.");
    struct rate_limiter_config limits = ctl->built.drives[index].limits;
    api_take_limits(update->rate_limiter, &limits);
    int r = rate_limiter_check(&limits, "rate_limiter");
    if (r < 0)
        return patch_fault(call, r, fail_text());
    if (update->path_on_host)
        return replace(call, index, update);
    set_limits(ctl, index, update->rate_limiter);
    return 0;
}
