/* Snapshots: the configuration in them, out and in; files that are none, or damaged. */
#include "snapshot_config.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

TestSuite(snapshot, .timeout = 20);

static const struct drive_config first_drive = {.path = (char[]){"root.ext4"}, .id = (char[]){"rootfs"}};
static const struct drive_config second_drive = {.path = (char[]){"data"},
                                                 .read_only = true,
                                                 .direct = true,
                                                 .sector = 4096,
                                                 .limits = {.ops = {.size = 7, .refill_time = 9}}};

/* One with something in every member that a snapshot keeps. */
static void fill(struct config *config)
{
    config_init(config);
    config->memory = 64 * MIB;
    config->cpus = 3;
    config->pages = GUEST_PAGES_THP_OFF;
    cr_assert_eq(config_set_text(&config->kernel, "vmlinux"), 0, "text");
    cr_assert_eq(config_set_text(&config->cmdline, ""), 0, "an empty text is not none");
    cr_assert_eq(config_set_text(&config->name, "web"), 0, "text");
    cr_assert_eq(config_add_drive(config, &second_drive, false), 0, "drive");
    cr_assert_eq(config_add_drive(config, &first_drive, true), 0, "drive");
    cr_assert_eq(config_add_net(config, "tap=tap0,mac=02:00:00:00:00:07,mtu=1400,rx-bw=1M"), 0, "card");
    config->balloon = (struct balloon_config){.target = 2 * MIB, .hinting = true, .stats_seconds = 5};
}

static struct state_writer saved(const struct config *config)
{
    struct state_writer writer = {0};
    cr_assert_eq(snapshot_save_config(config, &writer), 0, "%s", fail_text());
    return writer;
}

Test(snapshot, a_configuration_comes_back)
{
    struct config config, back;
    fill(&config);
    struct state_writer writer = saved(&config);
    config_init(&back);
    int r = snapshot_load_config(&back, (struct state_reader){writer.bytes, writer.length});
    cr_assert_eq(r, 0, "%s", fail_text());
    cr_assert(back.memory == 64 * MIB && back.cpus == 3 && back.pages == GUEST_PAGES_THP_OFF, "machine");
    cr_assert_str_eq(back.kernel, "vmlinux", "kernel");
    cr_assert_str_eq(back.cmdline, "", "an empty command line");
    cr_assert_null(back.initrd, "no initrd");
    cr_assert_str_eq(back.name, "web", "name");
    cr_assert(back.drive_count == 2 && back.has_rootfs, "disks");
    cr_assert_str_eq(back.drives[0].path, "root.ext4", "the root file system is the first");
    cr_assert_str_eq(back.drives[0].id, "rootfs", "id");
    cr_assert_str_eq(back.drives[1].path, "data", "path");
    cr_assert_null(back.drives[1].id, "no id");
    cr_assert(back.drives[1].read_only && back.drives[1].direct && back.drives[1].sector == 4096, "options");
    cr_assert_eq(back.drives[1].limits.ops.size, 7, "limits");
    cr_assert_eq(back.net_count, 1, "cards");
    cr_assert_arr_eq(&back.nets[0].mac, &config.nets[0].mac, ETH_ALEN, "address");
    cr_assert_str_eq(back.nets[0].target, "tap0", "end");
    cr_assert(back.nets[0].mtu == 1400 && back.nets[0].rx.bandwidth.size == MIB, "options");
    cr_assert(back.balloon.target == 2 * MIB && back.balloon.hinting && back.balloon.stats_seconds == 5 &&
                  !back.balloon.reporting,
              "balloon");
    config_free(&back);
    config_free(&config);
    state_writer_free(&writer);
}

/* Whatever is cut off or changed: an error or another configuration, and nothing else. */
Test(snapshot, a_configuration_of_any_bytes)
{
    struct config config, back;
    unsigned refused = 0;
    fill(&config);
    struct state_writer writer = saved(&config);
    for (size_t length = 0; length < writer.length; length++) {
        config_init(&back);
        cr_expect_lt(snapshot_load_config(&back, (struct state_reader){writer.bytes, length}), 0,
                     "%zu of %zu bytes", length, writer.length);
        config_free(&back);
    }
    for (size_t i = 0; i < writer.length; i++) {
        writer.bytes[i] ^= 0xff;
        config_init(&back);
        refused += snapshot_load_config(&back, (struct state_reader){writer.bytes, writer.length}) < 0;
        config_free(&back);
        writer.bytes[i] ^= 0xff;
    }
    cr_assert_gt(refused, writer.length / 4, "%u refused", refused);
    config_free(&config);
    state_writer_free(&writer);
}

/* ---- Files ---- */

struct files {
    char folder[64], state[80], memory[80];
};

static void write_file(const char *path, const void *bytes, size_t length, off_t at)
{
    CLEANUP_FD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(write_full_at(fd, bytes, length, (uint64_t)at), 0, "%s", path);
}

/* A snapshot of a machine without a state, which nobody restores. */
static struct files make_files(const struct config *config, uint8_t id)
{
    struct files files = {.folder = "/tmp/test_snapshot.XXXXXX"};
    struct snapshot_header header = {.memory = config->memory, .id = {id}};
    union {
        struct snapshot_trailer trailer;
        uint8_t page[GUEST_PAGE];
    } last = {.trailer = {.memory = config->memory, .id = {id}}};
    struct state_writer to = {0};
    memcpy(last.trailer.magic, SNAPSHOT_MEMORY_MAGIC, sizeof(last.trailer.magic));
    cr_assert_not_null(mkdtemp(files.folder), "mkdtemp");
    snprintf(files.state, sizeof(files.state), "%s/state", files.folder);
    snprintf(files.memory, sizeof(files.memory), "%s/memory", files.folder);
    size_t begin = state_begin(&to, "CONF", 1);
    cr_assert_eq(snapshot_save_config(config, &to), 0, "%s", fail_text());
    state_end(&to, begin);
    begin = state_begin(&to, "MACH", 1);
    state_end(&to, begin);
    snapshot_seal(&header, to.bytes, to.length);
    write_file(files.state, &header, sizeof(header), 0);
    write_file(files.state, to.bytes, to.length, sizeof(header));
    write_file(files.memory, &last, sizeof(last), (off_t)config->memory);
    state_writer_free(&to);
    return files;
}

static void remove_files(const struct files *files)
{
    unlink(files->state);
    unlink(files->memory);
    rmdir(files->folder);
}

Test(snapshot, files_are_opened_and_described)
{
    struct config config, back;
    struct snapshot snapshot;
    uint32_t version = 0;
    fill(&config);
    struct files files = make_files(&config, 1);
    cr_assert_eq(snapshot_open_folder(files.folder, &snapshot), 0, "%s", fail_text());
    cr_assert_eq(snapshot.memory, config.memory, "memory");
    config_init(&back);
    cr_assert_eq(snapshot_load_config(&back, snapshot.config), 0, "%s", fail_text());
    cr_assert_eq(snapshot_version(files.state, &version), 0, "%s", fail_text());
    cr_assert_eq(version, SNAPSHOT_VERSION, "version");
    cr_assert_eq(snapshot_version(files.memory, &version), -EBADMSG, "memory is no state");
    snapshot_close(&snapshot);
    config_free(&back);
    config_free(&config);
    remove_files(&files);
}

Test(snapshot, a_changed_bit_anywhere_in_the_state_is_seen)
{
    struct config config;
    struct snapshot snapshot;
    uint8_t bytes[4096];
    fill(&config);
    struct files files = make_files(&config, 1);
    CLEANUP_FD int fd = open(files.state, O_RDWR | O_CLOEXEC);
    ssize_t length = pread(fd, bytes, sizeof(bytes), 0);
    cr_assert(length > 64 && length < (ssize_t)sizeof(bytes), "%zd bytes", length);
    for (ssize_t i = 0; i < length; i++) {
        uint8_t changed = bytes[i] ^ 0x10;
        cr_assert_eq(pwrite(fd, &changed, 1, i), 1, "written");
        cr_expect_lt(snapshot_open_folder(files.folder, &snapshot), 0, "byte %zd", i);
        cr_assert_eq(pwrite(fd, &bytes[i], 1, i), 1, "written");
    }
    cr_assert_eq(snapshot_open_folder(files.folder, &snapshot), 0, "%s", fail_text());
    snapshot_close(&snapshot);
    config_free(&config);
    remove_files(&files);
}

Test(snapshot, files_that_do_not_belong_together)
{
    struct config config;
    struct snapshot snapshot;
    fill(&config);
    struct files one = make_files(&config, 1), two = make_files(&config, 2);
    cr_assert_eq(snapshot_open(one.state, two.memory, &snapshot), -EBADMSG, "another snapshot's memory");
    cr_assert(strstr(fail_text(), "the memory of another snapshot"), "%s", fail_text());
    cr_assert_eq(snapshot_open(one.memory, one.state, &snapshot), -EBADMSG, "the wrong way round");
    cr_assert_eq(truncate(one.memory, (off_t)config.memory), 0, "cut");
    cr_assert_eq(snapshot_open(one.state, one.memory, &snapshot), -EBADMSG, "cut off");
    cr_assert_eq(snapshot_open(one.state, one.folder, &snapshot), -EINVAL, "a folder");
    cr_assert_eq(snapshot_open("/nowhere/state", two.memory, &snapshot), -ENOENT, "not there");
    config_free(&config);
    remove_files(&one);
    remove_files(&two);
}

/* ---- What takes another's place ---- */

static int merge(const struct config *config, const struct config *given, struct config *ret_merged)
{
    struct state_writer writer = saved(config);
    struct snapshot snapshot = {.config = {writer.bytes, writer.length}, .memory = config->memory};
    int r = snapshot_make_config(&snapshot, given, ret_merged);
    cr_expect(ret_merged->snapshot == &snapshot, "lent");
    ret_merged->snapshot = NULL;
    state_writer_free(&writer);
    return r;
}

Test(snapshot, what_is_given_takes_the_place_in_its_order)
{
    struct config config, given, merged;
    const struct drive_config other = {.path = (char[]){"other"}, .read_only = true};
    fill(&config);
    config_init(&given);
    given.serial = SERIAL_OFF;
    cr_assert_eq(config_add_drive(&given, &other, false), 0, "drive");
    cr_assert_eq(config_add_net(&given, "bridge=br0"), 0, "card");
    cr_assert_eq(merge(&config, &given, &merged), 0, "%s", fail_text());
    cr_assert_str_eq(merged.drives[0].path, "root.ext4", "the root is replaced by a root alone");
    cr_assert_str_eq(merged.drives[1].path, "other", "the other");
    cr_assert_eq(merged.drives[1].sector, 4096, "sectors stay");
    cr_assert(merged.nets[0].kind == NET_KIND_BRIDGE && merged.nets[0].mac[5] == 7,
              "the card's address stays");
    cr_assert_eq(merged.serial, SERIAL_OFF, "the console");
    config_free(&merged);
    config_free(&given);
    config_free(&config);
}

Test(snapshot, what_only_the_snapshot_can_say_is_refused)
{
    static const struct {
        const char *option, *value, *words;
    } cases[] = {
        {"--kernel", "vmlinux", "--kernel"},
        {"--append", "quiet", "--append"},
        {"--memory", "256M", "--memory"},
        {"--cpus", "2", "--cpus"},
        {"--balloon", "1M", "--balloon"},
        {"--disk", "data", "is to take the place of data"},
        {"--net", "tap=a,mac=02:00:00:00:00:01", "keeps its mac"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct config config, given, merged;
        char *argv[] = {(char[]){"volt-vmm"}, (char *)cases[i].option, (char *)cases[i].value, NULL};
        fill(&config);
        config_init(&given);
        cr_assert_eq(config_from_args(3, argv, NULL, NULL, &given), 0, "%s", fail_text());
        cr_expect_eq(merge(&config, &given, &merged), -EINVAL, "%s", cases[i].option);
        cr_expect(strstr(fail_text(), cases[i].words), "%s: %s", cases[i].option, fail_text());
        config_free(&merged);
        config_free(&given);
        config_free(&config);
    }
}

Test(snapshot, a_descriptor_must_be_named_again)
{
    struct config config, given, merged;
    fill(&config);
    config.nets[0].kind = NET_KIND_FD;
    config_init(&given);
    cr_assert_eq(merge(&config, &given, &merged), 0, "%s", fail_text());
    cr_assert_eq(snapshot_check_config(&merged), -EINVAL, "no descriptor");
    config_free(&merged);
    cr_assert_eq(config_add_net(&given, "tap=tap1"), 0, "card");
    cr_assert_eq(merge(&config, &given, &merged), 0, "%s", fail_text());
    cr_assert_eq(snapshot_check_config(&merged), 0, "%s", fail_text());
    config_free(&merged);
    config_free(&given);
    config_free(&config);
}
