/* Saved state: sections of whatever bytes, loaded by a table of parts. */
#include "base/state.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct thing {
    uint64_t words[4];
    uint8_t bytes[32];
    size_t length;
};

static int save_words(const void *owner, struct state_writer *to)
{
    const struct thing *thing = owner;
    state_put(to, thing->words, sizeof(thing->words));
    return 0;
}
static int load_words(void *owner, struct state_reader *from, uint16_t version)
{
    struct thing *thing = owner;
    (void)version;
    return state_get(from, thing->words, sizeof(thing->words));
}
static int save_bytes(const void *owner, struct state_writer *to)
{
    const struct thing *thing = owner;
    state_put(to, thing->bytes, thing->length);
    return 0;
}
static int load_bytes(void *owner, struct state_reader *from, uint16_t version)
{
    struct thing *thing = owner;
    (void)version;
    if (from->length > sizeof(thing->bytes))
        return fail(-EBADMSG, "too long");
    thing->length = from->length;
    return state_get(from, thing->bytes, from->length);
}
static const struct state_part parts[] = {
    {"WORD", 1, STATE_REQUIRED, save_words, load_words},
    {"BYTE", 3, STATE_OPTIONAL, save_bytes, load_bytes},
};

/* What is loaded can be saved, and is then loaded as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct thing thing = {0}, again = {0};
    if (state_load(parts, ARRAY_SIZE(parts), &thing, (struct state_reader){data, size}) < 0)
        return 0;
    struct state_writer writer = {0};
    CHECK(state_save(parts, ARRAY_SIZE(parts), &thing, &writer) == 0);
    CHECK(state_load(parts, ARRAY_SIZE(parts), &again, (struct state_reader){writer.bytes, writer.length}) ==
          0);
    CHECK(again.length == thing.length && memcmp(&again, &thing, sizeof(thing)) == 0);
    state_writer_free(&writer);
    return 0;
}
