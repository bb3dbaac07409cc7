/*
 * State on its way out of a machine and back in: sections in one growing buffer.
 *
 *   section = tag (4 bytes) | version (u16) | 0 (u16) | length (u32) | body (length bytes)
 *
 * A body holds plain structures, or sections again. Integers are little-endian, and structures have the
 * layout of this host, which is the only one that KVM's structures have. There is no padding between
 * sections.
 *
 * What can be saved and loaded is a table of parts. One walker saves them all, and one loads them all:
 *
 *     static const struct state_part parts[] = {
 *         {"REGS", 1, STATE_REQUIRED, save_registers, load_registers},
 *         {"PIT2", 1, STATE_OPTIONAL, save_timer, load_timer},
 *     };
 *
 * The bytes that are loaded may be anybody's: every length is checked, and nothing is sized by one. They
 * carry no checksum: who stores them sees to that.
 */
#pragma once

#include "base/base.h"

/* Grows as it is written to. Zeroed at first; `bytes` is freed by state_writer_free(). */
struct state_writer {
    uint8_t *bytes;
    size_t length, capacity;
    int error; /* the first one: -ENOMEM, or -EFBIG for more than STATE_MAX. Later writes do nothing. */
};

#define STATE_MAX (64 * MIB) /* of all sections together: a vCPU has some 20 KiB, and there are 254 */

/* Bytes that are not the reader's, from its place on. */
struct state_reader {
    const uint8_t *bytes;
    size_t length;
};

enum state_presence {
    STATE_REQUIRED,
    STATE_OPTIONAL, /* a body of no bytes is left out, and what is left out is not loaded */
};

struct state_part {
    char tag[5];      /* four letters */
    uint16_t version; /* that save() writes, and the newest that load() understands; from 1 */
    enum state_presence presence;
    /* Writes the body. Negative errno with a message. */
    int (*save)(const void *owner, struct state_writer *to);
    /* Reads the body, of this version or an older one. Negative errno with a message. */
    int (*load)(void *owner, struct state_reader *from, uint16_t version);
};

void state_put(struct state_writer *to, const void *bytes, size_t length);

/* A section around what is put between the two calls; `begin` is what state_begin() returned. */
size_t state_begin(struct state_writer *to, const char tag[4], uint16_t version);
void state_end(struct state_writer *to, size_t begin);

void state_writer_free(struct state_writer *writer);

/* -EBADMSG with a message if there are fewer bytes, and then nothing is read. */
int state_get(struct state_reader *from, void *ret_bytes, size_t length);

struct state_section {
    char tag[5];
    uint16_t version;
    struct state_reader body;
};

/* The next section: 1, or 0 at the end. -EBADMSG with a message if there is neither. */
int state_next(struct state_reader *from, struct state_section *ret_section);

/* Saves each part as a section, in the order of the table. A negative errno with a message. */
int state_save(const struct state_part *parts, size_t count, const void *owner, struct state_writer *to);

/*
 * Loads each part, in the order of the table, whatever the order in `from`, of which all is read. -EBADMSG: a
 * section is damaged, missing, unknown, twice there, or longer than its part; -ENOTSUP: it is of a newer
 * version. On failure a part of the owner has been loaded, so that it can only be loaded again or freed.
 */
int state_load(const struct state_part *parts, size_t count, void *owner, struct state_reader from);
