/* Inside voltctl: the way to the agent in a guest (docs/agent.md), and one command there. */
#pragma once

#include "agent/frame.h"
#include "ctl/voltctl/voltctl.h"

/*
 * Connects to the agent and sends it the first frame. The answers are to be read from *ret_fd, which waits at
 * most AGENT_PATIENCE_SECONDS at a time. With a message: -ENODEV the VM has no vsock device, -ENOTCONN nobody
 * answers in the guest, -ETIMEDOUT, or another errno.
 */
#define AGENT_PATIENCE_SECONDS 30
int agent_connect(const struct invocation *invocation, const uint8_t *frame, size_t length, int *ret_fd);

/* Asks the guest to power off: 0 when the agent says that it does. */
int agent_power_off(const struct invocation *invocation);

/* Fails with the words of an ERROR, without what a terminal would obey. */
int agent_refused(const char *name, const struct agent_frame *frame);

/* Carries the standard streams, signals and the window's size until the command ends, whose status it
 * returns. Blocks the signals that it passes on. Does not close `conn`. */
int agent_follow(const char *name, int conn, bool tty);
