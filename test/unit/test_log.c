/* Lines on standard error: what they say, and that a reader who does not read loses lines and stops
 * nothing. */
#include "base/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(log, .timeout = 10);

static int kept_stderr = -1;

/* Standard error is `fd` from here to the end of the test's process. */
static void put_stderr_at(int fd)
{
    kept_stderr = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void give_stderr_back(void)
{
    dup2(kept_stderr, STDERR_FILENO);
}

static size_t drain(int fd, char *text, size_t size)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
    ssize_t n = read(fd, text, size - 1);
    text[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

Test(log, lines_carry_the_name_of_the_machine)
{
    int ends[2];
    char text[512];
    cr_assert_eq(pipe(ends), 0, "pipe");
    put_stderr_at(ends[1]);
    say("without a %s", "name");
    log_set_name("web-1");
    say("one %d", 1);
    log_warn("two");
    say_text("as it is");
    log_set_name(NULL);
    say("three");
    give_stderr_back();
    drain(ends[0], text, sizeof(text));
    cr_assert_str_eq(text,
                     "volt-vmm: without a name\nvolt-vmm web-1: one 1\nvolt-vmm web-1: two\nas it is"
                     "volt-vmm: three\n",
                     "'%s'", text);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Nobody reads `reader` until all is said. `filler` takes blocks until nothing goes in. */
static void say_into_something_full(int reader, int writer)
{
    static char block[64 * 1024], text[64 * 1024];
    memset(block, 'x', sizeof(block));
    int flags = fcntl(writer, F_GETFL);
    fcntl(writer, F_SETFL, flags | O_NONBLOCK);
    for (size_t size = sizeof(block); size > 0; size /= 2)
        while (write(writer, block, size) > 0) {
        }
    fcntl(writer, F_SETFL, flags);
    put_stderr_at(writer);
    int64_t start = now_ms();
    log_warn("a line of a running machine");
    say_text("help");
    say("the end");
    int64_t waited = now_ms() - start;
    cr_expect_eq(fcntl(STDERR_FILENO, F_GETFL), flags, "the description that others share is as it was");
    give_stderr_back();
    cr_assert_lt(waited, 5000, "%ld ms", (long)waited);

    while (drain(reader, text, sizeof(text)) > 0)
        cr_expect_null(strstr(text, "volt"), "nothing went in");
}

Test(log, a_full_pipe_stops_nothing)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0, "pipe");
    say_into_something_full(ends[0], ends[1]);
}

Test(log, a_full_socket_stops_nothing)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0, "socketpair");
    say_into_something_full(ends[0], ends[1]);
}

/* A machine under load may not let the reader run within the wait: one of several attempts must succeed. */
Test(log, an_end_is_said_to_a_reader_that_is_slow)
{
    bool arrived = false;
    for (unsigned attempt = 0; !arrived && attempt < 20; attempt++) {
        int ends[2];
        char text[70000];
        static char block[65536];
        cr_assert_eq(pipe(ends), 0, "pipe");
        cr_assert_eq(write(ends[1], block, sizeof(block)), (ssize_t)sizeof(block), "full");
        int reader_end = ends[0];
        put_stderr_at(ends[1]);
        log_set_name(NULL);
        pid_t reader = fork();
        if (reader == 0) {
            usleep(1000);
            (void)!read(reader_end, text, sizeof(block));
            _exit(0);
        }
        say("the end");
        give_stderr_back();
        waitpid(reader, NULL, 0);
        arrived = drain(reader_end, text, sizeof(text)) > 0 && strstr(text, "volt-vmm: the end\n");
        close(reader_end);
    }
    cr_assert(arrived, "it was waited for");
}
