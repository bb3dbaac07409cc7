/* A listening Unix socket's place in the file system: made private at once, cleared of a dead predecessor,
 * taken away again. */
#pragma once

#include "base/base.h"

struct unix_listener {
    int fd;
    char *path;              /* absolute, so that it is found again wherever the process goes */
    uint64_t inode, born[2]; /* which file it is: a number is used again, but at another time */
};

/*
 * Listens at `path`, non-blocking, with mode 0600 from its first moment. A socket there that nobody listens
 * on is replaced if `replace` is set; two that try so at once do not take each other's. -EADDRINUSE if
 * something is there that stays, -ENAMETOOLONG, or an errno of the system's; all with a message.
 */
int unix_listener_open(const char *path, bool replace, struct unix_listener *ret_listener);

/* One that listens already, made by whoever handed it in: its mode is theirs. -errno with a message. */
int unix_listener_adopt(int fd, struct unix_listener *ret_listener);

/* Removes the file and frees the path. What another has put at the path stays. */
void unix_listener_remove(struct unix_listener *listener);
