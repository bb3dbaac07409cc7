/*
 * Frames of the agent's protocol, version 1: docs/agent.md has the whole of it. Both ends use this file.
 * Pure.
 *
 * A frame is a header of AGENT_HEADER bytes (type, three bytes of zero, the body's length) and a body.
 * Numbers are little-endian. One connection is one command.
 */
#pragma once

#include "base/base.h"

/* Below 1024 only root may listen, so no other program of the guest can pass for the agent. */
#define AGENT_PORT    1023u
#define AGENT_VERSION 1u
#define AGENT_MAGIC   0x544c4f56u /* "VOLT" */
#define AGENT_HEADER  8u

#define AGENT_DATA_MAX     (32u * 1024) /* body of STDIN, STDOUT and STDERR */
#define AGENT_REQUEST_MAX  (128u * 1024)
#define AGENT_FRAME_MAX    (AGENT_HEADER + AGENT_REQUEST_MAX)
#define AGENT_WORDS_MAX    512u         /* of an ERROR */
#define AGENT_STDIN_WINDOW (64u * 1024) /* bytes of STDIN that may be without CREDIT */
#define AGENT_STRINGS_MAX  4096u        /* arguments, and variables */
#define AGENT_SIGNAL_MAX   64u

enum agent_type {
    /* From the host; the first frame is one of the first two. */
    AGENT_EXEC = 1,
    AGENT_POWER_OFF = 2,
    AGENT_STDIN = 3,
    AGENT_STDIN_EOF = 4,
    AGENT_SIGNAL = 5,
    AGENT_WINDOW = 6,
    /* From the guest. */
    AGENT_STDOUT = 129,
    AGENT_STDERR = 130,
    AGENT_CREDIT = 131,
    AGENT_EXIT = 132,
    AGENT_ERROR = 133,
};

enum agent_side { AGENT_HOST, AGENT_GUEST };

/* Of an ERROR. */
enum agent_error {
    AGENT_ERROR_PROTOCOL = 1,
    AGENT_ERROR_VERSION = 2,
    AGENT_ERROR_BUSY = 3,  /* too many commands */
    AGENT_ERROR_START = 4, /* the guest lacks what a command needs */
};

struct agent_frame {
    enum agent_type type;
    uint8_t *body;
    uint32_t length;
};

/* The frame at the start of `bytes`, sent by `from`. Returns its size with header, 0 if it is not all there,
 * or -EPROTO with a message. The body points into `bytes`. */
ssize_t agent_frame_read(uint8_t *bytes, size_t length, enum agent_side from, struct agent_frame *ret_frame);

/* The body's length has been checked to be in the bounds of `type`. */
void agent_header_write(uint8_t header[AGENT_HEADER], enum agent_type type, uint32_t length);

/* Numbers of a body. */
uint32_t agent_get32(const uint8_t *at);
void agent_put32(uint8_t *at, uint32_t value);
void agent_put_window(uint8_t at[4], uint16_t rows, uint16_t columns);
void agent_get_window(const uint8_t at[4], uint16_t *ret_rows, uint16_t *ret_columns);

enum { AGENT_WITH_TTY = 1, AGENT_WITH_USER = 2 };

struct agent_request {
    uint16_t flags;
    uint32_t uid, gid;      /* with AGENT_WITH_USER */
    uint16_t rows, columns; /* with AGENT_WITH_TTY; 0: not known */
    const char *directory;  /* "": the agent's own choice */
    size_t argument_count, variable_count;
    const char *arguments[AGENT_STRINGS_MAX + 1]; /* NULL at the end */
    const char *variables[AGENT_STRINGS_MAX + 1]; /* NAME=VALUE */
};

/* The body of an EXEC, whose strings *ret_request then points to. -EPROTONOSUPPORT another version, -EPROTO
 * what is none; with a message. */
int agent_request_read(const uint8_t *body, size_t length, struct agent_request *ret_request);

/* A whole EXEC frame into `frame`; its size, or -E2BIG with a message. */
ssize_t agent_request_write(const struct agent_request *request, uint8_t frame[AGENT_FRAME_MAX]);

/* A whole POWER_OFF, and the check of a received body: as agent_request_read(). */
#define AGENT_POWER_OFF_BODY 8u
void agent_power_off_write(uint8_t frame[AGENT_HEADER + AGENT_POWER_OFF_BODY]);
int agent_greeting_read(const uint8_t *body);
