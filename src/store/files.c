#include "store/files.h"
#include "store/private.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int each_entry(int directory, const char *path, int (*visit)(void *opaque, const char *name), void *opaque)
{
    int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(-errno, "%s", path);
    DIR *stream = fdopendir(fd);
    if (!stream) {
        int r = -errno;
        close(fd);
        return fail_errno(r, "%s", path);
    }
    int r = 0;
    struct dirent *entry;
    while (r == 0 && (errno = 0, entry = readdir(stream)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            r = visit(opaque, entry->d_name);
    if (r == 0 && errno != 0)
        r = fail_errno(-errno, "%s", path);
    closedir(stream);
    return r;
}

int text_read(int directory, const char *path, char *text, size_t size)
{
    struct stat status;
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EINVAL;
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, text + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        have += (size_t)n;
    }
    if (have == size)
        return -EFBIG;
    text[have] = '\0';
    return 0;
}

int file_publish(int tmp, int directory, const char *path, const void *bytes, size_t length, mode_t mode)
{
    char temporary[TMP_NAME_MAX];
    tmp_name("text", temporary);
    CLEANUP_FD int fd = sys_open(tmp, temporary, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (fd < 0)
        return fd;
    int r = sys_write(fd, bytes, length, 0);
    if (r == 0)
        r = sys_fsync(fd);
    if (r == 0)
        r = sys_rename(tmp, temporary, directory, path, 0);
    if (r < 0) {
        unlinkat(tmp, temporary, 0);
        return r;
    }
    return sys_fsync(directory);
}

int directory_sync(int directory, const char *path)
{
    CLEANUP_FD int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : sys_fsync(fd);
}

void tmp_name(const char *owner, char name[TMP_NAME_MAX])
{
    uint64_t
        random; /* not a counter or a process id: processes fork, and ids repeat in other PID namespaces */
    CHECK(getrandom(&random, sizeof(random), 0) == sizeof(random));
    snprintf(name, TMP_NAME_MAX, "%s.%016llx", owner, (unsigned long long)random);
}

bool name_is_valid(const char *name, size_t longest, const char *others)
{
    size_t length = strlen(name);
    bool good = length > 0 && length <= longest && name[0] != '.' && name[0] != '-';
    for (const char *at = name; good && *at; at++)
        good = isalnum((unsigned char)*at) || strchr(others, *at);
    return good;
}

int object_hash_fd(int fd, const char *name, struct object_id *ret_id)
{
    enum { PIECE = 1 << 20 };
    struct object_hasher *hasher = NULL;
    CLEANUP_FREE uint8_t *bytes = malloc(PIECE);
    int r = bytes ? object_hasher_begin(&hasher) : fail(-ENOMEM, "%s: no memory to hash it", name);
    if (r < 0)
        return r;
    off_t at = 0;
    ssize_t n;
    while ((n = pread(fd, bytes, PIECE, at)) > 0 || (n < 0 && errno == EINTR)) {
        object_hasher_update(hasher, bytes, n > 0 ? (size_t)n : 0);
        at += n > 0 ? n : 0;
    }
    r = n < 0 ? fail_errno(-errno, "%s: cannot be read", name) : 0;
    struct object_id id;
    object_hasher_end(hasher, &id);
    if (r == 0)
        *ret_id = id;
    return r;
}
