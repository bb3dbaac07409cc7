/*
 * Small files and directories, as everything that keeps files by name needs them: listing, reading a text,
 * publishing a file at once, checking a name. Used by the store and by volt-kernel.
 *
 * Every step that changes the disk passes through sys.c, so tests can fail it.
 */
#pragma once

#include "base/base.h"

#include <sys/types.h>

struct object_id;

/* Calls `visit` with the name of each entry of directory/path except . and .., in no order. Stops at its
 * first return that is not 0 and returns that. Errors of the directory come with a message. */
int each_entry(int directory, const char *path, int (*visit)(void *opaque, const char *name), void *opaque);

/* Reads a small text file whole and ends it with 0. -EFBIG for more than `size` - 1 bytes, -EINVAL if it is
 * not a regular file; no message. Never waits (a FIFO is not opened for reading). */
int text_read(int directory, const char *path, char *text, size_t size);

/*
 * Makes directory/path a file with these bytes, or replaces it, so that a reader sees the old file or the new
 * one, whole, also after a crash: a temporary file in `tmp` (a directory of the same file system), fsync,
 * rename, fsync of `directory`. `path` has no slash. 0 or a negative errno with no message.
 */
int file_publish(int tmp, int directory, const char *path, const void *bytes, size_t length, mode_t mode);

/* fsync() of the directory directory/path, which makes the names in it durable. No message. */
int directory_sync(int directory, const char *path);

/* A name for a temporary file that no other process or thread uses: `owner`, a dot, 16 random digits. */
#define TMP_NAME_MAX 64
void tmp_name(const char *owner, char name[TMP_NAME_MAX]);

/* Whether `name` is 1 to `longest` bytes of A-Z a-z 0-9 and `others`, and does not begin with a dot or a
 * dash. */
bool name_is_valid(const char *name, size_t longest, const char *others);

/* SHA-256 of all bytes of an open file, from its beginning. `name` is for the message. */
int object_hash_fd(int fd, const char *name, struct object_id *ret_id);
