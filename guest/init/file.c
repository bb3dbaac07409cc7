#include "init.h"

#include <fcntl.h>
#include <string.h>

int file_text(const char *path, char **ret_text)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    CLEANUP_FREE char *text = NULL;
    size_t size = 0;
    size_t length = 0;
    for (;;) {
        if (length + 1 >= size) {
            if (size >= FILE_TEXT_MAX)
                return fail(-EFBIG, "%s: larger than %llu MiB", path,
                            (unsigned long long)(FILE_TEXT_MAX / MIB));
            size = size == 0 ? 4 * KIB : 2 * size;
            char *larger = realloc(text, size);
            if (larger == NULL)
                return -ENOMEM;
            text = larger;
        }
        ssize_t got = read(fd, text + length, size - 1 - length);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            break;
        length += got < 0 ? 0 : (size_t)got;
    }
    text[length] = '\0';
    *ret_text = ptr_steal(&text);
    return 0;
}

char *file_line(char **cursor)
{
    char *line;
    while ((line = strsep(cursor, "\n")) != NULL) {
        line[strcspn(line, "#")] = '\0';
        line += strspn(line, " \t\r");
        size_t length = strlen(line);
        while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL)
            line[--length] = '\0';
        if (length > 0)
            return line;
    }
    return NULL;
}
