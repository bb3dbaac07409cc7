/* Requests of a disk, started by the test itself and waited for. For one source file of a program. */
#pragma once

#include "dev/disk.h"

#include <criterion/criterion.h>

static struct loop *loop;

struct request {
    struct disk_io io;
    struct iovec iov[3];
    uint8_t *bytes;
    int result;
};
static unsigned pending;

static inline void request_done(struct disk_io *io, int result)
{
    container_of(io, struct request, io)->result = result;
    if (--pending == 0)
        loop_stop(loop, 0);
}

/* Three buffers of unequal lengths over the request's bytes. */
static inline void request_make(struct request *request, uint64_t offset, uint64_t length)
{
    *request = (struct request){.bytes = malloc(length), .result = 1};
    uint64_t first = length / 3, second = length / 2;
    request->iov[0] = (struct iovec){request->bytes, first};
    request->iov[1] = (struct iovec){request->bytes + first, second - first};
    request->iov[2] = (struct iovec){request->bytes + second, length - second};
    request->io = (struct disk_io){
        .iov = request->iov, .iov_count = 3, .offset = offset, .length = length, .done = request_done};
}

typedef void disk_operation(struct disk *disk, struct disk_io *io);

static inline void wait_for_requests(void)
{
    while (pending > 0) /* a request that ended at once has stopped the next run */
        cr_assert_eq(loop_run(loop), 0, "loop: %s", fail_text());
}

/* One operation, waited for. */
static inline int run_one(disk_operation *operation, struct disk *disk, struct request *request)
{
    pending++;
    operation(disk, &request->io);
    if (pending > 0)
        wait_for_requests();
    return request->result;
}
