/* Between the files of loop/ only. */
#pragma once

#include "loop/loop.h"

#include <liburing.h>

/* Work for the control plane, which is no op: libev.c. */
struct loop_control {
    void (*run)(struct loop_control *control); /* clears `due` */
    void (*free)(struct loop_control *control);
    bool due;
};

struct loop {
    struct io_uring ring;
    bool enabled; /* the kernel takes what is submitted: from loop_restrict() or the first submission on */
    bool polls_multishot; /* this kernel has multishot polls */
    bool running;
    bool stopped;
    int stop_value;
    struct loop_counts counts;

    struct loop_prepare *prepares, **prepares_end;
    struct loop_prepare *next_prepare; /* while they are run: the one after this, which may be removed too */
    bool preparing;

    struct loop_control *control; /* NULL until somebody wants it */

    /* Completions that had to be taken before it was time to handle them. */
    struct io_uring_cqe *early;
    size_t early_count, early_taken, early_capacity;
};

/* The next free SQE; a full queue is submitted first. */
struct io_uring_sqe *loop_next_sqe(struct loop *loop);

/* User data of the ring is made and taken apart by this pair alone. No op is 0: the answer to a cancel. */
static inline uint64_t user_data_of_op(const struct loop_op *op)
{
    return (uintptr_t)op;
}
static inline struct loop_op *op_of_user_data(uint64_t user_data)
{
    return (struct loop_op *)(uintptr_t)user_data;
}
