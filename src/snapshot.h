/*
 * A snapshot in files: the state of a machine, and its memory.
 *
 *   state    header (struct snapshot_header) | CONF: snapshot_config.h | MACH: machine_internal.h
 *   memory   the guest's memory from its first byte on, holes for zeros | one page: struct snapshot_trailer
 *
 * The two belong together by an id that both carry, so that a crash between two renames is noticed. All of
 * the state is anybody's bytes: lengths, kind and hash are checked before a section is read.
 */
#pragma once

#include "base/state.h"
#include "config.h"

#define SNAPSHOT_VERSION 1u /* of the header and what it is followed by; sections have their own */

#define SNAPSHOT_ID_BYTES 16u

#define SNAPSHOT_MAGIC        "VOLTSNAP"
#define SNAPSHOT_MEMORY_MAGIC "VOLTMEM1"

struct snapshot_header {
    char magic[8]; /* SNAPSHOT_MAGIC */
    uint32_t version;
    uint32_t machine; /* EM_X86_64 */
    uint64_t length;  /* bytes that follow the header */
    uint64_t memory;  /* bytes of the guest's memory */
    uint8_t id[SNAPSHOT_ID_BYTES];
    uint8_t hash[16]; /* XXH3 of 128 bits, canonical: of this header with zeros here, and all that follows */
};

struct snapshot_trailer {
    char magic[8]; /* SNAPSHOT_MEMORY_MAGIC */
    uint64_t memory;
    uint8_t id[SNAPSHOT_ID_BYTES];
    uint64_t state_length; /* bytes of the state that lies before this page, in the store; 0 in a file */
};

/* The longest state. */
#define SNAPSHOT_STATE_MAX (sizeof(struct snapshot_header) + STATE_MAX)

/* One that is to be restored: its files are open, and what can be checked is. */
struct snapshot {
    uint8_t *bytes; /* the state file */
    struct state_reader config, machine;
    int memory_fd; /* -1: it is in the store */
    struct store *store;
    struct manifest *manifest;
    struct store_lease *lease;
    uint64_t memory; /* bytes */
    bool reads;      /* some of it was read into the guest's memory, and is not mapped */
};

/* The names of the two files in a snapshot's folder. */
#define SNAPSHOT_STATE  "state"
#define SNAPSHOT_MEMORY "memory"

/* -EBADMSG: these are no snapshot, or are damaged, or not of one snapshot; -ENOTSUP: of a newer version, or
 * of another kind of machine; or what open(2) says. All with a message. */
int snapshot_open(const char *state_path, const char *memory_path, struct snapshot *ret_snapshot);
int snapshot_open_folder(const char *folder, struct snapshot *ret_snapshot);

/* One whose memory is there already: the sections that such a file would have, which it takes over. As
 * snapshot_open(). */
int snapshot_of_sections(uint8_t *sections, size_t length, uint64_t memory, struct snapshot *ret_snapshot);
void snapshot_close(struct snapshot *snapshot);

/* Takes the state out of snapshot->bytes, where there are trailer->state_length of it. `name` is for
 * messages. As snapshot_open(). */
int snapshot_take_state(const char *name, const struct snapshot_trailer *trailer, struct snapshot *snapshot);

/* The version of a state file, of which nothing but the header is looked at. As snapshot_open(). */
int snapshot_version(const char *state_path, uint32_t *ret_version);

/* Completes the header over `sections`, `length` bytes. */
void snapshot_seal(struct snapshot_header *header, const void *sections, size_t length);
