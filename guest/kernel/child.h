/* Running Debian's tools. Their standard output goes to our standard error, so that ours stays what was asked
 * for. */
#pragma once

#include <stddef.h>

/* Runs argv[0], looked for in PATH and in the folders of system programs, in `folder` (NULL: here), to its
 * end. 0 if it exited with 0; -ENOENT there is no such program, -EIO it failed, both with words. */
int child_run(const char *folder, char *const argv[]);

/* The same, and its standard output as text in `text`; -EIO as well if that does not fit `size`. */
int child_read(char *const argv[], char *text, size_t size);
