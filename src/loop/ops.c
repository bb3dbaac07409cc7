/* Starting ops. An op that is new here has its row in loop_restrict(), too. */
#include "loop/internal.h"

#include <sys/socket.h>

/* The last step of every start: from here on the SQE is the op's. */
static void start(struct io_uring_sqe *sqe, struct loop_op *op)
{
    CHECK(!op->in_flight);
    op->in_flight = true;
    io_uring_sqe_set_data64(sqe, user_data_of_op(op));
}

void loop_read(struct loop *loop, struct loop_op *op, int fd, void *buffer, uint32_t length, uint64_t offset)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_read(sqe, fd, buffer, length, offset);
    start(sqe, op);
}

void loop_write(struct loop *loop, struct loop_op *op, int fd, const void *buffer, uint32_t length,
                uint64_t offset)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_write(sqe, fd, buffer, length, offset);
    start(sqe, op);
}

void loop_readv(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                uint64_t offset)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_readv(sqe, fd, iov, count, offset);
    start(sqe, op);
}

void loop_writev(struct loop *loop, struct loop_op *op, int fd, const struct iovec *iov, unsigned count,
                 uint64_t offset)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_writev(sqe, fd, iov, count, offset);
    start(sqe, op);
}

void loop_fdatasync(struct loop *loop, struct loop_op *op, int fd)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    start(sqe, op);
}

void loop_fallocate(struct loop *loop, struct loop_op *op, int fd, int mode, uint64_t offset, uint64_t length)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)length);
    start(sqe, op);
}

void loop_accept(struct loop *loop, struct loop_op *op, int fd)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    start(sqe, op);
}

void loop_connect(struct loop *loop, struct loop_op *op, int fd, const struct sockaddr *address,
                  uint32_t length)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_connect(sqe, fd, address, length);
    start(sqe, op);
}

void loop_recv(struct loop *loop, struct loop_op *op, int fd, void *buffer, uint32_t length)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_recv(sqe, fd, buffer, length, 0);
    start(sqe, op);
}

void loop_send(struct loop *loop, struct loop_op *op, int fd, const void *buffer, uint32_t length)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_send(sqe, fd, buffer, length, MSG_NOSIGNAL);
    start(sqe, op);
}

void loop_recvmsg(struct loop *loop, struct loop_op *op, int fd, struct msghdr *message)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_recvmsg(sqe, fd, message, MSG_CMSG_CLOEXEC);
    start(sqe, op);
}

void loop_sendmsg(struct loop *loop, struct loop_op *op, int fd, const struct msghdr *message)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL);
    start(sqe, op);
}

void loop_poll(struct loop *loop, struct loop_op *op, int fd, uint32_t events)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_poll_add(sqe, fd, events);
    start(sqe, op);
}

void loop_watch(struct loop *loop, struct loop_op *op, int fd, uint32_t events)
{
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    if (loop->polls_multishot)
        io_uring_prep_poll_multishot(sqe, fd, events);
    else
        io_uring_prep_poll_add(sqe, fd, events);
    start(sqe, op);
}

void loop_timer_start(struct loop *loop, struct loop_timer *timer, uint64_t nanoseconds)
{
    timer->spec[0] = (int64_t)(nanoseconds / 1000000000u);
    timer->spec[1] = (int64_t)(nanoseconds % 1000000000u);
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_timeout(sqe, (struct __kernel_timespec *)timer->spec, 0, 0);
    start(sqe, &timer->op);
}

void loop_cancel(struct loop *loop, struct loop_op *op)
{
    if (!op->in_flight)
        return;
    struct io_uring_sqe *sqe = loop_next_sqe(loop);
    io_uring_prep_cancel64(sqe, user_data_of_op(op), 0);
    io_uring_sqe_set_data64(sqe, user_data_of_op(NULL));
}
