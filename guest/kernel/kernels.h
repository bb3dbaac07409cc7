/*
 * The kernels of a host, one folder:
 *
 *     objects/HASH        a vmlinux, mode 0444, named by the SHA-256 of its bytes
 *     objects/HASH.json   its notes; for people, nothing depends on them
 *     modules/HASH/       lib/modules/VERSION of the package it came from
 *     names/NAME          symbolic link to ../objects/HASH
 *     default             symbolic link to names/NAME
 *     tmp/                imports under way
 *     lock                flock()ed by whoever changes something; its holder may empty tmp/
 *
 * Every file appears under its final name complete, and links are replaced by rename(2): an interrupted
 * command leaves all that was there before. Other files in these folders are ignored.
 *
 * Functions return 0 or a negative errno with a message (base.h): -ENOENT no such kernel or name, -EINVAL
 * not a name, -EBADMSG bytes that do not match their hash.
 */
#pragma once

#include "store/store.h"

#include <jansson.h>

#define KERNEL_NAME_MAX 63

struct kernels {
    int dir;  /* the folder */
    int tmp;  /* its tmp/, -1 unless opened for changes */
    int lock; /* held, -1 unless opened for changes */
    char *path;
};

/*
 * Opens the folder, and makes it if it does not exist: $VOLT_KERNEL_DIR, else /var/lib/volt/kernels for
 * root, else ${XDG_DATA_HOME:-~/.local/share}/volt/kernels. `change` waits for the lock. Removes the
 * files that a killed command left in tmp/ (without `change` only if no command is at work).
 */
int kernels_open(bool change, struct kernels *ret_kernels);
void kernels_close(struct kernels *kernels);

/* -EINVAL unless `name` can be one: letters, digits and . _ + - after a letter or digit. */
int kernels_check_name(const char *name);

/*
 * Notes: a JSON object of strings, all optional. `version` as `uname -r` will say, `source` the file or
 * package, `imported` when (ISO 8601, UTC), `initrd` and `modules` absolute paths, `advice` what the
 * kernel needs to boot.
 */
/* Sets a note. Bytes of `text` that are not UTF-8 become '?'. */
int kernel_note(json_t *notes, const char *key, const char *text);
/* A note's text, NULL if there is none. It lives as long as `notes`. */
const char *kernel_noted(const json_t *notes, const char *key);
/* The notes of a kernel, empty if they cannot be read. The caller calls json_decref(). */
json_t *kernels_notes(const struct kernels *kernels, const char *hash);

/* Stores `length` bytes under their hash, durably, with these notes. `modules` is NULL or the name of a
 * folder in tmp/ to keep with the kernel; its note is set then. */
int kernels_publish(const struct kernels *kernels, const void *bytes, size_t length, const char *modules,
                    json_t *notes, char ret_hash[OBJECT_ID_TEXT]);

/* Points a name at a kernel, and the default at a name. */
int kernels_set_name(const struct kernels *kernels, const char *name, const char *hash);
int kernels_set_default(const struct kernels *kernels, const char *name);
/* Removes a name, and its kernel if it has no other. */
int kernels_remove(const struct kernels *kernels, const char *name);

/* The name that is the default; "" if there is none. */
int kernels_default(const struct kernels *kernels, char ret_name[KERNEL_NAME_MAX + 1]);
/* The hash of the kernel with this name, this hash, or at least the first eight digits of it; NULL: of the
 * default. */
int kernels_find(const struct kernels *kernels, const char *which, char ret_hash[OBJECT_ID_TEXT]);
/* The path of a kernel's file. The caller frees it. */
int kernels_file(const struct kernels *kernels, const char *hash, char **ret_path);
/* Hashes the bytes again; -EBADMSG if they do not match. */
int kernels_verify(const struct kernels *kernels, const char *hash);

/* One kernel under one name: a kernel with three names is listed three times, one without any once with
 * name "". */
struct kernel_entry {
    char name[KERNEL_NAME_MAX + 1];
    char hash[OBJECT_ID_TEXT];
    uint64_t bytes; /* 0: the name points at no file */
};
/* All of them, by name. The caller frees the array. */
int kernels_list(const struct kernels *kernels, struct kernel_entry **ret_entries, size_t *ret_count);
