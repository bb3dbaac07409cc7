/* Looking at a vmlinux without loading it. */
#pragma once

#include "base/base.h"

#define VMLINUX_VERSION_MAX 64

/* 0 if this is an x86-64 ELF kernel with a PVH entry point; -ENOEXEC with words if not. `name` is for the
 * words. */
int vmlinux_check(const char *name, const void *bytes, size_t length);

/* What `uname -r` will say, found in the kernel's banner; "" if there is none. */
void vmlinux_version(const void *bytes, size_t length, char ret_version[VMLINUX_VERSION_MAX]);
