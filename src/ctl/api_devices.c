/* The devices. What this build does not have is refused with words that say so. */
#include "ctl/api.h"

#include "dev/disk_cas.h"

#include <fcntl.h>
#include <string.h>

/* True if the limiter limits something: a bucket without a size or a time to refill does not. */
static bool limits(const struct keys_token_bucket *bucket)
{
    return bucket && bucket->size.value && bucket->refill_time.value;
}

static bool is_limited(const struct keys_rate_limiter *limiter)
{
    return limiter && (limits(limiter->bandwidth) || limits(limiter->ops));
}

static int no_limiter(struct api_call *call, const char *what)
{
    return api_fault(call, -EINVAL, "The requested operation is not supported: a rate limiter of %s.", what);
}

/* A limiter that limits nothing is shown as none. */
static void drop_limiter(struct keys_rate_limiter **limiter)
{
    if (*limiter)
        json_free(&keys_rate_limiter_struct, *limiter);
    free(*limiter);
    *limiter = NULL;
}

/* ---- Drives ---- */

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
    if (is_limited(drive->rate_limiter))
        return no_limiter(call, "a drive");
    int r = try_drive(drive->path_on_host, drive->is_read_only.value);
    if (r < 0)
        return api_fault(
            call, -EINVAL,
            "Drive config error: Unable to create the virtio block device: Virtio backend error: Error "
            "manipulating the backing file: %s %s",
            api_os_error(r), drive->path_on_host);
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

static int patch_fault(struct api_call *call, const char *why)
{
    return api_fault(
        call, -EINVAL,
        "Drive config error: Unable to patch the block device: %s Please verify the request arguments.", why);
}

int api_patch_drive(struct api_call *call, void *object)
{
    const struct keys_drive_update *update = object;
    struct ctl *ctl = call->ctl;
    size_t index = find_drive(ctl, update->drive_id);
    if (index == ctl->keys.drives.count)
        return patch_fault(call, "Failed perform action on device: Device not found");
    if (!update->path_on_host && !update->rate_limiter)
        return patch_fault(call, "Block: Running method expected different backend.");
    if (update->path_on_host) {
        int r = try_drive(update->path_on_host, drive_at(ctl, index)->is_read_only.value);
        if (r < 0)
            return api_fault(
                call, -EINVAL,
                "Drive config error: Unable to patch the block device: Block: Virtio backend error: Error "
                "manipulating the backing file: %s %s Please verify the request arguments.",
                api_os_error(r), update->path_on_host);
        return api_fault(call, -EINVAL,
                         "The requested operation is not supported: another disk for a running VM.");
    }
    return is_limited(update->rate_limiter) ? no_limiter(call, "a drive") : 0;
}

/* ---- The others ---- */

int api_put_entropy(struct api_call *call, void *object)
{
    struct keys_entropy *wanted = object;
    struct ctl *ctl = call->ctl;
    ctl->boot_path = true;
    if (is_limited(wanted->rate_limiter))
        return no_limiter(call, "the entropy device");
    if (!ctl->keys.entropy)
        ctl->keys.entropy = calloc(1, sizeof(*ctl->keys.entropy));
    return ctl->keys.entropy ? 0 : api_fault(call, -ENOMEM, "out of memory");
}

int api_put_serial(struct api_call *call, void *object)
{
    struct keys_serial *wanted = object;
    struct ctl *ctl = call->ctl;
    if (limits(wanted->rate_limiter))
        return no_limiter(call, "the serial console");
    json_free(&keys_serial_struct, &ctl->serial);
    ctl->serial = *wanted;
    *wanted = (struct keys_serial){0};
    return 0;
}

int api_put_pmem(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "The requested operation is not supported: pmem devices.");
}

int api_put_memory_hotplug(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "The requested operation is not supported: memory hotplug.");
}

int api_unplug(struct api_call *call, void *object)
{
    (void)object;
    return api_fault(call, -EINVAL, "PCI is not enabled");
}
