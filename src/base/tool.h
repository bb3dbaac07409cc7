/* Running another program and waiting for it. */
#pragma once

#include "base/base.h"

/*
 * Runs a program, found by PATH and in /usr/sbin and /sbin, and waits for its end. `arguments` ends with
 * NULL; `folder` is where it works, NULL for this process's. `package` is what to install if it is not
 * there (NULL: no advice).
 *
 * `ret_output` not NULL: receives what the program prints on both outputs, with a final 0; the caller frees
 * it. If the program fails, that is printed on standard error instead. `ret_output` NULL: the program
 * prints on standard error.
 *
 * 0; -ENOENT if the program is not there; -EIO if it fails, with its status in the message.
 */
int run_tool_in(const char *folder, const char *const *arguments, const char *package, char **ret_output);
int run_tool(const char *const *arguments, const char *package, char **ret_output);
