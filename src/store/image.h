/* What can be done with a whole image: write it out, compare two, check all, count what is shared. */
#pragma once

#include "store/manifest.h"

/* Called during an export with the bytes written so far, zeros left out. Any thread. */
typedef void (*export_progress)(void *opaque, uint64_t done_bytes);

/* Writes the image to `fd`, an empty file or a device of the image's size at least, and makes it durable.
 * Zeros are left out if `sparse`. Every object that was not verified in this boot is hashed first. */
int image_export(struct store *store, const struct manifest *manifest, int fd, const char *name, bool sparse,
                 export_progress progress, void *opaque);

/* The same in order, zeros included, to something that cannot seek: a pipe, a socket, a terminal. */
int image_export_stream(struct store *store, const struct manifest *manifest, int fd, const char *name,
                        export_progress progress, void *opaque);

/*
 * The same to `path`; "-" is standard output.
 *
 * A regular file, or none yet: the image gets the name when it is whole and durable, in one step. Until
 * then it has no name, where the file system can do that (O_TMPFILE), so whatever ends the process leaves
 * nothing. An earlier file keeps its mode and, as far as we may, its owner. A symbolic link is followed. A
 * block device: -EBUSY if it is mounted or in use, -ENOSPC if it is too small, before the first byte is
 * written. Anything else is a stream.
 */
int image_export_to(struct store *store, const struct manifest *manifest, const char *path, bool sparse,
                    export_progress progress, void *opaque);

struct image_difference {
    uint64_t pages_same, pages_different; /* the shorter image goes on with zeros */
};

/* Compares; `range` is called for each stretch that differs, in order, and may be NULL. */
int image_diff(struct store *store, const struct manifest *a, const struct manifest *b,
               void (*range)(void *opaque, uint64_t first_page, uint64_t pages), void *opaque,
               struct image_difference *ret_difference);

struct verify_report {
    uint64_t objects, bytes, manifests, names, volumes;
    uint64_t problems;
};

/*
 * Reads and hashes everything, or everything that one image needs (`name` not NULL), and follows every name
 * and volume. What is wrong is told by `problem`, from any thread, one at a time; 0 is returned if all could
 * be looked at.
 */
int store_verify(struct store *store, const char *name, void (*problem)(void *opaque, const char *message),
                 void (*progress)(void *opaque, uint64_t done_bytes), void *opaque,
                 struct verify_report *ret_report);

struct image_usage {
    struct ref ref;
    uint64_t logical;   /* bytes of the image */
    uint64_t data;      /* of those, not zeros */
    uint64_t objects;   /* bytes of the objects it needs */
    uint64_t exclusive; /* bytes of the objects that nothing else needs: what rm and gc would give back */
    size_t nearest;     /* the image that it shares most bytes of objects with, itself if none; */
    uint64_t nearest_shared; /* and how many those are */
};

struct store_usage {
    struct image_usage *images; /* by name; the caller's to free() */
    size_t image_count;
    uint64_t logical; /* of all images and volumes */
    uint64_t unique;  /* bytes of objects that something needs */
    uint64_t stored;  /* bytes of all objects; the rest is gc's */
    uint64_t volumes; /* registered */
};
int store_usage(struct store *store, struct store_usage *ret_usage);
