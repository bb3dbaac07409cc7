/* Making a vmlinux from an ELF kernel, a bzImage or a Debian package. */
#pragma once

#include "kernels.h"

/* A kernel on its way into the folder. Ended by imported_free(). */
struct imported {
    void *bytes; /* the vmlinux, mapped */
    size_t length;
    const char *modules; /* the folder in tmp/ to publish with it, or NULL */
    json_t *notes;
};

/*
 * Reads `source`: a file, or else the name of a Debian package, which apt-get downloads (said on standard
 * error). Needs the lock: packages are unpacked in tmp/. -ENOENT if it is neither a file nor a package;
 * -ENOEXEC if volt-vmm cannot start it (no PVH entry, wrong machine, damaged).
 */
int import_kernel(const struct kernels *kernels, const char *source, struct imported *ret_imported);
void imported_free(struct imported *imported);
