/* base: sizes as people write them, message of a failure, whole reads and writes. */
#include "base/base.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

TestSuite(size, .timeout = 10);
TestSuite(fail, .timeout = 10);
TestSuite(io, .timeout = 10);
TestSuite(arithmetic, .timeout = 10);

Test(size, parses_what_people_write)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        {"0", 0},
        {"1", 1},
        {"512", 512},
        {"1b", 1},
        {"4k", 4 * KIB},
        {"4K", 4 * KIB},
        {"4KiB", 4 * KIB},
        {"4kb", 4 * KIB},
        {"128M", 128 * MIB},
        {"2G", 2 * GIB},
        {"3T", 3 * 1024 * GIB},
        {"18446744073709551615", UINT64_MAX},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t bytes = 77;
        cr_assert_eq(size_parse(rows[i].text, &bytes), 0, "'%s' refused: %s", rows[i].text, fail_text());
        cr_assert_eq(bytes, rows[i].bytes, "'%s' became %llu", rows[i].text, (unsigned long long)bytes);
    }
}

Test(size, refuses_everything_else)
{
    static const struct {
        const char *text;
        int error;
    } rows[] = {
        {"", -EINVAL},
        {"-1", -EINVAL},
        {" 1", -EINVAL},
        {"K", -EINVAL},
        {"1X", -EINVAL},
        {"1KK", -EINVAL},
        {"1iB", -EINVAL},
        {"0x10", -EINVAL},
        {"1.5G", -EINVAL},
        {"1 G", -EINVAL},
        {"18446744073709551616", -ERANGE},
        {"18446744073709551615K", -ERANGE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t bytes = 77;
        cr_assert_eq(size_parse(rows[i].text, &bytes), rows[i].error, "'%s' was taken", rows[i].text);
        cr_assert_eq(bytes, 77, "'%s' touched the result", rows[i].text);
    }
}

Test(size, text_is_short_and_right)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"},        {1023, "1023 B"},       {1024, "1.0 KiB"},
        {1536, "1.5 KiB"}, {200 * MIB, "200 MiB"}, {UINT64_MAX, "16.0 EiB"},
    };
    char buffer[SIZE_TEXT_MAX];
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        cr_assert_str_eq(size_text(rows[i].bytes, buffer), rows[i].text, "row %zu is '%s'", i, buffer);
}

Test(fail, keeps_words_beside_the_error)
{
    cr_assert_eq(fail(-EINVAL, "%s: bad", "thing"), -EINVAL, "passes the error on");
    cr_assert_str_eq(fail_text(), "thing: bad", "message are '%s'", fail_text());
    cr_assert_eq(fail(-EIO, "disk: %s", fail_text()), -EIO, "passes the error on");
    cr_assert_str_eq(fail_text(), "disk: thing: bad", "its own message may be an argument: '%s'",
                     fail_text());
    cr_assert_eq(fail_errno(-ENOENT, "kernel"), -ENOENT, "passes the error on");
    cr_assert_str_eq(fail_text(), "kernel: No such file or directory", "message are '%s'", fail_text());
}

Test(fail, cuts_long_words)
{
    char text[4096];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    fail_errno(-EIO, "%s", text);
    cr_assert(strlen(fail_text()) < 512, "bounded");
    cr_assert_not_null(strstr(fail_text(), "Input/output error"), "the errno's text survives");
}

Test(io, whole_buffers_and_early_ends)
{
    CLEANUP_FD int fd = memfd_create("io", MFD_CLOEXEC);
    cr_assert(fd >= 0, "memfd");
    cr_assert_eq(write_full_at(fd, "hello", 5, 3), 0, "writes");
    char buffer[8] = "";
    cr_assert_eq(read_full_at(fd, buffer, 5, 3), 0, "reads");
    cr_assert_arr_eq(buffer, "hello", 5, "what was written");
    cr_assert_eq(read_full_at(fd, buffer, 6, 3), -EPIPE, "one byte more is past the end");
    cr_assert_eq(read_full_at(-1, buffer, 1, 0), -EBADF, "an error is returned");
}

Test(io, a_sparse_copy_has_the_bytes_and_the_holes)
{
    char folder[] = "/var/tmp/volt-base-XXXXXX";
    struct stat status;
    int fds[3];
    cr_assert_not_null(mkdtemp(folder), "a folder");
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = i < 2 ? open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600) : memfd_create("io", MFD_CLOEXEC);
    rmdir(folder);
    cr_assert_eq(ftruncate(fds[0], 64 * MIB), 0, "long");
    cr_assert_eq(write_full_at(fds[0], "begin", 5, 0), 0, "written");
    cr_assert_eq(write_full_at(fds[0], "middle", 6, 20 * MIB + 4094), 0, "written");
    cr_assert_eq(write_full_at(fds[0], "end", 3, 64 * MIB - 3), 0, "written");
    for (unsigned i = 1; i < ARRAY_SIZE(fds); i++) { /* the other one is of another file system */
        char words[3][8] = {0};
        cr_assert_eq(file_copy_sparse(fds[0], fds[i], 64 * MIB), 0, "copied");
        cr_assert_eq(read_full_at(fds[i], words[0], 5, 0), 0, "there");
        cr_assert_eq(read_full_at(fds[i], words[1], 6, 20 * MIB + 4094), 0, "there");
        cr_assert_eq(read_full_at(fds[i], words[2], 3, 64 * MIB - 3), 0, "there");
        cr_assert(strcmp(words[0], "begin") == 0 && strcmp(words[1], "middle") == 0 &&
                      strcmp(words[2], "end") == 0,
                  "'%s', '%s', '%s'", words[0], words[1], words[2]);
        cr_assert(fstat(fds[i], &status) == 0 && status.st_size == 64 * MIB, "its length");
        cr_assert_lt(status.st_blocks * 512, MIB, "its holes");
    }
    cr_assert_eq(file_copy_sparse(fds[0], -1, MIB), -EBADF, "an error is returned");
}

Test(arithmetic, overflow_and_alignment)
{
    uint64_t result;
    cr_assert(add_overflows(UINT64_MAX, 1, &result), "sum wraps");
    cr_assert_not(add_overflows(UINT64_MAX, 0, &result), "sum fits");
    cr_assert(mul_overflows(UINT64_C(1) << 32, UINT64_C(1) << 32, &result), "product wraps");
    cr_assert_eq(align_down(4097, 4096), 4096, "down");
    cr_assert_eq(align_up(4097, 4096), 8192, "up");
    cr_assert_eq(align_up(4096, 4096), 4096, "aligned stays");
}

Test(array, doubles_and_keeps_what_it_holds, .timeout = 10)
{
    uint32_t *numbers = NULL;
    size_t capacity = 0;
    unsigned moves = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        size_t before = capacity;
        cr_assert_eq(array_reserve(&numbers, i + 1, &capacity), 0, "room for %u", i + 1);
        moves += capacity != before;
        numbers[i] = i;
    }
    cr_assert_leq(moves, 12, "grown %u times", moves);
    for (uint32_t i = 0; i < 10000; i++)
        cr_assert_eq(numbers[i], i, "number %u", i);
    uint32_t *before = numbers;
    size_t capacity_before = capacity;
    cr_assert_eq(array_reserve(&numbers, SIZE_MAX / 2, &capacity), -ENOMEM, "what no memory holds");
    cr_assert(numbers == before && capacity == capacity_before, "changes nothing");
    free(numbers);
}

static unsigned descriptor_table(void)
{
    char line[256];
    unsigned size = 0;
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof(line), status))
        if (sscanf(line, "FDSize: %u", &size) == 1)
            break;
    fclose(status);
    return size;
}

Test(fd, a_child_keeps_what_it_names)
{
    int fds[6];
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
        fds[i] = open("/", O_RDONLY | O_CLOEXEC);
    pid_t child = fork();
    if (child == 0) {
        int kept[] = {fds[4], fds[1], fds[1]}; /* in no order, and one of them twice */
        fd_close_others(kept, ARRAY_SIZE(kept));
        unsigned open_fds = 0;
        for (int fd = 0; fd < 1000; fd++)
            if (fcntl(fd, F_GETFD) >= 0)
                open_fds |= fd == fds[1] ? 1 : fd == fds[4] ? 2 : 4;
        _exit((int)open_fds);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child, "waited");
    cr_assert_eq(WEXITSTATUS(status), 3, "1: the first kept one is open, 2: the other, 4: another");
}

Test(fd, reserved_room_adds_up_and_uses_none)
{
    int before = open("/", O_RDONLY | O_CLOEXEC);
    fd_reserve(200);
    cr_assert(descriptor_table() >= 264, "a table of %u", descriptor_table());
    fd_reserve(300);
    cr_assert(descriptor_table() >= 564, "a table of %u", descriptor_table());
    int after = open("/", O_RDONLY | O_CLOEXEC);
    cr_assert(after == before + 1, "descriptor %d after %d: some are left open", after, before);
}
