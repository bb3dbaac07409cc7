/* Taking the vmlinux out of a bzImage (Documentation/arch/x86/boot.rst), on the host. */
#pragma once

#include "base/base.h"

/* True if the bytes begin like a bzImage (boot sector magic and "HdrS"). */
bool bzimage_is(const void *image, size_t length);

/*
 * Unpacks the payload of a bzImage: gzip, xz, lzma, bzip2, lz4 (legacy frame), zstd. The result is the ELF
 * vmlinux as it was compressed, mmap'ed (ended by munmap of *ret_length bytes). -ENOEXEC not a bzImage, or
 * its payload is not what the header says, or of an unknown compressor; -EFBIG it unpacks to more than 1 GiB;
 * -ENOMEM.
 */
int bzimage_unpack(const void *image, size_t length, void **ret_vmlinux, size_t *ret_length);
