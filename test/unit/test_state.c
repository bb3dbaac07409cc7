/* Saved state: what was saved is loaded, and nothing else is taken. */
#include "base/state.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(state, .timeout = 10);

struct thing {
    uint32_t number;
    uint8_t list[8];
    uint32_t list_length;
    bool has_extra;
    uint16_t extra;
    unsigned loads;
    unsigned order[3];
};

static int save_number(const void *owner, struct state_writer *to)
{
    const struct thing *thing = owner;
    state_put(to, &thing->number, sizeof(thing->number));
    return 0;
}
static int load_number(void *owner, struct state_reader *from, uint16_t version)
{
    struct thing *thing = owner;
    thing->order[0] = ++thing->loads;
    if (version == 1) { /* was 16 bits wide */
        uint16_t number = 0;
        int r = state_get(from, &number, sizeof(number));
        thing->number = number;
        return r;
    }
    return state_get(from, &thing->number, sizeof(thing->number));
}

static int save_list(const void *owner, struct state_writer *to)
{
    const struct thing *thing = owner;
    state_put(to, thing->list, thing->list_length);
    return 0;
}
static int load_list(void *owner, struct state_reader *from, uint16_t version)
{
    struct thing *thing = owner;
    (void)version;
    thing->order[1] = ++thing->loads;
    if (from->length > sizeof(thing->list))
        return fail(-EBADMSG, "the list is too long");
    thing->list_length = (uint32_t)from->length;
    return state_get(from, thing->list, from->length);
}

static int save_extra(const void *owner, struct state_writer *to)
{
    const struct thing *thing = owner;
    if (thing->has_extra)
        state_put(to, &thing->extra, sizeof(thing->extra));
    return 0;
}
static int load_extra(void *owner, struct state_reader *from, uint16_t version)
{
    struct thing *thing = owner;
    (void)version;
    thing->order[2] = ++thing->loads;
    thing->has_extra = true;
    return state_get(from, &thing->extra, sizeof(thing->extra));
}

static const struct state_part parts[] = {
    {"NUMB", 2, STATE_REQUIRED, save_number, load_number},
    {"LIST", 1, STATE_REQUIRED, save_list, load_list},
    {"EXTR", 1, STATE_OPTIONAL, save_extra, load_extra},
};
static const struct thing full = {
    .number = 0x12345678, .list = {1, 2, 3}, .list_length = 3, .has_extra = true, .extra = 77};

static struct state_writer saved(const struct thing *thing)
{
    struct state_writer writer = {0};
    cr_assert_eq(state_save(parts, ARRAY_SIZE(parts), thing, &writer), 0, "save: %s", fail_text());
    return writer;
}

static int load(const void *bytes, size_t length, struct thing *thing)
{
    *thing = (struct thing){0};
    return state_load(parts, ARRAY_SIZE(parts), thing, (struct state_reader){bytes, length});
}

Test(state, comes_back)
{
    struct thing thing;
    struct state_writer writer = saved(&full);
    cr_assert_eq(load(writer.bytes, writer.length, &thing), 0, "load: %s", fail_text());
    cr_assert(thing.number == full.number && thing.list_length == 3 && thing.list[2] == 3 &&
                  thing.extra == full.extra,
              "what was saved");
    state_writer_free(&writer);

    const struct thing less = {.number = 5};
    writer = saved(&less);
    cr_assert_eq(load(writer.bytes, writer.length, &thing), 0, "load: %s", fail_text());
    cr_assert(thing.number == 5 && thing.list_length == 0 && !thing.has_extra, "without the optional part");
    cr_assert_eq(thing.loads, 2, "an empty list is there, and an optional part of no bytes is not");
    state_writer_free(&writer);
}

Test(state, the_format_is_this)
{
    static const uint8_t golden[] = "NUMB\2\0\0\0\4\0\0\0\x78\x56\x34\x12"
                                    "LIST\1\0\0\0\3\0\0\0\1\2\3"
                                    "EXTR\1\0\0\0\2\0\0\0\x4d";
    struct state_writer writer = saved(&full);
    cr_assert_eq(writer.length, sizeof(golden), "%zu bytes", writer.length);
    cr_assert_arr_eq(writer.bytes, golden, sizeof(golden), "byte for byte");
    state_writer_free(&writer);
}

Test(state, is_loaded_in_the_order_of_the_table)
{
    static const uint8_t backwards[] = "EXTR\1\0\0\0\2\0\0\0\1\0"
                                       "LIST\1\0\0\0\0\0\0\0"
                                       "NUMB\1\0\0\0\2\0\0\0\5";
    struct thing thing;
    cr_assert_eq(load(backwards, sizeof(backwards), &thing), 0, "load: %s", fail_text());
    cr_assert(thing.order[0] == 1 && thing.order[1] == 2 && thing.order[2] == 3, "the table's order");
    cr_assert_eq(thing.number, 5, "an older version");
}

Test(state, is_refused_when_it_is_not_whole)
{
    static const struct {
        const char *what, *bytes;
        size_t length;
        int error;
    } rows[] = {
        {"nothing", "", 0, -EBADMSG},
        {"a part missing", "NUMB\2\0\0\0\4\0\0\0\1\0\0\0", 16, -EBADMSG},
        {"a part twice", "NUMB\1\0\0\0\2\0\0\0\1\0LIST\1\0\0\0\0\0\0\0LIST\1\0\0\0\0\0\0\0", 38, -EBADMSG},
        {"an unknown part", "NUMB\1\0\0\0\2\0\0\0\1\0LIST\1\0\0\0\0\0\0\0WHAT\1\0\0\0\0\0\0\0", 38, -EBADMSG},
        {"a newer version", "NUMB\3\0\0\0\2\0\0\0\1\0LIST\1\0\0\0\0\0\0\0", 26, -ENOTSUP},
        {"version 0", "NUMB\0\0\0\0\2\0\0\0\1\0LIST\1\0\0\0\0\0\0\0", 26, -EBADMSG},
        {"a body too short", "NUMB\2\0\0\0\2\0\0\0\1\0LIST\1\0\0\0\0\0\0\0", 26, -EBADMSG},
        {"a body too long", "NUMB\1\0\0\0\3\0\0\0\1\0\0LIST\1\0\0\0\0\0\0\0", 27, -EBADMSG},
        {"a length beyond the end", "NUMB\1\0\0\0\377\377\377\377\1\0LIST\1\0\0\0\0\0\0\0", 26, -EBADMSG},
    };
    struct thing thing;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        cr_expect_eq(load(rows[i].bytes, rows[i].length, &thing), rows[i].error, "%s: %s", rows[i].what,
                     fail_text());
    struct state_writer writer = saved(&full);
    for (size_t cut = 1; cut < writer.length - 14; cut++) /* the last 14 bytes are optional */
        cr_expect_eq(load(writer.bytes, cut, &thing), -EBADMSG, "cut to %zu bytes", cut);
    state_writer_free(&writer);
}

Test(state, sections_nest)
{
    struct state_writer writer = {0};
    for (unsigned i = 0; i < 3; i++) {
        struct thing thing = {.number = i};
        size_t begin = state_begin(&writer, "THNG", 1);
        cr_assert_eq(state_save(parts, ARRAY_SIZE(parts), &thing, &writer), 0, "save");
        state_end(&writer, begin);
    }
    struct state_reader reader = {writer.bytes, writer.length};
    struct state_section section;
    for (unsigned i = 0; i < 3; i++) {
        struct thing thing = {0};
        cr_assert_eq(state_next(&reader, &section), 1, "thing %u", i);
        cr_assert_eq(state_load(parts, ARRAY_SIZE(parts), &thing, section.body), 0, "load: %s", fail_text());
        cr_assert_eq(thing.number, i, "in order");
    }
    cr_assert_eq(state_next(&reader, &section), 0, "and no more");
    state_writer_free(&writer);
}

Test(state, is_bounded)
{
    struct state_writer writer = {0};
    static uint8_t block[1 << 20];
    for (unsigned i = 0; i < STATE_MAX / sizeof(block); i++)
        state_put(&writer, block, sizeof(block));
    cr_assert_eq(writer.error, 0, "as much as may be");
    state_put(&writer, block, 1);
    cr_assert_eq(writer.error, -EFBIG, "and no more");
    state_writer_free(&writer);
}
