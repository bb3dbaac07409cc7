/* Disks in a format of their own, which must not be taken for raw ones. */
#pragma once

/* The format's name ("qcow2", "vmdk", "vdi", "vhdx", "vpc", "zip"), or NULL. Reads the first 512 bytes of
 * `fd`, which was opened without O_DIRECT. */
const char *disk_format(int fd);
