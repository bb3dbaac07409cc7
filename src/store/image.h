/* What can be done with a whole image: write it out, compare two, check all, count what is shared. */
#pragma once

#include "store/manifest.h"

/* Writes the image to `fd`, an empty file or a device of the image's size: zeros are left out if `sparse`.
 * Every object that this boot has not verified is hashed first. */
int image_export(struct store *store, const struct manifest *manifest, int fd, const char *name, bool sparse,
                 void (*progress)(void *opaque, uint64_t done_bytes), void *opaque);

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
    uint64_t nearest_shared;
    size_t nearest; /* the image it shares most bytes of objects with, and how many; itself if none */
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
