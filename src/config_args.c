/* The command line of volt-vmm, by argp. */
#include "config.h"

#include "devices.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

const char *argp_program_version = "volt-vmm " VOLT_VERSION;

enum {
    OPTION_INITRD = 0x100,
    OPTION_CMDLINE,
    OPTION_APPEND,
    OPTION_HUGEPAGES,
    OPTION_THP,
    OPTION_SERIAL,
    OPTION_CONFIG,
    OPTION_SANDBOX,
    OPTION_ALLOW_PATH,
    OPTION_UID,
    OPTION_GID,
    OPTION_RESTORE,
    OPTION_ALLOW_FORK,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0, "What to boot:", 1},
    {"kernel", 'k', "FILE", 0, "kernel: an ELF vmlinux with a PVH note, or a distribution's bzImage", 1},
    {"initrd", OPTION_INITRD, "FILE", 0, "initial RAM disk", 1},
    {"append", OPTION_APPEND, "WORDS", 0, "add to the default kernel command line", 1},
    {"cmdline", OPTION_CMDLINE, "WORDS", 0, "replace the default kernel command line", 1},
    {"restore", OPTION_RESTORE, "DIR|cas:NAME", 0,
     "in place of a kernel: go on from a snapshot in a folder or in the store (voltctl snapshot makes one). "
     "Disks, network cards and a vsock device that are given take the places of those that it had, in their "
     "order",
     1},

    {NULL, 0, NULL, 0, "What it has:", 2},
    {"memory", 'm', "SIZE", 0, "memory, as in 128M or 2G (default 128M)", 2},
    {"cpus", 'c', "N", 0, "CPUs (default 1)", 2},
    {"serial", OPTION_SERIAL, "WHERE", 0, "the console: stdio (default), file=PATH, or off", 2},

    {NULL, 0, NULL, 0, "How memory is backed:", 3},
    {"thp", OPTION_THP, "on|off", 0,
     "transparent huge pages (default on: boots 25 ms sooner; off: an idle guest costs some 5 MiB less)", 3},
    {"hugepages", OPTION_HUGEPAGES, NULL, 0, "2 MiB pages of the host's hugetlb pool", 3},

    {NULL, 0, NULL, 0, "How it is confined:", 4},
    {"sandbox", OPTION_SANDBOX, "off|LIST", 0,
     "for debugging: off, or only these of seccomp, ring, landlock, capabilities, limits (default: all)", 4},
    {"uid", OPTION_UID, "N", 0, "become this user before the guest runs, for who starts VMs as root", 4},
    {"gid", OPTION_GID, "N", 0, "and this group, without any other", 4},
    {"allow-path", OPTION_ALLOW_PATH, "DIR[,ro]", 0,
     "disks may be opened from DIR after the start, too, and snapshots be written to it (may be given again)",
     4},
    {"allow-fork", OPTION_ALLOW_FORK, NULL, 0,
     "running copies may be made of this VM (voltctl fork): its monitor keeps the right to make a VM", 4},

    {NULL, 0, NULL, 0, "And:", 5},
    {"config", OPTION_CONFIG, "FILE", 0,
     "read a JSON configuration (Firecracker's keys) first; options add to it", 5},
    {0},
};

static const char doc[] =
    "Run a microVM: boot a Linux kernel under KVM with its console on this terminal.\v"
    "Examples:\n"
    "  volt-vmm --kernel vmlinux --rootfs rootfs.ext4\n"
    "  volt-vmm --kernel bzImage --initrd initrd.img --rootfs disk.img,ro --memory 512M --cpus 2\n"
    "  volt-vmm --kernel vmlinux --volume vm1 --cas-store /var/lib/stellarium --memory 256M\n"
    "  volt-vmm --config vm.json --serial file=console.log\n"
    "\n"
    "On a terminal Ctrl-A x ends the VM and Ctrl-A h shows what else there is.\n"
    "\n"
    "Exit status: 0 the guest rebooted or powered off, or Ctrl-A x; 1 the configuration is wrong; 2 the host "
    "failed (KVM, "
    "io_uring, memory); 3 the guest's kernel panicked; 4 the guest crashed (triple fault); 128+N signal N "
    "ended the VM.\n";

static int set_cpus(struct config *config, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long count = strtoul(text, &end, 10);
    if (errno || end == text || *end || count == 0 || count > 254 || text[0] == '-')
        return fail(-EINVAL, "--cpus '%s': give a number from 1 to 254", text);
    config->cpus = (unsigned)count;
    return 0;
}

static int set_serial(struct config *config, const char *text)
{
    if (strcmp(text, "stdio") == 0)
        config->serial = SERIAL_STDIO;
    else if (strcmp(text, "off") == 0)
        config->serial = SERIAL_OFF;
    else if (strncmp(text, "file=", 5) == 0 && text[5]) {
        config->serial = SERIAL_FILE;
        return config_set_text(&config->serial_path, text + 5);
    } else
        return fail(-EINVAL, "--serial '%s': give stdio, file=PATH or off", text);
    return 0;
}

static int set_thp(struct config *config, const char *text)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
        return fail(-EINVAL, "--thp '%s': give on or off", text);
    config->pages = text[1] == 'n' ? GUEST_PAGES_THP_ON : GUEST_PAGES_THP_OFF;
    return 0;
}

struct input {
    struct config *config;
    size_t kinds;
    void *more; /* for the child parser */
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    const struct input *input = state->input;
    struct config *config = input->config;
    int r = 0;
    switch (key) {
    case 'k': r = config_set_text(&config->kernel, argument); break;
    case 'm': r = size_parse(argument, &config->memory); break;
    case 'c': r = set_cpus(config, argument); break;
    case OPTION_INITRD: r = config_set_text(&config->initrd, argument); break;
    case OPTION_RESTORE: r = config_set_text(&config->restore, argument); break;
    case OPTION_CMDLINE: r = config_set_text(&config->cmdline, argument); break;
    case OPTION_APPEND: r = config_set_text(&config->append, argument); break;
    case OPTION_HUGEPAGES: config->pages = GUEST_PAGES_HUGETLB; break;
    case OPTION_THP: r = set_thp(config, argument); break;
    case OPTION_SERIAL: r = set_serial(config, argument); break;
    case OPTION_SANDBOX: r = sandbox_parse(argument, &config->sandbox); break;
    case OPTION_ALLOW_PATH: r = sandbox_allow(argument, &config->sandbox); break;
    case OPTION_UID: r = sandbox_parse_id("uid", argument, &config->sandbox.user); break;
    case OPTION_GID: r = sandbox_parse_id("gid", argument, &config->sandbox.group); break;
    case OPTION_ALLOW_FORK: config->sandbox.copies = true; break;
    case OPTION_CONFIG: r = config_from_json(argument, config); break;
    case ARGP_KEY_INIT:
        for (size_t i = 0; i <= input->kinds; i++)
            state->child_inputs[i] = i < input->kinds ? config : input->more;
        break;
    case ARGP_KEY_END: r = sandbox_check(&config->sandbox); break;
    case ARGP_KEY_ARG:
        r = fail(-EINVAL, "'%s' is not an option (files are given by --kernel, --rootfs, --disk)", argument);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return r < 0 ? -r : 0;
}

/* The default command line is shown where it is spoken of. */
static char *help_filter(int key, const char *text, void *input)
{
    (void)input;
    char *shown;
    if (key == OPTION_APPEND &&
        asprintf(&shown, "%s, which is: %s console=ttyS0", text, config_default_cmdline) >= 0)
        return shown;
    return (char *)text;
}

int config_from_args(int argc, char **argv, const struct argp_child *more, void *more_input,
                     struct config *config)
{
    struct argp_child children[DEVICE_KINDS_MAX + 2] = {0};
    struct input input = {.config = config, .more = more_input};
    for (const struct device_kind *const *kind = device_kinds; *kind; kind++)
        if ((*kind)->argp)
            children[input.kinds++].argp = (*kind)->argp;
    if (more)
        children[input.kinds] = *more;
    const struct argp argp = {.options = options,
                              .parser = parse_option,
                              .doc = doc,
                              .children = children,
                              .help_filter = help_filter};
    error_t error = argp_parse(&argp, argc, argv, 0, NULL, &input);
    return error ? -error : 0;
}
