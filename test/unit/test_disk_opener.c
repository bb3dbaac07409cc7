/* Disks opened on another thread. */
#include "dev/disk_opener.h"
#include "loop/loop.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct loop *loop;
static struct disk_opener *opener;
static char path[] = "/tmp/test_disk_opener.XXXXXX";

static void set_up(void)
{
    cr_assert(loop_new(64, &loop) == 0, "%s", fail_text());
    cr_assert(disk_opener_new(loop, NULL, &opener) == 0, "%s", fail_text());
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && ftruncate(fd, 1 * MIB) == 0, "no disk file");
    close(fd);
}

static void tear_down(void)
{
    loop_free(loop);
    disk_opener_free(opener);
    unlink(path);
}

TestSuite(disk_opener, .timeout = 10, .init = set_up, .fini = tear_down);

static const struct disk_options writable = {0};

struct told {
    int result;
    char message[128];
    struct disk *disk;
};
static unsigned left; /* openings that were not told of */

static void told(void *context, int result, const char *message, struct disk *disk)
{
    struct told *told = context;
    told->result = result;
    told->disk = disk;
    snprintf(told->message, sizeof(told->message), "%s", message);
    if (--left == 0)
        loop_stop(loop, 0);
}

static void start(const char *name, struct told *ret_told)
{
    left++;
    cr_assert(disk_opener_open(opener, NULL, name, &writable, told, ret_told) == 0, "%s", fail_text());
}

Test(disk_opener, tells_of_each)
{
    struct told file, busy, nothing, no_store;
    start(path, &file);
    start(path, &busy); /* held by the first: this one takes a second */
    start("/nowhere/at/all", &nothing);
    start("cas:image", &no_store);
    cr_assert(loop_run(loop) == 0, "%s", fail_text());
    cr_assert(file.result == 0 && file.disk, "the file: %s", file.message);
    cr_assert(busy.result == -EBUSY && !busy.disk && strstr(busy.message, "in use"), "said %s", busy.message);
    cr_assert(nothing.result == -ENOENT && strstr(nothing.message, "No such file"), "said %s",
              nothing.message);
    cr_assert(no_store.result == -EINVAL && strstr(no_store.message, "which store"), "said %s",
              no_store.message);
    disk_attach(file.disk, loop);
    file.disk->ops->close(file.disk);
}

static bool timer_ran;

static void timer_done(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    timer_ran = true;
    loop_stop(loop, 0);
}

/* The loop goes on meanwhile, and a disk that was not told of is closed at the end. */
Test(disk_opener, the_loop_goes_on)
{
    static struct loop_timer soon = {.op.done = timer_done};
    static struct told file, busy;
    start(path, &file);
    cr_assert(loop_run(loop) == 0 && left == 0, "%s", fail_text());
    start(path, &busy); /* takes a second */
    loop_timer_start(loop, &soon, 2 * 1000 * 1000);
    cr_assert(loop_run(loop) == 0, "%s", fail_text());
    cr_assert(timer_ran && left == 1, "the loop waited for the lock");
    file.disk->ops->close(file.disk);
}
