/* Drives: files, block devices, and images and volumes of the store. */
#include "dev/disk_opener.h"
#include "devices.h"
#include "machine.h"

#include <stdio.h>
#include <string.h>

/* ---- The command line ---- */

enum { OPTION_ROOTFS = 0x200, OPTION_DISK, OPTION_VOLUME, OPTION_CAS_STORE };

static const struct argp_option options[] = {
    {"rootfs", OPTION_ROOTFS, "FILE[,ro]", 0, "root file system: /dev/vda, and root= on the command line", 2},
    {"disk", OPTION_DISK, "FILE[,ro][,direct][,sector=4096][,bw=SIZE][,iops=N]", 0,
     "another disk, a file or a block device: /dev/vdb and on (may be given again); direct: past the page "
     "cache; sector: the logical sector, 512 bytes if not given; bw, iops: bytes and requests a second, or "
     "SIZE[:BURST[:MS]], once BURST more, refilled in MS milliseconds; cas:NAME instead of a file: an image "
     "of the store, as a clone that is thrown away, or read-only with ,ro",
     2},
    {"volume", OPTION_VOLUME, "DIR[,ro]", 0, "root file system in a volume of the store (stellarium clone)",
     2},
    {"cas-store", OPTION_CAS_STORE, "DIR", 0,
     "the Stellarium store of --volume and --disk cas:NAME (default $STELLARIUM_STORE)", 2},
    {0},
};

/* Takes ",word" off the end of `text` if it is there. */
static bool take_suffix(char *text, const char *word)
{
    size_t length = strlen(text), word_length = strlen(word);
    if (length <= word_length || strcmp(text + length - word_length, word) != 0)
        return false;
    text[length - word_length] = '\0';
    return true;
}

/* Takes ",key=value" off the end of `text` if it is there; the value. */
static const char *take_value(char *text, const char *key)
{
    char *last = strrchr(text, ',');
    if (!last || last == text || strncmp(last, key, strlen(key)) != 0)
        return NULL;
    *last = '\0';
    return last + strlen(key);
}

static int add_drive(struct config *config, const char *argument, bool root)
{
    CLEANUP_FREE char *path = strdup(argument);
    if (!path)
        return fail(-ENOMEM, "no memory for the configuration");
    struct drive_config drive = {.path = path};
    int r = 0;
    while (r == 0) {
        const char *value;
        if (take_suffix(path, ",ro"))
            drive.read_only = true;
        else if (take_suffix(path, ",direct"))
            drive.direct = true;
        else if (take_suffix(path, ",sector=512"))
            drive.sector = 512;
        else if (take_suffix(path, ",sector=4096"))
            drive.sector = 4096;
        else if ((value = take_value(path, ",bw=")))
            r = token_bucket_parse("bw", value, &drive.limits.bandwidth);
        else if ((value = take_value(path, ",iops=")))
            r = token_bucket_parse("iops", value, &drive.limits.ops);
        else if (!take_suffix(path, ",rw"))
            break;
    }
    if (r < 0)
        return r;
    const char *sector = strstr(path, ",sector=");
    if (sector && !strchr(sector, '/'))
        return fail(-EINVAL, "%s: give sector=512 or sector=4096", argument);
    return config_add_drive(config, &drive, root);
}

static int add_volume(struct config *config, const char *directory)
{
    CLEANUP_FREE char *spec = NULL;
    if (asprintf(&spec, "volume:%s", directory) < 0)
        return fail(-ENOMEM, "no memory for the configuration");
    return add_drive(config, spec, true);
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct config *config = state->input;
    int r;
    switch (key) {
    case OPTION_ROOTFS: r = add_drive(config, argument, true); break;
    case OPTION_DISK: r = add_drive(config, argument, false); break;
    case OPTION_VOLUME: r = add_volume(config, argument); break;
    case OPTION_CAS_STORE: r = config_set_text(&config->cas_store, argument); break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return -r;
}

static const struct argp argp = {.options = options, .parser = parse_option};

/* ---- A configuration file ---- */

static int take_drive(struct config *config, const json_t *value)
{
    static const struct config_key keys[] = {
        {"drive_id", JSON_STRING, NULL, NULL},
        {"path_on_host", JSON_STRING, NULL, NULL},
        {"is_root_device", JSON_TRUE, NULL, NULL},
        {"is_read_only", JSON_TRUE, NULL, NULL},
        {"direct", JSON_TRUE, NULL, NULL},
        {"sector", JSON_INTEGER, NULL, NULL},
        {"rate_limiter", JSON_OBJECT, NULL, NULL},
        {"cache_type", JSON_STRING, NULL, NULL}, /* flushes are always offered */
        {"io_engine", JSON_STRING, NULL, NULL},  /* all I/O is asynchronous */
        {"partuuid", JSON_STRING, NULL, "is not read: put root=PARTUUID=... into boot_args"},
        {"socket", JSON_STRING, NULL, "is not there: vhost-user drives are not served"},
    };
    if (!json_is_object(value))
        return fail(-EINVAL, "drives: each must be an object");
    int r = config_take_members(config, value, "drives", keys, ARRAY_SIZE(keys));
    if (r < 0)
        return r;
    const char *path = json_string_value(json_object_get(value, "path_on_host"));
    if (!path)
        return fail(-EINVAL, "drives: a drive without path_on_host");
    json_int_t sector = json_integer_value(json_object_get(value, "sector"));
    if (sector != 0 && sector != 512 && sector != 4096)
        return fail(-EINVAL, "drives: sector must be 512 or 4096");
    struct drive_config drive = {
        .path = (char *)path,
        .read_only = json_is_true(json_object_get(value, "is_read_only")),
        .direct = json_is_true(json_object_get(value, "direct")),
        .sector = (uint32_t)sector,
    };
    r = config_take_limiter(json_object_get(value, "rate_limiter"), &drive.limits);
    if (r < 0)
        return r;
    return config_add_drive(config, &drive, json_is_true(json_object_get(value, "is_root_device")));
}

static int take_drives(struct config *config, const json_t *value)
{
    size_t index;
    json_t *drive;
    json_array_foreach(value, index, drive)
    {
        int r = take_drive(config, drive);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- The devices ---- */

static unsigned count(const struct config *config)
{
    return config->drive_count;
}

static int make(struct loop *loop, const struct config *config, unsigned index,
                struct virtio_device **ret_device)
{
    const struct drive_config *drive = &config->drives[index];
    const char *store = config->cas_store ? config->cas_store : getenv("STELLARIUM_STORE");
    const struct disk_options disk_options = {
        .read_only = drive->read_only, .direct = drive->direct, .sector = drive->sector};
    struct disk *disk = NULL;
    struct virtio_device *device = NULL;
    char label[24];
    snprintf(label, sizeof(label), "disk %u", index);
    int r = 0;
    if (config->copy)
        disk = config->copy->disks[index];
    else
        r = disk_open(store, drive->path, &disk_options, &disk);
    if (r < 0)
        return r;
    r = virtio_blk_new(loop, disk, label, &device);
    if (r < 0) {
        disk->ops->close(disk);
        return r;
    }
    virtio_blk_limit(device, &drive->limits);
    *ret_device = device;
    return 0;
}

const struct device_kind device_drive = {
    .section = {"drives", JSON_ARRAY, take_drives, NULL},
    .argp = &argp,
    .count = count,
    .make = make,
};
