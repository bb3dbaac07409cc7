/* The agent: runs commands for the host, over vsock (docs/agent.md). In PID 1's one loop; never waits. */
#pragma once

#include "agent/frame.h"

#include <poll.h>

#define AGENT_SESSIONS_MAX 64
#define AGENT_POLLS_EACH   4 /* connection, standard input, output and error */
#define AGENT_POLLS        (1 + AGENT_SESSIONS_MAX * AGENT_POLLS_EACH)

/* agent.c: listens, if this kernel has a vsock driver. Says why it cannot. */
void agent_start(void);
/* Fills `waits` for poll(2): how many there are; *ret_timeout_ms is the longest wait, -1 is for ever. */
nfds_t agent_waits(struct pollfd waits[AGENT_POLLS], int *ret_timeout_ms);
/* Does what poll() found. True if the host asks for the power to go off. */
bool agent_serve(const struct pollfd waits[AGENT_POLLS]);
/* A child was reaped, of the agent's or not. */
void agent_child_ended(pid_t pid, int status);

/* agent_command.c: a command that runs, and our ends of its standard streams. */
struct agent_command {
    pid_t pid;
    int input;     /* pipe, or the terminal */
    int output[2]; /* standard output and error; -1: none. A terminal has the first only */
};

/* All descriptors are non-blocking. A negative errno with a message. The caller owns what it gets. */
int agent_command_start(const struct agent_request *request, struct agent_command *ret_command);

/* agent_session.c: one connection of the host's, and its command. */
struct session {
    int conn; /* -1: gone */
    bool asked, tty, reaped, end_of_input, closing;
    bool power_off; /* the host asks for it */
    struct agent_command command;
    int status;          /* once it is reaped */
    int64_t deadline_ms; /* for the request, then for the command without a host; 0: none */
    uint32_t credit;     /* bytes of input that the host has not been told about */
    size_t drain;        /* bytes that a command which has ended may still have in its pipes */
    size_t received;     /* of `input` */
    size_t sent, size;   /* of `output` */
    size_t queue_start, queued;
    unsigned turn; /* the stream to be read next */
    uint8_t input[AGENT_FRAME_MAX];
    uint8_t output[AGENT_HEADER + AGENT_DATA_MAX];
    uint8_t queue[AGENT_STDIN_WINDOW]; /* standard input that the command has not taken */
};

int64_t agent_now_ms(void);
/* NULL: no memory. Takes `conn` over. */
struct session *session_new(int conn);
void session_free(struct session *session);
void session_waits(const struct session *session, struct pollfd waits[AGENT_POLLS_EACH]);
void session_serve(struct session *session, const struct pollfd waits[AGENT_POLLS_EACH]);
void session_child_ended(struct session *session, int status);
/* Whether more is to be done without waiting for a descriptor. */
bool session_is_ready(const struct session *session);
/* After its deadline, or once its connection is gone: true if nothing is left to wait for. */
bool session_is_over(struct session *session, int64_t now_ms);
