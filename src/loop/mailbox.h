/*
 * The mailbox: how other threads hand the loop something to do, in order.
 *
 * One bounded queue for all senders, so that the loop sees messages in the order in which they were posted,
 * whoever posted them: a guest that writes a register on one CPU and then, after telling it so, on another,
 * is seen in that order. A full mailbox makes the sender wait (the loop never waits for a sender), which is
 * the flow control.
 */
#pragma once

#include "loop/loop.h"
#include <stdatomic.h>

struct mailbox;

struct message {
    uint64_t address;
    uint64_t value;
    uint32_t length;
    uint32_t kind; /* the owner's own meaning */
    void *payload; /* for the answer; the owner's own meaning */
};

/* Called on the loop thread for each message, in order. */
typedef void mailbox_deliver(void *owner, const struct message *message);

/* Negative errno with a message. */
int mailbox_new(struct loop *loop, mailbox_deliver *deliver, void *owner, struct mailbox **ret_mailbox);
/* After the last post, and when the loop does not run again: its watch is not cancelled. */
void mailbox_free(struct mailbox *mailbox);

/* Any thread but the loop's. Posts a message and, if the loop may be asleep, wakes it. Waits while the
 * mailbox is full, so the loop must run, or be about to. */
void mailbox_post(struct mailbox *mailbox, const struct message *message);

/* Loop thread. Delivers what has been posted so far. Does nothing when called from a delivery. */
void mailbox_drain(struct mailbox *mailbox);
