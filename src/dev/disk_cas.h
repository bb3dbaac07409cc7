/* Disks in Stellarium. */
#pragma once

#include "dev/disk.h"

/*
 * Opens a disk of the store at `store_path`:
 *   volume:DIR   a volume, for writing unless read_only (-EBUSY if it is in use)
 *   cas:NAME     an image; unless read_only it can be written to, and what was written is gone with the disk
 * `direct` means nothing here. An object that is missing or corrupt is an I/O error for the guest, on this
 * disk only, and a line in the log. Ends with disk->ops->close().
 */
int disk_cas_open(const char *store_path, const char *spec, const struct disk_options *options,
                  struct disk **ret_disk);

/* Whether `spec` is one of these. */
bool disk_cas_is(const char *spec);
