/* What every folder uses: failing with a message, cleanup attributes, checked arithmetic. Knows nothing of
 * VMs. */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

/* The structure that `member` at `ptr` is embedded in. */
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/*
 * Failing. A function that can fail returns a negative errno value. fail() keeps a message for people beside
 * it and returns its first argument:
 *
 *     return fail(-EINVAL, "%s: not a multiple of 512 bytes (is it truncated?)", path);
 *
 * A message names the thing, the reason and the remedy, with no final full stop. The last message of a thread
 * stays readable through fail_text() until its next fail(). A caller that only passes an error on leaves it
 * alone.
 */
#define fail(negative_errno, ...)                                                                            \
    __extension__({                                                                                          \
        int error_ = (negative_errno);                                                                       \
        fail_message(__VA_ARGS__);                                                                           \
        negative(error_);                                                                                    \
    })

/* fail() with ": " and the errno's own text appended. `negative_errno` is usually -errno. */
#define fail_errno(negative_errno, ...)                                                                      \
    __extension__({                                                                                          \
        int error_ = (negative_errno);                                                                       \
        fail_errno_message(error_, __VA_ARGS__);                                                             \
        negative(error_);                                                                                    \
    })

void fail_message(const char *format, ...) __attribute__((format(printf, 1, 2), cold));
void fail_errno_message(int negative_errno, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Tells the compiler what fail() promises, so that it knows out-parameters to be set where nothing failed. */
static inline int negative(int error)
{
    if (error >= 0)
        __builtin_unreachable();
    return error;
}

/* The message of this thread's last fail(), never NULL. Valid until the next fail() of this thread. */
const char *fail_text(void);

/*
 * A failed check of our own invariants ends the process with the place; never used on anything a guest, a
 * file or a client can influence. Always on (unlike assert), so work inside it is done.
 */
#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
_Noreturn void check_failed(const char *file, int line, const char *condition);

/* Cleanup attributes: run at the end of the scope. A descriptor starts at -1, which is none. */
#define CLEANUP_FREE __attribute__((cleanup(cleanup_free)))
#define CLEANUP_FD   __attribute__((cleanup(cleanup_fd)))

static inline void cleanup_free(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

/* Closes *fd if it is one and sets it to -1. Keeps errno. */
static inline void cleanup_fd(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd); /* on Linux the descriptor is gone even when close() reports EINTR: never retried */
    *fd = -1;
    errno = saved;
}

/* Hands a descriptor over: returns it and leaves -1 behind, so that cleanup does nothing. */
static inline int fd_steal(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Hands a pointer over: returns it and leaves NULL behind. */
#define ptr_steal(pp)                                                                                        \
    __extension__({                                                                                          \
        __typeof__(*(pp)) stolen_ = *(pp);                                                                   \
        *(pp) = NULL;                                                                                        \
        stolen_;                                                                                             \
    })

/* a + b and a * b; true when the result does not fit. */
static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    return __builtin_add_overflow(a, b, ret_sum);
}
static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    return __builtin_mul_overflow(a, b, ret_product);
}

/* `value` rounded down or up to a multiple of `align`, a power of two. Rounding up must not overflow. */
static inline uint64_t align_down(uint64_t value, uint64_t align)
{
    return value & ~(align - 1);
}
static inline uint64_t align_up(uint64_t value, uint64_t align)
{
    return align_down(value + (align - 1), align);
}

/*
 * Room for `wanted` elements in an array that at least doubles when it grows: 0, or -ENOMEM with a message
 * and nothing changed. `array` is the address of the pointer (NULL at first), `capacity` that of a size_t
 * which counts elements (0 at first).
 */
#define array_reserve(array, wanted, capacity)                                                               \
    __extension__({                                                                                          \
        void *grown_ = array_grow(*(array), (wanted), (capacity), sizeof(**(array)));                        \
        if (grown_)                                                                                          \
            *(array) = grown_;                                                                               \
        grown_ ? 0 : -ENOMEM;                                                                                \
    })
void *array_grow(void *array, size_t wanted, size_t *capacity, size_t element_size);

/* A size as people write it: digits and an optional K, M, G or T (powers of 1024, either case, "iB" or "B"
 * may follow). -EINVAL with a message if it is not one, -ERANGE if it does not fit 64 bits. */
int size_parse(const char *text, uint64_t *ret_bytes);

/* `bytes` for people ("1.4 GiB", "512 B") in `buffer`, which is returned. */
#define SIZE_TEXT_MAX 16
char *size_text(uint64_t bytes, char buffer[SIZE_TEXT_MAX]);

/* openat(2) without O_CREAT, with O_NOATIME if the caller owns the file. For small reads, checking whether
 * the access time is due costs as much as finding the page. */
int open_noatime(int dir, const char *path, int flags);

/*
 * A description of its own for a terminal or pipe, opened as `mode` (O_RDONLY, O_WRONLY), non-blocking
 * without changing the one that others share. Anything else, or one that may not be opened again, is `fd`
 * itself.
 */
int fd_own_description(int fd, int mode);

/* Opens a file to be read: not a folder, a device or a FIFO, which would be waited for. -EINVAL or what
 * open(2) says, with a message that begins with `what` and the path. */
int open_input_file(const char *what, const char *path, int *ret_fd);

/*
 * For a file that another process has locked: waits 10 ms and returns true if the caller should try again,
 * for a second in all. A killed process's lock may linger that long: files that its ring used are closed
 * after its end. `*attempts` is 0 at first.
 */
bool lock_again(unsigned *attempts);

/* Before there are threads: makes room for `count` more descriptors in the process's table. Calls add up.
 * Once there are threads, each growth of the table waits for a grace period of 10 ms and more
 * (expand_fdtable() in fs/file.c). A hint: it never fails. */
/* Closes all descriptors of the process but these, which are put into order. For a child of fork(2). */
void fd_close_others(int fds[], size_t count);

void fd_reserve(unsigned count);

/* The next stretch of a file that is not a hole: true and where it begins and ends, cut to at .. end, or
 * false if there is none. Where the file system cannot tell, and on devices, all of it is data. */
bool file_next_data(int fd, uint64_t at, uint64_t end, uint64_t *ret_data, uint64_t *ret_hole);

/* Copies the first `length` bytes of `from`, with its holes, into the empty file `to`: shared where the file
 * system can do that, else copied by the kernel, else by way of us. Negative errno without a message. */
int file_copy_sparse(int from, int to, uint64_t length);

/* Whole buffers: retried on EINTR and short counts. 0, or -errno; -EPIPE (no message) if the file ends
 * early. */
int read_full_at(int fd, void *buffer, size_t length, uint64_t offset);
int write_full_at(int fd, const void *buffer, size_t length, uint64_t offset);
int write_full(int fd, const void *buffer, size_t length);
