/* The list of mounts (/proc/self/mounts). Pure: touches nothing but its text. */
#pragma once

#include "base/base.h"

struct mount_entry {
    char *where;
    char *type;
};

/* Takes the next line off the list at *cursor, which is changed, and undoes the octal escapes of its mount
 * point. Strings point into the list. false: none is left; lines with too few fields are passed over. */
bool mount_next(char **cursor, struct mount_entry *ret_entry);

/* Whether a file system of this type has something to lose, so that it must be unmounted before the end. */
bool mount_keeps_data(const char *type);
