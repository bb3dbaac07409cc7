#include "moddep.h"

#include <string.h>

static char letter(char c)
{
    return c == '-' ? '_' : c;
}

/* Whether the file name at the end of `path` begins with `name` and ".ko". */
static bool is_module(struct span path, const char *name)
{
    const char *slash = memrchr(path.start, '/', path.length);
    const char *file = slash == NULL ? path.start : slash + 1;
    size_t left = (size_t)(path.start + path.length - file);
    size_t length = strlen(name);
    if (left < length + 3 || memcmp(file + length, ".ko", 3) != 0)
        return false;
    for (size_t i = 0; i < length; i++)
        if (letter(file[i]) != letter(name[i]))
            return false;
    return left == length + 3 || file[length + 3] == '.';
}

bool moddep_find(const char *text, const char *name, struct span *ret_line)
{
    for (const char *line = text; *line != '\0';) {
        size_t length = strcspn(line, "\n");
        struct span path = {line, strcspn(line, ":\n")};
        if (is_module(path, name)) {
            *ret_line = (struct span){line, length};
            return true;
        }
        line += length + (line[length] == '\n');
    }
    return false;
}

static bool separates(char c)
{
    return c == ' ' || c == ':';
}

bool moddep_pop(struct span *line, struct span *ret_path)
{
    size_t end = line->length;
    while (end > 0 && separates(line->start[end - 1]))
        end--;
    size_t start = end;
    while (start > 0 && !separates(line->start[start - 1]))
        start--;
    if (start == end)
        return false;
    line->length = start;
    *ret_path = (struct span){line->start + start, end - start};
    return true;
}

bool moddep_is_compressed(struct span path)
{
    return path.length >= 3 && memcmp(path.start + path.length - 3, ".ko", 3) != 0;
}
