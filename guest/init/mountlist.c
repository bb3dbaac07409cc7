#include "mountlist.h"

#include <string.h>

/* The kernel writes blank, tab, newline, backslash and # as \ooo (mangle() in fs/proc_namespace.c). */
static void undo_escapes(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; to++) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
            from[3] >= '0' && from[3] <= '7') {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

bool mount_next(char **cursor, struct mount_entry *ret_entry)
{
    char *line;
    while ((line = strsep(cursor, "\n")) != NULL) {
        strsep(&line, " "); /* the source */
        char *where = strsep(&line, " ");
        char *type = strsep(&line, " ");
        if (type == NULL || *where != '/')
            continue;
        undo_escapes(where);
        *ret_entry = (struct mount_entry){where, type};
        return true;
    }
    return false;
}

bool mount_keeps_data(const char *type)
{
    /* "rootfs" is the type of an initramfs. Overlays are not listed: they keep their upper disk busy. */
    static const char *const kept_by_the_kernel[] = {
        "binfmt_misc", "bpf",        "cgroup",    "cgroup2", "configfs", "debugfs", "devpts",
        "devtmpfs",    "fusectl",    "hugetlbfs", "mqueue",  "proc",     "pstore",  "ramfs",
        "rootfs",      "securityfs", "sysfs",     "tmpfs",   "tracefs",
    };
    for (size_t i = 0; i < ARRAY_SIZE(kept_by_the_kernel); i++)
        if (strcmp(type, kept_by_the_kernel[i]) == 0)
            return false;
    return true;
}
