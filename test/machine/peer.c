/*
 * One end of a vsock connection, in a guest or on its host:
 *
 *   peer serve ADDRESS              sends back what comes, to any number of callers, until their ends
 *   peer sink ADDRESS               reads and drops what comes, and says at the end how much that was
 *   peer call ADDRESS COUNT BYTES   opens COUNT connections, then on one after the other sends BYTES, ends
 *                                   its side, and reads the same bytes back, both at once
 *   peer ping ADDRESS TIMES         a byte there and back, so often: how many microseconds each took
 *   peer send ADDRESS BYTES         sends BYTES and awaits the other end's: how many MiB a second
 *   peer hold ADDRESS               opens a connection and reads until it is over
 *
 * ADDRESS: vsock:PORT and vsock:CID:PORT in a guest; unix:PATH, and unix:PATH:PORT to a port of the guest's.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define CHUNK     65536u
#define CALLS_MAX 4000u

static uint8_t buffer[CHUNK], sample[CHUNK];

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- Addresses ---- */

union address {
    struct sockaddr any;
    struct sockaddr_un un;
    struct sockaddr_vm vm;
};

struct end {
    union address address;
    socklen_t length;
    const char *port; /* unix:PATH:PORT */
};

static struct end parse(char *text)
{
    struct end end = {0};
    char *first = strchr(text, ':'), *second = first ? strchr(first + 1, ':') : NULL;
    if (!first)
        die(text);
    *first++ = '\0';
    if (second)
        *second++ = '\0';
    if (strcmp(text, "unix") == 0) {
        end.address.un = (struct sockaddr_un){.sun_family = AF_UNIX};
        snprintf(end.address.un.sun_path, sizeof(end.address.un.sun_path), "%s", first);
        end.length = sizeof(end.address.un);
        end.port = second;
    } else {
        end.address.vm = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
        if (second)
            end.address.vm.svm_cid = (unsigned)strtoul(first, NULL, 10);
        end.address.vm.svm_port = (unsigned)strtoul(second ? second : first, NULL, 10);
        end.length = sizeof(end.address.vm);
    }
    return end;
}

/* "OK 1073741824\n" is the answer to "CONNECT 52\n", and nothing behind it is read. */
static void ask_for_port(int fd, const char *port)
{
    char line[32] = "";
    int length = snprintf(line, sizeof(line), "CONNECT %s\n", port);
    if (write(fd, line, (size_t)length) != length)
        die("CONNECT");
    for (size_t i = 0; i < sizeof(line) - 1; i++) {
        if (read(fd, &line[i], 1) != 1) {
            errno = ECONNREFUSED;
            die("CONNECT");
        }
        if (line[i] == '\n')
            break;
    }
    if (strncmp(line, "OK ", 3) != 0)
        die(line);
}

static int open_to(const struct end *end)
{
    int fd = socket(end->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, &end->address.any, end->length) < 0)
        die("connect");
    if (end->port)
        ask_for_port(fd, end->port);
    return fd;
}

static int listen_at(const struct end *end)
{
    int fd = socket(end->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, &end->address.any, end->length) < 0 || listen(fd, 1024) < 0)
        die("listen");
    return fd;
}

/* ---- Data ---- */

/* Byte `at` of every stream. */
static uint8_t byte_at(uint64_t at)
{
    uint64_t x = at / 8 * UINT64_C(0x9e3779b97f4a7c15);
    return (uint8_t)((x ^ x >> 29) >> at % 8 * 8);
}

static void write_all(int fd, const uint8_t *bytes, size_t length)
{
    while (length) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0)
            die("write");
        bytes += n;
        length -= (size_t)n;
    }
}

static void send_stream(int fd, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes;) {
        size_t length = bytes - at < CHUNK ? (size_t)(bytes - at) : CHUNK;
        for (size_t i = 0; i < length; i++)
            sample[i] = byte_at(at + i);
        write_all(fd, sample, length);
        at += length;
    }
    shutdown(fd, SHUT_WR);
}

static void check_stream(int fd, uint64_t bytes)
{
    uint64_t at = 0;
    ssize_t n;
    while ((n = read(fd, buffer, CHUNK)) > 0) {
        for (ssize_t i = 0; i < n; i++, at++)
            if (at >= bytes || buffer[i] != byte_at(at)) {
                fprintf(stderr, "peer: another byte at %llu\n", (unsigned long long)at);
                exit(1);
            }
    }
    if (n < 0)
        die("read");
    if (at != bytes) {
        fprintf(stderr, "peer: %llu bytes came back\n", (unsigned long long)at);
        exit(1);
    }
}

static void call_on(int fd, uint64_t bytes)
{
    int status = 0;
    pid_t sender = bytes > CHUNK ? fork() : 0;
    if (sender < 0)
        die("fork");
    if (sender == 0)
        send_stream(fd, bytes);
    if (sender == 0 && bytes > CHUNK)
        _exit(0);
    check_stream(fd, bytes);
    if (sender && (waitpid(sender, &status, 0) < 0 || status != 0))
        die("the sender");
    close(fd);
}

static void call(const struct end *end, unsigned count, uint64_t bytes)
{
    static int fds[CALLS_MAX];
    if (count > CALLS_MAX)
        die("too many");
    for (unsigned i = 0; i < count; i++)
        fds[i] = open_to(end);
    for (unsigned i = 0; i < count; i++)
        call_on(fds[i], bytes);
    printf("calls=%u bytes=%llu\n", count, (unsigned long long)bytes);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void ping(const struct end *end, unsigned times)
{
    int fd = open_to(end);
    double begin = now();
    for (unsigned i = 0; i < times; i++)
        if (write(fd, buffer, 1) != 1 || read(fd, buffer, 1) != 1)
            die("ping");
    printf("round_trip_us=%.2f\n", (now() - begin) / times * 1e6);
}

static void send_bytes(const struct end *end, uint64_t bytes)
{
    int fd = open_to(end);
    double begin = now();
    for (uint64_t left = bytes; left;) {
        size_t length = left < CHUNK ? (size_t)left : CHUNK;
        write_all(fd, sample, length);
        left -= length;
    }
    shutdown(fd, SHUT_WR);
    if (read(fd, buffer, 1) < 0)
        die("read");
    printf("mib_per_second=%.1f\n", (double)bytes / (now() - begin) / 1048576);
}

/* ---- Serving ---- */

static void serve_one(int fd, bool answers)
{
    ssize_t n;
    uint64_t bytes = 0;
    while ((n = read(fd, buffer, CHUNK)) > 0) {
        bytes += (uint64_t)n;
        if (answers)
            write_all(fd, buffer, (size_t)n);
    }
    if (n < 0)
        die("read");
    if (!answers)
        printf("sunk=%llu\n", (unsigned long long)bytes);
    fflush(stdout);
    _exit(0);
}

static void serve(const struct end *end, bool answers)
{
    int listener = listen_at(end);
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            die("accept");
        pid_t child = fork();
        if (child == 0) {
            close(listener);
            serve_one(fd, answers);
        }
        if (child < 0)
            die("fork");
        close(fd);
    }
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    struct end end = argc > 2 ? parse(argv[2]) : (struct end){0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(what, "serve") == 0 || strcmp(what, "sink") == 0)
        serve(&end, what[1] == 'e');
    else if (strcmp(what, "call") == 0 && argc == 5)
        call(&end, (unsigned)strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    else if (strcmp(what, "ping") == 0 && argc == 4)
        ping(&end, (unsigned)strtoul(argv[3], NULL, 10));
    else if (strcmp(what, "send") == 0 && argc == 4)
        send_bytes(&end, strtoull(argv[3], NULL, 10));
    else if (strcmp(what, "hold") == 0 && argc == 3)
        printf("held=%zd\n", read(open_to(&end), buffer, CHUNK));
    else {
        fprintf(stderr, "usage: peer serve|sink|call|ping|send|hold ADDRESS [COUNT] [BYTES]\n");
        return 2;
    }
    return 0;
}
