/* modules.dep and modules.builtin, as depmod(8) writes them. Pure: touches only its text. */
#pragma once

#include "base/base.h"

/* A part of a text, not terminated, not owned. */
struct span {
    const char *start;
    size_t length;
};

/* Finds the line of module `name` ("virtio_blk"; - and _ are the same letter, as for the kernel) in the text
 * of a modules.dep or modules.builtin. *ret_line is the module's path and all that it depends on, for
 * moddep_pop(). false: not listed. */
bool moddep_find(const char *text, const char *name, struct span *ret_line);

/* Takes the last path off `line`; false if it is empty. So paths come in the order in which to load the
 * modules. */
bool moddep_pop(struct span *line, struct span *ret_path);

/* Whether the file at `path` is compressed, so that the kernel is to unpack it (.ko.xz, .ko.zst, .ko.gz). */
bool moddep_is_compressed(struct span path);
