/* The small files of a volume: volume.json, the map's header, and the registration in the store. Private to
 * the store. */
#pragma once

#include "store/private.h"
#include "store/volume.h"

#define VOLUME_MAP_MAGIC "STELVMAP"
#define VOLUME_VERSION   1u

/* The files of a volume. While it is made, its description has the second name; while it is removed, the
 * third. */
#define VOLUME_DESCRIPTION "volume.json"
#define VOLUME_NEW         "volume.json.new"
#define VOLUME_REMOVED     "volume.json.removed"

struct volume_description {
    char id[OBJECT_ID_TEXT]; /* 32 hexadecimal digits are used */
    struct object_id manifest;
    uint64_t bytes;
};

bool volume_id_is_valid(const char *text);

/* Takes the JSON of volume.json apart and checks it. `path` is for messages. */
int volume_description_parse(const char *text, const char *path, struct volume_description *ret_description);

/* `file` is one of the names above. -ENOENT if it is not there. */
int volume_description_read(int directory, const char *path, const char *file,
                            struct volume_description *ret_description);

/* Writes a file that must not exist. Not synced; no message. */
int volume_description_write(int directory, const char *file, const struct volume_description *description);
int volume_make_file(int directory, const char *name, const void *bytes, size_t length, uint64_t size);

/* The first page of the map. */
void volume_map_header(const struct volume_description *description, bool name_durable,
                       uint8_t header[STORE_PAGE]);
int volume_map_header_read(int map, const char *path, struct volume_description *ret_description,
                           bool *ret_name_durable);

/*
 * A registration: STORE/volumes/ID. It belongs to one directory, which it knows by device and inode, so
 * that a copy of a volume is not taken for the volume: who removed the copy would take the original's base
 * away.
 */
struct volume_entry {
    char id[33];
    struct object_id manifest;
    char path[4096];
    uint64_t device, inode; /* of the directory; 0: not known (version 1), then the path says it */
};

/* -ENOENT for an empty one: it is written without waiting for the disk, so that is what a clone interrupted
 * by a crash may leave, and then nothing was ever flushed to the volume. -EINVAL if `id` is none. */
int volume_entry_read(struct store *store, const char *id, struct volume_entry *ret_entry);

/* Whether the open directory is the one that was registered. */
bool volume_entry_is(const struct volume_entry *entry, int directory);

/* Registers the open directory as it lies now; with `replace` durably, over what is there. No message. */
int volume_entry_write(struct store *store, const struct volume_description *description, int directory,
                       bool replace);

/* Unlinks the files that are there: 0, or the first error. No message. */
int volume_remove_files(int directory, const char *const *files, unsigned count);

/* How the volume is, and how many bytes its delta has. */
enum volume_state volume_entry_state(const struct volume_entry *entry, uint64_t *ret_written);

/* Removes the files of a volume that is half made or half removed, as far as that goes. */
void volume_entry_sweep(const struct volume_entry *entry);

/* 0 if the open directory is registered as this volume. One that was moved is registered at its new path
 * then, unless `read_only`. -ENOENT: not registered. -ESTALE: a copy, or moved from another file system. */
int volume_check_registered(struct store *store, const char *path, int directory, bool read_only,
                            const struct volume_description *description);

/* Opens what must be synced for the volume's directory entries and its registration to be durable. */
int volume_open_name_fds(struct store *store, int directory, const struct volume_description *description,
                         int name_fds[VOLUME_NAME_FDS]);
