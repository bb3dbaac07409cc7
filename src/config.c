#include "config.h"

#include <stdio.h>
#include <string.h>

/* Why each word is there: docs/man/volt-vmm.1, KERNEL COMMAND LINE. */
const char config_default_cmdline[] = "quiet reboot=k panic=-1 pci=off noreplace-smp cryptomgr.notests";

/* The longest command line that x86 Linux takes, with its final NUL: COMMAND_LINE_SIZE,
 * arch/x86/include/asm/setup.h. */
#define LINUX_COMMAND_LINE_SIZE 2048u

void config_init(struct config *config)
{
    *config = (struct config){.memory = 128 * MIB, .cpus = 1, .pages = GUEST_PAGES_THP_ON};
    config_balloon_default(&config->balloon);
    sandbox_init(&config->sandbox);
}

void config_balloon_default(struct balloon_config *balloon)
{
    *balloon = (struct balloon_config){.deflate_on_oom = true, .reporting = true};
}

void config_free(struct config *config)
{
    free(config->kernel);
    free(config->initrd);
    free(config->cmdline);
    free(config->append);
    free(config->serial_path);
    free(config->cas_store);
    free(config->net_backend);
    free(config->net_bridge);
    free(config->name);
    free(config->restore);
    free(config->vsock.path);
    for (unsigned i = 0; i < config->drive_count; i++) {
        free(config->drives[i].path);
        free(config->drives[i].id);
    }
    *config = (struct config){0};
}

int config_set_text(char **field, const char *value)
{
    char *copy = strdup(value);
    if (!copy)
        return fail(-ENOMEM, "no memory for the configuration");
    free(*field);
    *field = copy;
    return 0;
}

int config_add_drive(struct config *config, const struct drive_config *drive, bool root)
{
    const char *path = drive->path;
    if (drive->sector != 0 && drive->sector != 512 && drive->sector != 4096)
        return fail(-EINVAL, "%s: a sector of %u bytes (give 512 or 4096)", path, drive->sector);
    int r = rate_limiter_check(&drive->limits, path);
    if (r < 0)
        return r;
    if (root && config->has_rootfs)
        return fail(-EEXIST, "%s: a root file system is given already (%s); use --disk for others", path,
                    config->drives[0].path);
    if (config->drive_count == CONFIG_DRIVES_MAX)
        return fail(-ENOSPC, "%s: a VM has at most %u disks", path, CONFIG_DRIVES_MAX);
    struct drive_config copy = *drive;
    copy.path = strdup(path);
    copy.id = drive->id ? strdup(drive->id) : NULL;
    if (!copy.path || (drive->id && !copy.id)) {
        free(copy.path);
        return fail(-ENOMEM, "no memory for the configuration");
    }
    unsigned at = root ? 0 : config->drive_count;
    memmove(&config->drives[at + 1], &config->drives[at], (config->drive_count - at) * sizeof(copy));
    config->drives[at] = copy;
    config->drive_count++;
    config->has_rootfs |= root;
    return 0;
}

int config_put_net(struct config *config, const struct net_config *net)
{
    if (config->net_count == NET_CONFIG_MAX)
        return fail(-ENOSPC, "a VM has at most %u network cards", NET_CONFIG_MAX);
    config->nets[config->net_count++] = *net;
    return 0;
}

int config_add_net(struct config *config, const char *text)
{
    struct net_config net;
    int r = net_config_parse(text, &net);
    return r < 0 ? r : config_put_net(config, &net);
}

int config_check(const struct config *config)
{
    if (!config->kernel && !config->restore)
        return fail(-EINVAL,
                    "no kernel: give --kernel FILE (a vmlinux or bzImage; `volt-kernel path` names one that "
                    "was imported, `make run` fetches one)");
    if (config->has_rootfs && config->drives[0].path[0] == '\0')
        return fail(-EINVAL, "--rootfs: the name is empty");
    char balloon[SIZE_TEXT_MAX], memory[SIZE_TEXT_MAX];
    if (config->balloon.target > config->memory)
        return fail(-EINVAL, "a balloon of %s does not fit into a guest of %s",
                    size_text(config->balloon.target, balloon), size_text(config->memory, memory));
    return guest_mem_check_size(config->memory);
}

/* True if `line` has the word `wanted`, or one that starts with it if it ends in "="; what follows a lone
 * "--" is init's. */
static bool line_has(const char *line, const char *wanted)
{
    size_t length = strlen(wanted);
    bool prefix = wanted[length - 1] == '=';
    for (const char *word = line + strspn(line, " "); *word; word += strspn(word, " ")) {
        size_t word_length = strcspn(word, " ");
        if (word_length == 2 && memcmp(word, "--", 2) == 0)
            return false;
        if (strncmp(word, wanted, length) == 0 && (prefix || word_length == length))
            return true;
        word += word_length;
    }
    return false;
}

/* Puts `words` before a lone "--" (what follows it is for init), or at the end. */
static int add_words(char **line, const char *words)
{
    size_t at = strlen(*line);
    const char *end = strncmp(*line, "-- ", 3) == 0 ? *line : strstr(*line, " -- ");
    if (end)
        at = (size_t)(end - *line);
    char *joined;
    if (asprintf(&joined, "%.*s%s%s%s%s", (int)at, *line, at ? " " : "", words, end && !at ? " " : "",
                 *line + at) < 0)
        return fail(-ENOMEM, "no memory for the command line");
    free(*line);
    *line = joined;
    return 0;
}

int config_command_line(const struct config *config, char **ret_line)
{
    CLEANUP_FREE char *line = strdup(config->cmdline ? config->cmdline : config_default_cmdline);
    if (!line)
        return fail(-ENOMEM, "no memory for the command line");
    int r = 0;
    if (!config->cmdline)
        r = add_words(&line, config->serial == SERIAL_OFF ? "8250.nr_uarts=0" : "console=ttyS0");
    if (r == 0 && config->append) {
        char *joined;
        if (asprintf(&joined, "%s %s", line, config->append) < 0)
            return fail(-ENOMEM, "no memory for the command line");
        free(line);
        line = joined;
    }
    if (r == 0 && config->has_rootfs && !line_has(line, "root=")) {
        r = add_words(&line, "root=/dev/vda");
        if (r == 0 && !line_has(line, "ro") && !line_has(line, "rw"))
            r = add_words(&line, config->drives[0].read_only ? "ro" : "rw");
    }
    for (unsigned i = 0; r == 0 && i < config->net_count; i++) {
        char word[NET_WORD_MAX];
        if (*net_config_word(&config->nets[i], i, word))
            r = add_words(&line, word);
    }
    if (r < 0)
        return r;
    if (strlen(line) >= LINUX_COMMAND_LINE_SIZE)
        return fail(-E2BIG, "the kernel command line has %zu bytes; Linux takes %u", strlen(line),
                    LINUX_COMMAND_LINE_SIZE - 1);
    *ret_line = ptr_steal(&line);
    return 0;
}
