#include "agent/frame.h"

#include <string.h>

/* The fixed part of an EXEC: magic, version, flags, uid, gid, rows, columns, two counts. */
#define REQUEST_FIXED 24u

static const struct bounds {
    enum agent_type type;
    uint32_t least, most;
} bounds[] = {
    {AGENT_EXEC, REQUEST_FIXED, AGENT_REQUEST_MAX},
    {AGENT_POWER_OFF, AGENT_POWER_OFF_BODY, AGENT_POWER_OFF_BODY},
    {AGENT_STDIN, 1, AGENT_DATA_MAX},
    {AGENT_STDIN_EOF, 0, 0},
    {AGENT_SIGNAL, 4, 4},
    {AGENT_WINDOW, 4, 4},
    {AGENT_STDOUT, 1, AGENT_DATA_MAX},
    {AGENT_STDERR, 1, AGENT_DATA_MAX},
    {AGENT_CREDIT, 4, 4},
    {AGENT_EXIT, 4, 4},
    {AGENT_ERROR, 4, 4 + AGENT_WORDS_MAX},
};

/* ---- Numbers ---- */

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static void put16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}

uint32_t agent_get32(const uint8_t *at)
{
    return (uint32_t)get16(at) | (uint32_t)get16(at + 2) << 16;
}

void agent_put32(uint8_t *at, uint32_t value)
{
    put16(at, (uint16_t)value);
    put16(at + 2, (uint16_t)(value >> 16));
}

void agent_put_window(uint8_t at[4], uint16_t rows, uint16_t columns)
{
    put16(at, rows);
    put16(at + 2, columns);
}

void agent_get_window(const uint8_t at[4], uint16_t *ret_rows, uint16_t *ret_columns)
{
    *ret_rows = get16(at);
    *ret_columns = get16(at + 2);
}

/* ---- Frames ---- */

ssize_t agent_frame_read(uint8_t *bytes, size_t length, enum agent_side from, struct agent_frame *ret_frame)
{
    const struct bounds *found = NULL;
    if (length < AGENT_HEADER)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(bounds); i++)
        if (bounds[i].type == bytes[0] && (bytes[0] >= AGENT_STDOUT) == (from == AGENT_GUEST))
            found = &bounds[i];
    if (!found || bytes[1] || bytes[2] || bytes[3])
        return fail(-EPROTO, "a frame of type %u: there is none such", bytes[0]);
    uint32_t body = agent_get32(bytes + 4);
    if (body < found->least || body > found->most)
        return fail(-EPROTO, "a frame of type %u with %u bytes", bytes[0], body);
    if (length - AGENT_HEADER < body)
        return 0;
    *ret_frame = (struct agent_frame){.type = found->type, .body = bytes + AGENT_HEADER, .length = body};
    return (ssize_t)(AGENT_HEADER + body);
}

void agent_header_write(uint8_t header[AGENT_HEADER], enum agent_type type, uint32_t length)
{
    agent_put32(header, type);
    agent_put32(header + 4, length);
}

/* ---- The first frame ---- */

int agent_greeting_read(const uint8_t *body)
{
    if (agent_get32(body) != AGENT_MAGIC)
        return fail(-EPROTO, "not a client of this agent");
    if (get16(body + 4) != AGENT_VERSION)
        return fail(-EPROTONOSUPPORT, "this agent speaks version %u of its protocol, not %u", AGENT_VERSION,
                    get16(body + 4));
    return 0;
}

void agent_power_off_write(uint8_t frame[AGENT_HEADER + AGENT_POWER_OFF_BODY])
{
    agent_header_write(frame, AGENT_POWER_OFF, AGENT_POWER_OFF_BODY);
    agent_put32(frame + AGENT_HEADER, AGENT_MAGIC);
    agent_put32(frame + AGENT_HEADER + 4, AGENT_VERSION);
}

/* Takes a terminated string off *cursor. */
static const char *take_string(const uint8_t **cursor, const uint8_t *end)
{
    const uint8_t *start = *cursor;
    const uint8_t *terminator = memchr(start, '\0', (size_t)(end - start));
    if (!terminator)
        return NULL;
    *cursor = terminator + 1;
    return (const char *)start;
}

static bool take_strings(const uint8_t **cursor, const uint8_t *end, size_t count, const char **strings)
{
    for (size_t i = 0; i < count; i++) {
        strings[i] = take_string(cursor, end);
        if (!strings[i])
            return false;
    }
    strings[count] = NULL;
    return true;
}

static bool are_variables(const char *const *strings)
{
    for (; *strings; strings++) {
        const char *equals = strchr(*strings, '=');
        if (!equals || equals == *strings)
            return false;
    }
    return true;
}

int agent_request_read(const uint8_t *body, size_t length, struct agent_request *request)
{
    const uint8_t *cursor = body + REQUEST_FIXED, *end = body + length;
    if (length < REQUEST_FIXED)
        return fail(-EPROTO, "the request is too short");
    int r = agent_greeting_read(body);
    if (r < 0)
        return r;
    request->flags = get16(body + 6);
    request->uid = agent_get32(body + 8);
    request->gid = agent_get32(body + 12);
    agent_get_window(body + 16, &request->rows, &request->columns);
    request->argument_count = get16(body + 20);
    request->variable_count = get16(body + 22);
    if (request->flags & ~(AGENT_WITH_TTY | AGENT_WITH_USER))
        return fail(-EPROTO, "the request has flags that this agent does not know");
    if (request->uid == UINT32_MAX || request->gid == UINT32_MAX)
        return fail(-EPROTO, "the user is none");
    if (request->argument_count == 0 || request->argument_count > AGENT_STRINGS_MAX ||
        request->variable_count > AGENT_STRINGS_MAX)
        return fail(-EPROTO, "the request has no command, or more than %u words", AGENT_STRINGS_MAX);
    request->directory = take_string(&cursor, end);
    if (!request->directory || !take_strings(&cursor, end, request->argument_count, request->arguments) ||
        !take_strings(&cursor, end, request->variable_count, request->variables) || cursor != end)
        return fail(-EPROTO, "the request's strings do not fill it");
    if (!request->arguments[0][0])
        return fail(-EPROTO, "the command's name is empty");
    return are_variables(request->variables) ? 0 : fail(-EPROTO, "a variable without a name");
}

static bool add_string(uint8_t **cursor, const uint8_t *end, const char *string)
{
    size_t size = strlen(string) + 1;
    if (size > (size_t)(end - *cursor))
        return false;
    *cursor = mempcpy(*cursor, string, size);
    return true;
}

static bool add_strings(uint8_t **cursor, const uint8_t *end, size_t count, const char *const *strings)
{
    for (size_t i = 0; i < count; i++)
        if (!add_string(cursor, end, strings[i]))
            return false;
    return true;
}

ssize_t agent_request_write(const struct agent_request *request, uint8_t frame[AGENT_FRAME_MAX])
{
    uint8_t *body = frame + AGENT_HEADER, *cursor = body + REQUEST_FIXED;
    const uint8_t *end = frame + AGENT_FRAME_MAX;
    agent_put32(body, AGENT_MAGIC);
    put16(body + 4, AGENT_VERSION);
    put16(body + 6, request->flags);
    agent_put32(body + 8, request->uid);
    agent_put32(body + 12, request->gid);
    agent_put_window(body + 16, request->rows, request->columns);
    put16(body + 20, (uint16_t)request->argument_count);
    put16(body + 22, (uint16_t)request->variable_count);
    if (request->argument_count > AGENT_STRINGS_MAX || request->variable_count > AGENT_STRINGS_MAX ||
        !add_string(&cursor, end, request->directory) ||
        !add_strings(&cursor, end, request->argument_count, request->arguments) ||
        !add_strings(&cursor, end, request->variable_count, request->variables))
        return fail(-E2BIG, "the command is too long: at most %u words and %u KiB", AGENT_STRINGS_MAX,
                    AGENT_REQUEST_MAX / 1024);
    agent_header_write(frame, AGENT_EXEC, (uint32_t)(cursor - body));
    return cursor - frame;
}
