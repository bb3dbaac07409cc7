/* volt-init's decisions: command line, module dependencies, mounts to end, signals. Compiled from its own
 * sources. */
#include "../../guest/init/cmdline.c"
#include "../../guest/init/moddep.c"
#include "../../guest/init/mountlist.c"
#include "../../guest/init/signals.c"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>

TestSuite(boot_line, .timeout = 10);
TestSuite(moddep, .timeout = 10);
TestSuite(mounts, .timeout = 10);
TestSuite(signals, .timeout = 10);

/* Whether two strings are equal, NULL being equal to NULL alone. */
static bool same(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

Test(boot_line, takes_options_as_the_kernel_does)
{
    static const struct {
        const char *line, *root, *type, *flags, *init, *hostname, *run;
        bool writable;
    } rows[] = {
        {"", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {" \t\n", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"quiet root=/dev/vda", "/dev/vda", NULL, NULL, NULL, NULL, NULL, false},
        {"root=/dev/vda rw\n", "/dev/vda", NULL, NULL, NULL, NULL, NULL, true},
        {"rw root=/dev/vda ro", "/dev/vda", NULL, NULL, NULL, NULL, NULL, false},
        {"ro rw", NULL, NULL, NULL, NULL, NULL, NULL, true},
        {"row wro xrw", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"root=/dev/vda root=/dev/vdb", "/dev/vdb", NULL, NULL, NULL, NULL, NULL, false},
        {"root=/dev/vda root=", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"xroot=/dev/vda roots=/dev/vdb root", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"rootfstype=xfs rootflags=a=b,c", NULL, "xfs", "a=b,c", NULL, NULL, NULL, false},
        {"init=/bin/sh volt.hostname=a.b", NULL, NULL, NULL, "/bin/sh", "a.b", NULL, false},
        {"volt.run=\"echo a  b; exit 3\" rw", NULL, NULL, NULL, NULL, NULL, "echo a  b; exit 3", true},
        {"\"volt.run=echo a\" rw", NULL, NULL, NULL, NULL, NULL, "echo a", true},
        {"volt.run=a\"b c\"d", NULL, NULL, NULL, NULL, NULL, "a\"b c\"d", false},
        {"volt.run=\"never closed rw", NULL, NULL, NULL, NULL, NULL, "never closed rw", false},
        {"volt.run=\"", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"\"", NULL, NULL, NULL, NULL, NULL, NULL, false},
        {"\"\" rw", NULL, NULL, NULL, NULL, NULL, NULL, true},
        {"-- root=/dev/vda rw", NULL, NULL, NULL, NULL, NULL, NULL, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char line[256];
        struct boot_line boot;
        strcpy(line, rows[i].line);
        cr_assert_eq(boot_line_parse(line, &boot), 0, "'%s': %s", rows[i].line, fail_text());
        cr_expect(same(boot.root, rows[i].root), "'%s': root %s", rows[i].line, boot.root);
        cr_expect(same(boot.root_type, rows[i].type), "'%s': type %s", rows[i].line, boot.root_type);
        cr_expect(same(boot.root_flags, rows[i].flags), "'%s': flags %s", rows[i].line, boot.root_flags);
        cr_expect(same(boot.init, rows[i].init), "'%s': init %s", rows[i].line, boot.init);
        cr_expect(same(boot.hostname, rows[i].hostname), "'%s': hostname %s", rows[i].line, boot.hostname);
        cr_expect(same(boot.run, rows[i].run), "'%s': run %s", rows[i].line, boot.run);
        cr_expect_eq(boot.root_writable, rows[i].writable, "'%s': writable", rows[i].line);
    }
}

Test(boot_line, keeps_the_command_behind_the_dashes)
{
    char line[] = "quiet -- /bin/echo \"two message\" root=/dev/vda --\n";
    const char *const message[] = {"/bin/echo", "two message", "root=/dev/vda", "--", NULL};
    struct boot_line boot;
    cr_assert_eq(boot_line_parse(line, &boot), 0, "%s", fail_text());
    cr_expect_null(boot.root, "an option behind the dashes was taken");
    for (size_t i = 0; i < ARRAY_SIZE(message); i++)
        cr_expect(same(boot.command[i], message[i]), "word %zu is '%s'", i, boot.command[i]);
}

Test(boot_line, keeps_the_words_that_come_again)
{
    char line[1024] = "ip=dhcp nameserver=1.1.1.1 ip= rd.route=default:10.9.0.1 ip=\"eth1:dhcp\" -- ip=off";
    struct boot_line boot;
    cr_assert_eq(boot_line_parse(line, &boot), 0, "%s", fail_text());
    cr_expect(same(boot.ip[0], "dhcp") && same(boot.ip[1], "") && same(boot.ip[2], "eth1:dhcp") &&
                  boot.ip[3] == NULL,
              "ip= is '%s', '%s', '%s'", boot.ip[0], boot.ip[1], boot.ip[2]);
    cr_expect(same(boot.nameservers[0], "1.1.1.1") && boot.nameservers[1] == NULL, "nameserver=");
    cr_expect(same(boot.routes[0], "default:10.9.0.1") && boot.routes[1] == NULL, "rd.route=");
    line[0] = '\0';
    for (int i = 0; i < BOOT_WORDS + 5; i++)
        strcat(line, "ip=dhcp ");
    cr_assert_eq(boot_line_parse(line, &boot), 0, "%s", fail_text());
    cr_expect_null(boot.ip[BOOT_WORDS], "more were taken than there is room for");
}

Test(boot_line, refuses_a_command_of_too_many_words)
{
    char line[256] = "--";
    for (int i = 0; i < COMMAND_WORDS; i++)
        strcat(line, " w");
    char longer[256];
    snprintf(longer, sizeof(longer), "%s w", line);
    struct boot_line boot;
    cr_assert_eq(boot_line_parse(line, &boot), 0, "%s", fail_text());
    cr_expect_str_eq(boot.command[COMMAND_WORDS - 1], "w", "the last word got lost");
    cr_expect_null(boot.command[COMMAND_WORDS], "the end is not marked");
    boot.root = "untouched";
    cr_assert_eq(boot_line_parse(longer, &boot), -E2BIG, "a word too many was taken");
    cr_expect_str_eq(boot.root, "untouched", "the result was touched on failure");
}

static const char dep_text[] =
    "kernel/virtio/virtio.ko:\n"
    "kernel/hw/virtio-rng.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko\n"
    "kernel/block/virtio_blk.ko.xz: kernel/virtio/virtio.ko.xz\n"
    "\n"
    ":\n"
    "top.ko:\n"
    "kernel/last.ko: a.ko";

Test(moddep, finds_a_module_under_either_spelling)
{
    static const struct {
        const char *name, *path;
    } rows[] = {
        {"virtio", "kernel/virtio/virtio.ko"},
        {"virtio_rng", "kernel/hw/virtio-rng.ko"},
        {"virtio-rng", "kernel/hw/virtio-rng.ko"},
        {"virtio-blk", "kernel/block/virtio_blk.ko.xz"},
        {"top", "top.ko"},
        {"last", "kernel/last.ko"},
        {"virti", NULL},
        {"virtio_", NULL},
        {"irtio", NULL},
        {"virtio_ring", NULL},
        {"", NULL},
        {"kernel/virtio/virtio", NULL},
        {"virtio_blk.ko", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct span line;
        bool found = moddep_find(dep_text, rows[i].name, &line);
        cr_expect_eq(found, rows[i].path != NULL, "'%s' found: %d", rows[i].name, found);
        if (found)
            cr_expect_eq(strncmp(line.start, rows[i].path, strlen(rows[i].path)), 0, "'%s' found elsewhere",
                         rows[i].name);
    }
}

Test(moddep, takes_dependencies_from_the_last_on)
{
    const char *const order[] = {"kernel/virtio/virtio_ring.ko", "kernel/virtio/virtio.ko",
                                 "kernel/hw/virtio-rng.ko"};
    struct span line;
    struct span path;
    cr_assert(moddep_find(dep_text, "virtio_rng", &line), "not found");
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        cr_assert(moddep_pop(&line, &path), "only %zu", i);
        cr_expect(path.length == strlen(order[i]) && memcmp(path.start, order[i], path.length) == 0,
                  "%.*s at %zu", (int)path.length, path.start, i);
    }
    cr_expect_not(moddep_pop(&line, &path), "one too many");
}

Test(moddep, takes_any_text)
{
    struct span line;
    struct span path;
    cr_expect_not(moddep_find("", "a", &line), "found in nothing");
    cr_expect_not(moddep_find("\n\n::\n  \n", "a", &line), "found in blanks");
    cr_expect(moddep_find("a.ko", "a", &line), "a line without a colon, as in modules.builtin");
    line = (struct span){" : : ", 5};
    cr_expect_not(moddep_pop(&line, &path), "a path of blanks");
}

Test(moddep, knows_what_the_kernel_must_unpack)
{
    cr_expect_not(moddep_is_compressed((struct span){"a.ko", 4}), "plain");
    cr_expect(moddep_is_compressed((struct span){"a.ko.zst", 8}), "zstd");
    cr_expect(moddep_is_compressed((struct span){"a.ko.xz", 7}), "xz");
}

Test(mounts, undoes_escapes_and_passes_over_nonsense)
{
    char list[] = "proc /proc proc rw 0 0\n"
                  "\n"
                  "half\n"
                  "none here\n"
                  "x relative ext4 rw 0 0\n"
                  "/dev/vdb /a\\040b\\134\\011\\ ext4 rw 0 0\n"
                  "/dev/vdc /c\\04 xfs";
    const struct mount_entry wanted[] = {{"/proc", "proc"}, {"/a b\\\t\\", "ext4"}, {"/c\\04", "xfs"}};
    char *cursor = list;
    struct mount_entry entry;
    for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
        cr_assert(mount_next(&cursor, &entry), "only %zu", i);
        cr_expect_str_eq(entry.where, wanted[i].where, "where %zu: '%s'", i, entry.where);
        cr_expect_str_eq(entry.type, wanted[i].type, "type %zu: '%s'", i, entry.type);
    }
    cr_expect_not(mount_next(&cursor, &entry), "one too many");
}

Test(mounts, tells_disks_from_the_kernels_own)
{
    const char *const keep[] = {"ext4", "xfs", "fuseblk", "nfs4", "9p", "overlay", "", "tmpfs2"};
    const char *const lose[] = {"proc",  "sysfs",   "devtmpfs", "devpts",
                                "tmpfs", "cgroup2", "rootfs",   "tracefs"};
    for (size_t i = 0; i < ARRAY_SIZE(keep); i++)
        cr_expect(mount_keeps_data(keep[i]), "%s would not be unmounted", keep[i]);
    for (size_t i = 0; i < ARRAY_SIZE(lose); i++)
        cr_expect_not(mount_keeps_data(lose[i]), "%s would be unmounted", lose[i]);
}

Test(signals, mean_what_others_send_them_for)
{
    static const struct {
        int number;
        enum signal_action action;
    } rows[] = {
        {SIGCHLD, SIGNAL_REAP},     {SIGUSR1, SIGNAL_POWER_OFF}, {SIGUSR2, SIGNAL_POWER_OFF},
        {SIGPWR, SIGNAL_POWER_OFF}, {38, SIGNAL_POWER_OFF},      {SIGTERM, SIGNAL_REBOOT},
        {SIGINT, SIGNAL_REBOOT},    {SIGHUP, SIGNAL_FORWARD},    {SIGWINCH, SIGNAL_FORWARD},
        {SIGPIPE, SIGNAL_IGNORE},   {SIGTSTP, SIGNAL_IGNORE},    {SIGTTIN, SIGNAL_IGNORE},
        {0, SIGNAL_IGNORE},         {-1, SIGNAL_IGNORE},         {1000, SIGNAL_IGNORE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        cr_expect_eq(signal_action(rows[i].number), rows[i].action, "signal %d", rows[i].number);
}

Test(signals, clients_are_known_by_their_names)
{
    cr_expect_eq(signal_action(signal_of_client("/sbin/poweroff")), SIGNAL_POWER_OFF, "poweroff");
    cr_expect_eq(signal_action(signal_of_client("halt")), SIGNAL_POWER_OFF, "halt");
    cr_expect_eq(signal_action(signal_of_client("./reboot")), SIGNAL_REBOOT, "reboot");
    cr_expect_eq(signal_of_client("init"), 0, "init");
    cr_expect_eq(signal_of_client("reboot/"), 0, "a folder");
    cr_expect_eq(signal_of_client(""), 0, "nothing");
}
