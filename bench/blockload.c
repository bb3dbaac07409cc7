/*
 * blockload: the guest's part of bench/block, as its first process and only one.
 *
 *     blockload make FILE BYTES   (outside) a disk of which every word says where it is
 *     blockload                   as init: runs the pattern that `blockload=PATTERN` on the kernel's command
 * line names on /dev/vda, past the page cache, and prints "blockload: PATTERN NANOSECONDS", the time of one
 * request as the guest sees it
 *
 * What is read is checked. Reads are from the first half of the disk, writes go to the second.
 */
#include "base/base.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <time.h>

#define DEPTH_MAX 32u
#define WARM_UP   64u /* requests before those that count, at most: queues, caches and workers exist then */

struct pattern {
    const char *name;
    bool write, flush, random;
    uint32_t length;
    unsigned
        depth; /* requests of one batch; 1 is pread and pwrite, more is io_uring with one enter a batch */
    unsigned requests;
};

static const struct pattern patterns[] = {
    {"read-4k-depth-1", .random = true, .length = 4096, .depth = 1, .requests = 600},
    {"read-4k-depth-32", .random = true, .length = 4096, .depth = 32, .requests = 2048},
    {"write-4k-depth-1", .write = true, .random = true, .length = 4096, .depth = 1, .requests = 600},
    {"write-4k-depth-32", .write = true, .random = true, .length = 4096, .depth = 32, .requests = 2048},
    {"read-128k-depth-4", .length = 128 * 1024, .depth = 4, .requests = 400},
    {"write-4k-flush", .write = true, .flush = true, .random = true, .length = 4096, .depth = 1,
     .requests = 300},
};

struct load {
    const struct pattern *pattern;
    int fd;
    uint64_t half; /* bytes */
    uint64_t at;   /* of the next sequential request */
    uint32_t random;
    uint8_t *buffers;
    uint64_t offsets[DEPTH_MAX];
    struct io_uring ring;
};

/* To the kernel's log, at the level that `quiet` lets through: it is on the serial line when this returns,
 * also where the guest's kernel has no interrupt for that line. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    FILE *log = fopen("/dev/kmsg", "we");
    if (!log)
        return;
    va_list arguments;
    va_start(arguments, format);
    fputs("<0>blockload: ", log);
    vfprintf(log, format, arguments);
    fputc('\n', log);
    va_end(arguments);
    fclose(log);
}

_Noreturn static void die(const char *what)
{
    say("%s: %s", what, strerror(errno));
    reboot(RB_AUTOBOOT);
    exit(1);
}

static uint64_t word_at(uint64_t offset)
{
    return (offset + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static int make(const char *path, uint64_t bytes)
{
    static uint64_t words[MIB / 8];
    CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    for (uint64_t offset = 0; fd >= 0 && offset < bytes; offset += sizeof(words)) {
        for (uint64_t i = 0; i < ARRAY_SIZE(words); i++)
            words[i] = word_at(offset + 8 * i);
        if (write_full_at(fd, words, sizeof(words), offset) < 0)
            break;
        if (offset + sizeof(words) >= bytes)
            return 0;
    }
    perror(path);
    return 1;
}

static uint64_t next_offset(struct load *load)
{
    const struct pattern *pattern = load->pattern;
    uint64_t blocks = load->half / pattern->length, block = load->at++;
    if (pattern->random) {
        load->random = load->random * 1664525u + 1013904223u;
        block = load->random >> 8;
    }
    return block % blocks * pattern->length + (pattern->write ? load->half : 0);
}

static void check(struct load *load, unsigned i)
{
    uint64_t first;
    memcpy(&first, load->buffers + (size_t)i * load->pattern->length, sizeof(first));
    if (!load->pattern->write && first != word_at(load->offsets[i]))
        die("wrong data");
}

static void run_one(struct load *load)
{
    const struct pattern *pattern = load->pattern;
    load->offsets[0] = next_offset(load);
    ssize_t n = pattern->write ? pwrite(load->fd, load->buffers, pattern->length, (off_t)load->offsets[0])
                               : pread(load->fd, load->buffers, pattern->length, (off_t)load->offsets[0]);
    if (n != (ssize_t)pattern->length || (pattern->flush && fdatasync(load->fd) < 0))
        die(pattern->name);
    check(load, 0);
}

static void run_batch(struct load *load)
{
    const struct pattern *pattern = load->pattern;
    for (unsigned i = 0; i < pattern->depth; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&load->ring);
        uint8_t *buffer = load->buffers + (size_t)i * pattern->length;
        load->offsets[i] = next_offset(load);
        if (pattern->write)
            io_uring_prep_write(sqe, load->fd, buffer, pattern->length, load->offsets[i]);
        else
            io_uring_prep_read(sqe, load->fd, buffer, pattern->length, load->offsets[i]);
    }
    if (io_uring_submit_and_wait(&load->ring, pattern->depth) < 0)
        die("io_uring_enter");
    for (unsigned i = 0; i < pattern->depth; i++) {
        struct io_uring_cqe *cqe;
        if (io_uring_wait_cqe(&load->ring, &cqe) < 0 || cqe->res != (int)pattern->length)
            die(pattern->name);
        io_uring_cqe_seen(&load->ring, cqe);
    }
    for (unsigned i = 0; i < pattern->depth; i++)
        check(load, i);
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void run(const struct pattern *pattern)
{
    struct load load = {.pattern = pattern, .random = 1};
    uint64_t bytes = 0;
    load.fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
    if (load.fd < 0 || ioctl(load.fd, BLKGETSIZE64, &bytes) < 0)
        die("/dev/vda");
    load.half = bytes / 2;
    /* Ordinary pages: each 4 KiB of a request is a buffer of its own. */
    size_t size = (size_t)pattern->depth * pattern->length;
    load.buffers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (load.buffers == MAP_FAILED)
        die("mmap");
    (void)madvise(load.buffers, size, MADV_NOHUGEPAGE);
    memset(load.buffers, 0xb1, size);
    if (pattern->depth > 1 && io_uring_queue_init(DEPTH_MAX, &load.ring, 0) < 0)
        die("io_uring_setup");

    uint64_t start = 0;
    for (unsigned done = 0; done < WARM_UP + pattern->requests; done += pattern->depth) {
        if (done == WARM_UP)
            start = now();
        if (pattern->depth == 1)
            run_one(&load);
        else
            run_batch(&load);
    }
    say("%s %llu", pattern->name, (unsigned long long)((now() - start) / pattern->requests));
}

static const struct pattern *chosen_pattern(void)
{
    char line[4096] = "";
    FILE *file = fopen("/proc/cmdline", "re");
    if (!file || !fgets(line, sizeof(line), file))
        die("/proc/cmdline");
    fclose(file);
    const char *name = strstr(line, "blockload=");
    for (size_t i = 0; name && i < ARRAY_SIZE(patterns); i++) {
        size_t length = strlen(patterns[i].name);
        const char *end = name + strlen("blockload=") + length;
        if (!strncmp(end - length, patterns[i].name, length) && strchr(" \n", *end))
            return &patterns[i];
    }
    errno = EINVAL;
    die("no such pattern on the kernel's command line");
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "make"))
        return make(argv[2], strtoull(argv[3], NULL, 10));
    if (getpid() != 1) {
        fprintf(stderr, "usage: blockload make FILE BYTES; without arguments it is a guest's init\n");
        return 2;
    }
    (void)mount("dev", "/dev", "devtmpfs", 0, NULL);
    (void)mount("proc", "/proc", "proc", 0, NULL);
    run(chosen_pattern());
    reboot(RB_AUTOBOOT);
    return 1;
}
