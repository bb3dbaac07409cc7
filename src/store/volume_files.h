/* The small files of a volume: volume.json, and its registration in the store. Private to the store. */
#pragma once

#include "store/private.h"
#include "store/volume.h"

#define VOLUME_MAP_MAGIC "STELVMAP"
#define VOLUME_VERSION   1u

struct volume_description {
    char id[OBJECT_ID_TEXT]; /* 32 hexadecimal digits are used */
    struct object_id manifest;
    uint64_t bytes;
};

/* Takes the JSON of volume.json apart and checks it. `path` is for messages. */
int volume_description_parse(const char *text, const char *path, struct volume_description *ret_description);
int volume_description_read(int directory, const char *path, struct volume_description *ret_description);

int volume_check_registered(struct store *store, const char *path,
                            const struct volume_description *description);

/* Opens what must be synced for the volume's directory entries and its registration to be durable. */
int volume_open_name_fds(struct store *store, int directory, const struct volume_description *description,
                         int name_fds[VOLUME_NAME_FDS]);

/* The first page of the map. */
void volume_map_header(const struct volume_description *description, bool name_durable,
                       uint8_t header[STORE_PAGE]);
