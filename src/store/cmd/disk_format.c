/* Disks in a format of their own: named, and made raw where there is a program or a library for it. */
#include "store/cmd/cmd.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int disk_convert(const char *path, const char *format, const char *raw)
{
    if (strcmp(format, "zip") == 0)
        return fail(-EINVAL, "%s: a zip archive (unpack it with unzip, and import what is in it)", path);
    const char *const convert[] = {"qemu-img", "convert", "-f", format, "-O", "raw", path, raw, NULL};
    return run_tool(convert, "qemu-utils", NULL);
}

/* Zeros become holes. */
static int write_block(int fd, const char *raw, const void *bytes, size_t length, int64_t at)
{
    static const char zeros[4096];
    const char *from = bytes;
    for (size_t done = 0; done < length;) {
        size_t piece = MIN(length - done, sizeof(zeros));
        if (memcmp(from + done, zeros, piece) != 0) {
            int r = write_full_at(fd, from + done, piece, (uint64_t)at + done);
            if (r < 0)
                return fail_errno(r, "%s", raw);
        }
        done += piece;
    }
    return 0;
}

int disk_uncompress(const char *path, const char *raw, bool *ret_is_tar)
{
    struct archive *archive = NULL;
    struct archive_entry *entry;
    int r = tar_open(path, &archive), next;
    if (r < 0)
        return r;
    next = archive_read_next_header(archive, &entry);
    *ret_is_tar = archive_format(archive) != ARCHIVE_FORMAT_RAW;
    if (*ret_is_tar || next < ARCHIVE_WARN) {
        /* An empty tar has no header. What is damaged is told of when it is unpacked. */
        *ret_is_tar = true;
        archive_read_free(archive);
        return 0;
    }
    CLEANUP_FD int fd = open(raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        r = fail_errno(-errno, "%s", raw);
    const void *block;
    size_t length = 0;
    int64_t at = 0, end = 0;
    while (r == 0 && (next = archive_read_data_block(archive, &block, &length, &at)) == ARCHIVE_OK) {
        r = write_block(fd, raw, block, length, at);
        end = at + (int64_t)length;
    }
    if (r == 0 && next != ARCHIVE_EOF)
        r = fail(-EBADMSG, "%s: %s (is it damaged?)", path, archive_error_string(archive));
    if (r == 0 && ftruncate(fd, end) < 0)
        r = fail_errno(-errno, "%s", raw);
    archive_read_free(archive);
    return r;
}
