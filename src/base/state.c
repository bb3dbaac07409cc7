#include "base/state.h"

#include <string.h>

struct header {
    char tag[4];
    uint16_t version, zero;
    uint32_t length;
};
_Static_assert(sizeof(struct header) == 12, "as state.h draws it");

void state_put(struct state_writer *to, const void *bytes, size_t length)
{
    if (to->error < 0 || length == 0)
        return;
    if (length > STATE_MAX - to->length)
        to->error =
            fail(-EFBIG, "the state of a machine has more than %llu bytes", (unsigned long long)STATE_MAX);
    else
        to->error = array_reserve(&to->bytes, to->length + length, &to->capacity);
    if (to->error < 0)
        return;
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
}

size_t state_begin(struct state_writer *to, const char tag[4], uint16_t version)
{
    struct header header = {.version = version};
    memcpy(header.tag, tag, sizeof(header.tag));
    state_put(to, &header, sizeof(header));
    return to->length;
}

void state_end(struct state_writer *to, size_t begin)
{
    if (to->error < 0)
        return;
    uint32_t length = (uint32_t)(to->length - begin); /* at most STATE_MAX */
    memcpy(to->bytes + begin - sizeof(length), &length, sizeof(length));
}

void state_writer_free(struct state_writer *writer)
{
    free(writer->bytes);
    *writer = (struct state_writer){0};
}

int state_get(struct state_reader *from, void *ret_bytes, size_t length)
{
    if (length > from->length)
        return fail(-EBADMSG, "saved state ends %zu bytes early", length - from->length);
    memcpy(ret_bytes, from->bytes, length);
    from->bytes += length;
    from->length -= length;
    return 0;
}

int state_next(struct state_reader *from, struct state_section *ret_section)
{
    struct header header;
    if (from->length == 0)
        return 0;
    int r = state_get(from, &header, sizeof(header));
    if (r < 0)
        return r;
    if (header.length > from->length || header.zero || header.version == 0)
        return fail(-EBADMSG, "saved state has a section that is damaged");
    *ret_section = (struct state_section){.version = header.version,
                                          .body = {.bytes = from->bytes, .length = header.length}};
    memcpy(ret_section->tag, header.tag, sizeof(header.tag));
    from->bytes += header.length;
    from->length -= header.length;
    return 1;
}

int state_save(const struct state_part *parts, size_t count, const void *owner, struct state_writer *to)
{
    for (size_t i = 0; i < count; i++) {
        size_t start = to->length;
        size_t begin = state_begin(to, parts[i].tag, parts[i].version);
        int r = parts[i].save(owner, to);
        if (r < 0)
            return r;
        if (to->error < 0)
            return to->error;
        if (parts[i].presence == STATE_OPTIONAL && to->length == begin)
            to->length = start;
        else
            state_end(to, begin);
    }
    return 0;
}

static const struct state_part *find_part(const struct state_part *parts, size_t count, const char *tag)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(parts[i].tag, tag, 4) == 0)
            return &parts[i];
    return NULL;
}

/* The section `tag` in `from`: 1 with it, 0 if there is none; -EBADMSG if there are two. */
static int find_section(struct state_reader from, const char *tag, struct state_section *ret_section)
{
    struct state_section section;
    int r, found = 0;
    while ((r = state_next(&from, &section)) > 0) {
        if (strncmp(section.tag, tag, 4) != 0)
            continue;
        if (found)
            return fail(-EBADMSG, "saved state has two sections '%s'", tag);
        *ret_section = section;
        found = 1;
    }
    return r < 0 ? r : found;
}

static int load_part(const struct state_part *part, void *owner, struct state_section *section)
{
    if (section->version > part->version)
        return fail(-ENOTSUP, "saved state has version %u of '%s', and this program knows up to %u",
                    section->version, part->tag, part->version);
    int r = part->load(owner, &section->body, section->version);
    if (r == 0 && section->body.length > 0)
        r = fail(-EBADMSG, "saved state has a section '%s' that is %zu bytes too long", part->tag,
                 section->body.length);
    return r;
}

int state_load(const struct state_part *parts, size_t count, void *owner, struct state_reader from)
{
    struct state_reader unknown = from;
    struct state_section section;
    int r;
    while ((r = state_next(&unknown, &section)) > 0)
        if (!find_part(parts, count, section.tag))
            return fail(-EBADMSG, "saved state has a section that this program does not know");
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = find_section(from, parts[i].tag, &section);
        if (r > 0)
            r = load_part(&parts[i], owner, &section);
        else if (r == 0 && parts[i].presence == STATE_REQUIRED)
            r = fail(-EBADMSG, "saved state has no section '%s'", parts[i].tag);
    }
    return r;
}
