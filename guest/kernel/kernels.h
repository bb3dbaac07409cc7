/*
 * The kernels of a host, one folder:
 *
 *     objects/HASH        a vmlinux, mode 0444, named by the SHA-256 of its bytes
 *     objects/HASH.json   where it came from (struct kernel_notes); for people, nothing depends on it
 *     modules/HASH/       lib/modules/VERSION of the package it came from
 *     names/NAME          symbolic link to ../objects/HASH
 *     default             symbolic link to names/NAME
 *     tmp/ , lock         imports under way; whoever holds the lock may empty tmp/
 *
 * Everything appears under its final name complete, and links are replaced by rename(2): whatever is
 * interrupted, what was there before still works. Functions return 0 or a negative errno with words (base.h):
 * -ENOENT no such kernel or name, -EINVAL not a name, -EBADMSG bytes that do not match their hash.
 */
#pragma once

#include "base/base.h"

#define KERNEL_HASH_DIGITS 64
#define KERNEL_NAME_MAX    63

/* What is known of a kernel besides its bytes. All strings may be NULL; owned by whoever holds the structure.
 */
struct kernel_notes {
    char *version;  /* as `uname -r` will say */
    char *source;   /* the file or package it came from */
    char *imported; /* when, ISO 8601 in UTC */
    char *initrd;   /* an initial RAM disk that lay beside it, absolute */
    char *modules;  /* folder of its modules, absolute */
    char *advice;   /* what it needs to boot, for people */
};
void kernel_notes_free(struct kernel_notes *notes);

struct kernels {
    int dir;  /* the folder */
    int lock; /* -1, or held: only with it is anything changed */
    char *path;
};

/* $VOLT_KERNEL_DIR, else /var/lib/volt/kernels for root, else ${XDG_DATA_HOME:-~/.local/share}/volt/kernels;
 * made if it does not exist. With `change`, waits for the lock and empties tmp/. */
int kernels_open(bool change, struct kernels *ret_kernels);
void kernels_close(struct kernels *kernels);

/* -EINVAL with words unless `name` can be one: letters, digits and . _ + - after a letter or digit. */
int kernels_check_name(const char *name);

/* Stores `length` bytes under their hash, durably; if they are there already, only the notes are written
 * anew. `modules` is NULL or a folder, relative to kernels->dir, that is moved to its place (notes->modules
 * is then set). */
int kernels_publish(const struct kernels *kernels, const void *bytes, size_t length, const char *modules,
                    struct kernel_notes *notes, char ret_hash[KERNEL_HASH_DIGITS + 1]);

/* Points a name, or the default, somewhere. */
int kernels_set_name(const struct kernels *kernels, const char *name, const char *hash);
int kernels_set_default(const struct kernels *kernels, const char *name);
/* Takes a name away; its kernel goes too when no other name points at it. */
int kernels_remove(const struct kernels *kernels, const char *name);

/* The name that is the default; "" if there is none. */
int kernels_default(const struct kernels *kernels, char ret_name[KERNEL_NAME_MAX + 1]);
/* The hash behind a name, a hash or its first eight digits or more; NULL asks for the default. */
int kernels_find(const struct kernels *kernels, const char *which, char ret_hash[KERNEL_HASH_DIGITS + 1]);
/* Notes that cannot be read are empty. */
void kernels_notes(const struct kernels *kernels, const char *hash, struct kernel_notes *ret_notes);
/* Hashes the bytes again; -EBADMSG if they are not what their name says. */
int kernels_verify(const struct kernels *kernels, const char *hash);

/* One kernel by one name; a kernel with three names is listed three times, one without any once, name NULL.
 */
struct kernel_entry {
    char *name;
    char hash[KERNEL_HASH_DIGITS + 1];
    uint64_t bytes;
};
/* All of them, by name; freed by kernels_list_free(). */
int kernels_list(const struct kernels *kernels, struct kernel_entry **ret_entries, size_t *ret_count);
void kernels_list_free(struct kernel_entry *entries, size_t count);
