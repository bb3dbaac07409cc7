/* Making a vmlinux of what people have: an ELF kernel, a bzImage, a Debian package. */
#pragma once

#include "kernels.h"

/* A kernel on its way into the folder. Ended by imported_free(). */
struct imported {
    void *bytes; /* the vmlinux, mapped */
    size_t length;
    char *modules; /* folder to publish with it, relative to kernels->dir, or NULL */
    struct kernel_notes notes;
};

/*
 * Reads `source`: a file, or else the name of a Debian package, fetched with apt-get download (told on
 * standard error). Packages are unpacked in kernels->path/tmp, so the lock must be held. -ENOENT neither file
 * nor package; -ENOEXEC not a kernel that volt-vmm can start (no PVH entry, wrong machine, damaged).
 */
int import_kernel(const struct kernels *kernels, const char *source, struct imported *ret_imported);
void imported_free(struct imported *imported);
