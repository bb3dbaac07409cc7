/* The configuration: command line and JSON in, one structure and the guest's command line out. */
#include "config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

TestSuite(config, .timeout = 10);

static struct config from_args(const char *const *message, int *ret_error)
{
    struct config config;
    char *argv[32] = {"volt-vmm"};
    int argc = 1;
    for (; message[argc - 1]; argc++)
        argv[argc] = (char *)message[argc - 1];
    config_init(&config);
    *ret_error = config_from_args(argc, argv, NULL, NULL, &config);
    return config;
}
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char *line_of(const struct config *config)
{
    char *line = NULL;
    cr_assert_eq(config_command_line(config, &line), 0, "command line: %s", fail_text());
    return line;
}

Test(config, everything_at_once)
{
    int error;
    struct config config =
        from_args(ARGS("--kernel", "vmlinux", "--initrd", "initrd", "--rootfs", "root.ext4,ro", "--disk",
                       "b.img,iops=1000:20:5,bw=10M", "--disk", "c,d.img,ro,sector=4096,direct", "--memory",
                       "2G", "--cpus", "4", "--hugepages", "--serial", "file=log"),
                  &error);
    cr_assert_eq(error, 0, "%s", fail_text());
    cr_assert_str_eq(config.kernel, "vmlinux", "kernel");
    cr_assert_str_eq(config.initrd, "initrd", "initrd");
    cr_assert_eq(config.memory, 2 * GIB, "memory");
    cr_assert_eq(config.cpus, 4, "CPUs");
    cr_assert_eq(config.pages, GUEST_PAGES_HUGETLB, "pages");
    cr_assert_eq(config.serial, SERIAL_FILE, "serial");
    cr_assert_str_eq(config.serial_path, "log", "serial path");
    cr_assert_eq(config.drive_count, 3, "drives");
    cr_assert_str_eq(config.drives[0].path, "root.ext4", "the suffix is off the name");
    cr_assert(config.drives[0].read_only, "and means what it says");
    cr_assert_str_eq(config.drives[2].path, "c,d.img", "a comma in a name stays");
    cr_assert(config.drives[2].read_only && config.drives[2].direct, "two suffixes");
    cr_assert(config.drives[2].sector == 4096 && config.drives[1].sector == 0, "and a third");
    const struct rate_limiter_config *limits = &config.drives[1].limits;
    cr_assert_str_eq(config.drives[1].path, "b.img", "limits are off the name");
    cr_assert(limits->ops.size == 1000 && limits->ops.one_time_burst == 20 && limits->ops.refill_time == 5,
              "iops");
    cr_assert(limits->bandwidth.size == 10 * MIB && limits->bandwidth.one_time_burst == 0 &&
                  limits->bandwidth.refill_time == 1000,
              "bandwidth");
    config_free(&config);
}

Test(config, the_root_is_first_wherever_it_is_named)
{
    int error;
    struct config config = from_args(ARGS("--disk", "a", "--disk", "b", "--rootfs", "r"), &error);
    cr_assert_eq(error, 0, "%s", fail_text());
    cr_assert_str_eq(config.drives[0].path, "r", "the root");
    cr_assert_str_eq(config.drives[1].path, "a", "others keep their order");
    cr_assert_str_eq(config.drives[2].path, "b", "others keep their order");
    config_free(&config);
}

Test(config, refusals_say_what_and_why)
{
    static const struct {
        const char *option, *value, *word;
    } rows[] = {
        {"--memory", "lots", "not a size"}, {"--memory", "99999999999T", "64 bits"},
        {"--cpus", "0", "1 to 254"},        {"--cpus", "255", "1 to 254"},
        {"--cpus", "2x", "1 to 254"},       {"--cpus", "-1", "1 to 254"},
        {"--thp", "maybe", "on or off"},    {"--serial", "tty", "stdio"},
        {"--serial", "file=", "file=PATH"}, {"--config", "/nonexistent", "/non"},
        {"--disk", "x,iops=", "SIZE"},      {"--disk", "x,bw=1M:x", "'x'"},
        {"--disk", "x,bw=1:2:3:4", "SIZE"}, {"--disk", "x,iops=0", "SIZE"},
        {"--disk", "x,iops=1:0:0", "SIZE"}, {"--disk", "x,iops=9223372036854775808", "2^63"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int error;
        struct config config = from_args(ARGS(rows[i].option, rows[i].value), &error);
        cr_assert_lt(error, 0, "%s %s was taken", rows[i].option, rows[i].value);
        cr_assert_not_null(strstr(fail_text(), rows[i].word), "%s %s: '%s'", rows[i].option, rows[i].value,
                           fail_text());
        config_free(&config);
    }
    int error;
    struct config config = from_args(ARGS("--rootfs", "a", "--rootfs", "b"), &error);
    cr_assert_eq(error, -EEXIST, "two roots");
    config_free(&config);
}

Test(config, command_lines)
{
    static const struct {
        const char *message[8];
        const char *has, *lacks;
    } rows[] = {
        {{"--kernel", "k"}, "console=ttyS0", "root="},
        {{"--kernel", "k", "--rootfs", "r"}, " root=/dev/vda rw", "vda ro"},
        {{"--kernel", "k", "--rootfs", "r,ro"}, " root=/dev/vda ro", "vda rw"},
        {{"--kernel", "k", "--rootfs", "r", "--append", "root=LABEL=x"}, "root=LABEL=x", "/dev/vda"},
        {{"--kernel", "k", "--rootfs", "r", "--append", "ro"}, " ro root=/dev/vda", " rw"},
        {{"--kernel", "k", "--rootfs", "r", "--cmdline", "console=ttyS0"},
         "console=ttyS0 root=/dev/vda rw",
         "quiet"},
        {{"--kernel", "k", "--rootfs", "r", "--append", "-- one root=x"},
         " root=/dev/vda rw -- one root=x",
         NULL},
        {{"--kernel", "k", "--rootfs", "r", "--append", "rootflags=x"}, " root=/dev/vda", NULL},
        {{"--kernel", "k", "--serial", "off"}, "8250.nr_uarts=0", "console="},
        {{"--kernel", "k", "--cmdline", "-- x", "--rootfs", "r"}, "root=/dev/vda rw -- x", NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        int error;
        struct config config = from_args(rows[i].message, &error);
        cr_assert_eq(error, 0, "row %zu: %s", i, fail_text());
        char *line = line_of(&config);
        cr_assert_not_null(strstr(line, rows[i].has), "row %zu: no '%s' in '%s'", i, rows[i].has, line);
        if (rows[i].lacks)
            cr_assert_null(strstr(line, rows[i].lacks), "row %zu: '%s' in '%s'", i, rows[i].lacks, line);
        free(line);
        config_free(&config);
    }
}

Test(config, a_command_line_that_linux_would_cut_is_refused)
{
    char message[2100];
    memset(message, 'x', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    int error;
    struct config config = from_args(ARGS("--append", message), &error);
    char *line = NULL;
    cr_assert_eq(config_command_line(&config, &line), -E2BIG, "too long");
    cr_assert_null(line, "the out-parameter is untouched");
    config_free(&config);
}

/* Writes `json` to a file and reads it as a configuration. */
static int from_json(const char *json, struct config *config)
{
    char path[] = "/tmp/test-config.XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0, "mkstemp");
    cr_assert_eq(write_full(fd, json, strlen(json)), 0, "write");
    close(fd);
    config_init(config);
    int r = config_from_json(path, config);
    unlink(path);
    return r;
}

Test(config, firecrackers_file)
{
    struct config config;
    int r = from_json(
        "{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"boot_args\": \"console=ttyS0\","
        "                   \"initrd_path\": null},"
        " \"drives\": [{\"drive_id\": \"d\", \"path_on_host\": \"d.img\", \"is_root_device\": false,"
        "               \"sector\": 4096, \"rate_limiter\": {\"ops\": {\"size\": 7, \"refill_time\": 3}}},"
        "              {\"drive_id\": \"r\", \"path_on_host\": \"r.img\", \"is_root_device\": true,"
        "               \"is_read_only\": true}],"
        " \"machine-config\": {\"vcpu_count\": 2, \"mem_size_mib\": 256, \"smt\": false}}",
        &config);
    cr_assert_eq(r, 0, "%s", fail_text());
    cr_assert_eq(config.cpus, 2, "CPUs");
    cr_assert_eq(config.memory, 256 * MIB, "memory");
    cr_assert_str_eq(config.drives[0].path, "r.img", "the root is first");
    cr_assert(config.drives[1].sector == 4096 && config.drives[0].sector == 0, "sectors");
    cr_assert(config.drives[1].limits.ops.size == 7 && config.drives[1].limits.ops.refill_time == 3,
              "limits");
    char *line = line_of(&config);
    cr_assert_str_eq(line, "console=ttyS0 root=/dev/vda ro", "boot_args replaces the default");
    free(line);
    config_free(&config);
}

/* As its documentation has it: what asks for nothing is no reason to refuse. */
Test(config, firecrackers_file_with_every_section)
{
    struct config config;
    int r = from_json(
        "{\"boot-source\": {\"kernel_image_path\": \"vmlinux\", \"boot_args\": \"x\", \"initrd_path\": null},"
        " \"drives\": [{\"drive_id\": \"rootfs\", \"partuuid\": null, \"is_root_device\": true,"
        "               \"cache_type\": \"Unsafe\", \"is_read_only\": false, \"path_on_host\": \"d.img\","
        "               \"io_engine\": \"Sync\", \"rate_limiter\": null, \"socket\": null}],"
        " \"machine-config\": {\"vcpu_count\": 1, \"mem_size_mib\": 128, \"smt\": false,"
        "                      \"track_dirty_pages\": false, \"huge_pages\": \"None\", \"cpu_template\": "
        "\"None\"},"
        " \"cpu-config\": null, \"balloon\": null, \"network-interfaces\": [], \"vsock\": null,"
        " \"logger\": null, \"metrics\": {}, \"mmds-config\": null, \"entropy\": null, \"pmem\": [],"
        " \"memory-hotplug\": null}",
        &config);
    cr_assert_eq(r, 0, "%s", fail_text());
    cr_assert_str_eq(config.drives[0].path, "d.img", "the root");
    config_free(&config);
}

Test(config, json_that_is_refused)
{
    static const struct {
        const char *json, *word;
    } rows[] = {
        {"", "line 1"},
        {"[]", "object"},
        {"{\"boot-source\": {\"kernel\": \"x\"}}", "unknown key 'kernel'"},
        {"{\"bootsource\": {}}", "unknown key 'bootsource'"},
        {"{\"machine-config\": {\"vcpu_count\": \"2\"}}", "whole number"},
        {"{\"machine-config\": {\"vcpu_count\": 0}}", "1 to 254"},
        {"{\"machine-config\": {\"vcpu_count\": 1e3}}", "whole number"},
        {"{\"machine-config\": {\"mem_size_mib\": -1}}", "mem_size_mib"},
        {"{\"machine-config\": {\"mem_size_mib\": 9223372036854775807}}", "mem_size_mib"},
        {"{\"machine-config\": {\"huge_pages\": \"1G\"}}", "huge_pages"},
        {"{\"machine-config\": {\"smt\": true}}", "smt"},
        {"{\"machine-config\": {\"cpu_template\": \"T2\"}}", "cpu_template"},
        {"{\"drives\": [{\"path_on_host\": \"d\", \"socket\": \"s\"}]}", "vhost-user"},
        {"{\"drives\": [{\"path_on_host\": \"d\", \"partuuid\": \"s\"}]}", "root=PARTUUID="},
        {"{\"balloon\": {\"amount_mib\": 1}}", "deflate_on_oom"},
        {"{\"balloon\": {\"amount_mib\": -1, \"deflate_on_oom\": true}}", "amount_mib"},
        {"{\"balloon\": {\"amount_mib\": 1, \"deflate_on_oom\": true, \"stats_polling_interval_s\": 65536}}",
         "stats_polling_interval_s"},
        {"{\"mmds-config\": {\"version\": \"V2\"}}", "--config-file"},
        {"{\"network-interfaces\": [{}]}", "host_dev_name"},
        {"{\"drives\": [{}]}", "path_on_host"},
        {"{\"drives\": [1]}", "object"},
        {"{\"drives\": [{\"path_on_host\": \"x\", \"sector\": 1024}]}", "512 or 4096"},
        {"{\"drives\": [{\"path_on_host\": \"x\", \"rate_limiter\": {\"iops\": {}}}]}", "bandwidth and ops"},
        {"{\"drives\": [{\"path_on_host\": \"x\", \"rate_limiter\": {\"ops\": {\"size\": 1}}}]}",
         "refill_time"},
        {"{\"drives\": {}}", "array"},
        {"{\"drives\": [], \"drives\": []}", "duplicate"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct config config;
        cr_assert_lt(from_json(rows[i].json, &config), 0, "'%s' was taken", rows[i].json);
        cr_assert_not_null(strstr(fail_text(), rows[i].word), "'%s': '%s'", rows[i].json, fail_text());
        config_free(&config);
    }
}
