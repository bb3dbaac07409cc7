#include "ctl/firecracker.h"

#include "snapshot.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* ---- The command line ---- */

/* What one of its options does to struct ctl_options. */
enum effect { TEXT, FLAG, BYTES, NUMBER, IGNORED };

struct option_row {
    const char *name, *help, *fallback; /* `fallback` is for the help text */
    enum effect effect;
    size_t offset; /* into struct ctl_options, but for NUMBER and IGNORED */
};

#define AT(member) offsetof(struct ctl_options, member)

static const char no_seccomp[] = "no-seccomp", seccomp_filter[] = "seccomp-filter";

/* In the order of their names: so its help lists them, and so it checks them. */
static const struct option_row rows[] = {
    {"api-sock", "Path of the Unix socket that the API listens on.", "/run/firecracker.socket", TEXT,
     AT(config.socket_path)},
    {"boot-timer", "Log the time from InstanceStart to the guest's signal.", NULL, FLAG, AT(boot_timer)},
    {"config-file", "Path of a file with the microVM's configuration in JSON.", NULL, TEXT,
     AT(config.config_file)},
    {"describe-snapshot", "Print the data format version of a snapshot's state file.", NULL, TEXT,
     AT(describe_snapshot)},
    {"enable-pci", "Taken and logged: devices are on virtio-mmio here.", NULL, FLAG, AT(config.pci_wanted)},
    {"help", "Show this.", NULL, IGNORED, 0},
    {"http-api-max-payload-size", "The largest body of a request, in bytes.", "51200", BYTES,
     AT(config.payload_max)},
    {"id", "The microVM's name.", "anonymous-instance", TEXT, AT(config.id)},
    {"level", "The log's level.", NULL, TEXT, AT(config.log_level)},
    {"log-path", "Path of a FIFO or a file for the log.", NULL, TEXT, AT(config.log_path)},
    {"metadata", "Path of a file with JSON for the MMDS.", NULL, TEXT, AT(config.metadata_file)},
    {"metrics-path", "Path of a FIFO or a file for the metrics.", NULL, TEXT, AT(config.metrics_path)},
    {"mmds-size-limit", "The largest data store of the MMDS, in bytes.", NULL, BYTES,
     AT(config.metadata_max)},
    {"module", "Log only what modules say whose name begins so.", NULL, TEXT, AT(config.log_module)},
    {"no-api", "Start and use a microVM without a socket.", NULL, FLAG, AT(no_api)},
    {no_seccomp, "Taken: the filters of this program are not switched off.", NULL, IGNORED, 0},
    {"parent-cpu-time-us", "CPU time of the parent process, in microseconds.", NULL, NUMBER,
     AT(config.parent_cpu_us)},
    {seccomp_filter, "Path of another seccomp filter.", NULL, TEXT, AT(seccomp_filter)},
    {"show-level", "Name the level in each line of the log.", NULL, FLAG, AT(config.log_show_level)},
    {"show-log-origin", "Name the source line in each line of the log.", NULL, FLAG,
     AT(config.log_show_origin)},
    {"snapshot-version", "Print the data format version of snapshots.", NULL, FLAG, AT(snapshot_version)},
    {"start-time-cpu-us", "CPU time when the process started, in microseconds.", NULL, NUMBER,
     AT(config.start_cpu_us)},
    {"start-time-us", "Time when the process started, in microseconds.", NULL, NUMBER, AT(config.start_us)},
    {"version", "Print the version.", NULL, IGNORED, 0},
};

void firecracker_say(const char *id, const char *format, ...)
{
    char message[1024];
    struct logger logger;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    fflush(stdout);
    logger_init(&logger, id);
    logger.fd = STDOUT_FILENO;
    logger_say(&logger, LOGGER_ERROR, "main", "%s", message);
}

static const struct option_row *find_option(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static bool takes_value(const struct option_row *row)
{
    return row->effect != FLAG && row->effect != IGNORED;
}

static bool has(int argc, char **argv, const char *wanted)
{
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, wanted) == 0)
            return true;
    return false;
}

static int set_number(const struct option_row *row, const char *text, uint64_t most, uint64_t *ret_value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value > most)
        return fail(-EINVAL, "'%s' parameter expected to be of 'usize' type, at most %llu.", row->name,
                    (unsigned long long)most);
    *ret_value = value;
    return 0;
}

static int set_option(const struct option_row *row, char *value, struct ctl_options *to)
{
    char *at = (char *)to + row->offset;
    uint64_t number = 0;
    int r = 0;
    switch (row->effect) {
    case TEXT: *(const char **)(void *)at = value; break;
    case FLAG: *(bool *)(void *)at = true; break;
    case BYTES:
        r = set_number(row, value, 1024 * MIB, &number);
        if (r == 0)
            *(size_t *)(void *)at = number;
        break;
    case NUMBER:
        r = set_number(row, value, UINT64_MAX, &number);
        if (r == 0)
            *(uint64_t *)(void *)at = number;
        break;
    case IGNORED: break;
    }
    return r;
}

static int take_options(int argc, char **argv, struct ctl_options *to)
{
    bool seen[ARRAY_SIZE(rows)] = {false};
    for (int i = 1; i < argc; i++) {
        bool dashes = strncmp(argv[i], "--", 2) == 0;
        const char *name = argv[i] + (dashes ? 2 : 0);
        const struct option_row *row = dashes ? find_option(name) : NULL;
        if (!row)
            return fail(-EINVAL, "Found argument '%s' which wasn't expected, or isn't valid in this context.",
                        name);
        if (seen[row - rows])
            return fail(-EINVAL, "The argument '%s' was provided more than once.", name);
        seen[row - rows] = true;
        char *value = takes_value(row) && i + 1 < argc ? argv[++i] : NULL;
        if (takes_value(row) && (!value || strncmp(value, "--", 2) == 0))
            return fail(-EINVAL, "The argument '%s' requires a value, but none was supplied.", name);
        int r = set_option(row, value, to);
        if (r < 0)
            return r;
    }
    return 0;
}

static int check_options(int argc, char **argv, const struct ctl_options *to)
{
    if (to->no_api && !to->config.config_file)
        return fail(-EINVAL, "Argument 'config-file' required, but not found.");
    if (has(argc, argv, no_seccomp) && has(argc, argv, seccomp_filter))
        return fail(-EINVAL, "Argument '%s' cannot be used together with argument '%s'.", seccomp_filter,
                    no_seccomp);
    return 0;
}

static void print_help(void)
{
    printf("Firecracker v" CTL_FIRECRACKER_VERSION "\n\noptional arguments:\n");
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char name[64];
        snprintf(name, sizeof(name), takes_value(&rows[i]) ? "--%s <%s>" : "--%s", rows[i].name,
                 rows[i].name);
        printf("  %-55s   %s", name, rows[i].help);
        printf(rows[i].fallback ? " [default: \"%s\"]\n" : "\n", rows[i].fallback);
    }
}

/* Ends with an error before the machine is there. */
static int ended(const char *id, int status, const char *what)
{
    firecracker_say(id, "%s", what);
    fprintf(stderr, "Error: %s\n", what);
    firecracker_say(id, "Firecracker exiting with error. exit_code=%d", status);
    return status;
}

static int ended_well(const char *id)
{
    firecracker_say(id, "Firecracker exiting successfully. exit_code=0");
    return 0;
}

/* Version 1 of our files is what Firecracker's clients know as its version 11. */
static int describe(const struct ctl_options *to)
{
    char words[512];
    uint32_t version;
    int r = snapshot_version(to->describe_snapshot, &version);
    if (r == 0) {
        printf("v%u.0.0\n", version + FIRECRACKER_SNAPSHOT_BEFORE);
        return ended_well(to->config.id);
    }
    if (r == -EBADMSG)
        snprintf(words, sizeof(words),
                 "When printing Snapshot Data format: Invalid data format version of snapshot file: %s",
                 fail_text());
    else
        snprintf(words, sizeof(words),
                 "When printing Snapshot Data format: Unable to open snapshot state file: %s (os error %d)",
                 strerror(-r), -r);
    return ended(to->config.id, FIRECRACKER_GENERIC_ERROR, words);
}

/* What only asks the program something. -1: nothing does. */
static int answer(const struct ctl_options *to)
{
    char words[512];
    if (to->snapshot_version) {
        puts(FIRECRACKER_SNAPSHOT_VERSION);
        return ended_well(to->config.id);
    }
    if (to->describe_snapshot)
        return describe(to);
    const char *path = to->seccomp_filter;
    if (!path)
        return -1;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    int error = errno;
    if (fd < 0)
        snprintf(words, sizeof(words), "Seccomp error: Filter file open error: %s (os error %d)",
                 strerror(error), error);
    else /* never run with less than was asked for */
        snprintf(words, sizeof(words), "Seccomp error: other filters than the program's own cannot be used");
    return ended(to->config.id, FIRECRACKER_GENERIC_ERROR, words);
}

int firecracker_args(int argc, char **argv, struct ctl_options *to)
{
    const char *id = to->config.id;
    for (int i = 1; i < argc; i++) /* what follows "--" is nobody's */
        if (strcmp(argv[i], "--") == 0)
            argc = i;
    bool short_help = false;
    for (int i = 1; i < argc; i++)
        short_help = short_help || strcmp(argv[i], "-h") == 0;
    if (short_help || has(argc, argv, "help")) {
        print_help();
        return ended_well(id);
    }
    if (has(argc, argv, "version")) {
        puts("Firecracker v" CTL_FIRECRACKER_VERSION "\n");
        return ended_well(id);
    }
    int r = take_options(argc, argv, to);
    if (r == 0)
        r = check_options(argc, argv, to);
    if (r == 0)
        r = ctl_check_id(to->config.id);
    if (r < 0) {
        char words[512];
        snprintf(words, sizeof(words), "Arguments parsing error: %s \\n\\nFor more information try --help.",
                 fail_text());
        return ended(id, FIRECRACKER_ARG_PARSING, words);
    }
    enum logger_level level;
    if (to->config.log_level && !logger_level_of(to->config.log_level, &level)) {
        char words[256];
        snprintf(
            words, sizeof(words),
            "Invalid value for logger level: Failed to parse string to level filter: %s.Possible values: "
            "[Error, Warning, Info, Debug]",
            to->config.log_level);
        return ended(to->config.id, FIRECRACKER_BAD_CONFIGURATION, words);
    }
    ctl_options_finish(to);
    return answer(to);
}

bool firecracker_is_name(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');
    return strcmp(slash ? slash + 1 : argv0, "firecracker") == 0;
}
