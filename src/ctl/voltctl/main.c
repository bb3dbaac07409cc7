/* voltctl: the control sockets of VMs, for people. Each command is a row of the table below and one
 * function. */
#include "ctl/voltctl/voltctl.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

const char *argp_program_version = "voltctl " VOLT_VERSION;

static const struct command {
    const char *name, *arguments, *summary;
    voltctl_command *run;
    bool named; /* takes the name of a VM */
} commands[] = {
    {"list", "", "the VMs that there are", do_list, false},
    {"start", "NAME [OPTION...]", "start a VM, with options of volt-vmm, or one that waits for it", do_start,
     true},
    {"stop", "NAME", "press its power button; end it when its time is over", do_stop, true},
    {"shutdown", "NAME", "ask its guest's agent to power off; without one as stop", do_shutdown, true},
    {"exec", "NAME -- COMMAND...", "run a command in its guest (voltctl exec --help)", do_exec, false},
    {"snapshot", "NAME DIR|cas:NAME", "save it as it runs, into a folder or the store; it goes on",
     do_snapshot, true},
    {"restore", "NAME FROM [OPTION...]", "start a VM that goes on from a snapshot, with options of volt-vmm",
     do_restore, true},
    {"reset", "NAME", "take it back to the snapshot that it came from", do_reset, true},
    {"fork", "NAME [COPY...]", "make running copies of it, which share its memory until they write", do_fork,
     true},
    {"pause", "NAME", "stop its CPUs and devices", do_pause, true},
    {"resume", "NAME", "let it go on", do_resume, true},
    {"balloon", "NAME [SIZE]", "how much memory its guest is to give up", do_balloon, true},
    {"drive", "NAME ID=FILE", "put another disk in the place of a drive, or the same one after it grew",
     do_drive, true},
    {"config", "NAME", "its configuration, as JSON", do_config, true},
    {"sandbox", "NAME", "what confines it, as JSON", do_sandbox, true},
    {"metrics", "NAME", "what it counts, as Prometheus text", do_metrics, true},
    {"events", "NAME", "follow what happens to it, a JSON object a line", do_events, true},
    {"logs", "NAME", "what its monitor said, or with --console its guest", do_logs, true},
    {"rm", "NAME", "remove what a VM that has ended left behind", do_rm, true},
};

enum { OPTION_FORCE = 0x100, OPTION_CONSOLE, OPTION_STORE, OPTION_PAUSED };

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "where the sockets are ($VOLT_RUNTIME_DIR, $XDG_RUNTIME_DIR/volt, or /run/volt)",
     0},
    {"json", 'j', NULL, 0, "list: print JSON", 0},
    {"timeout", 't', "SECONDS", 0, "stop, shutdown: how long the guest may take (default 30)", 0},
    {"force", OPTION_FORCE, NULL, 0, "stop: do not ask the guest", 0},
    {"cas-store", OPTION_STORE, "DIR", 0, "snapshot, restore: the store of cas:NAME ($STELLARIUM_STORE)", 0},
    {"count", 'n', "N", 0, "fork: so many copies, NAME-1 and on (default 1)", 0},
    {"paused", OPTION_PAUSED, NULL, 0, "fork: the copies stay paused (voltctl resume)", 0},
    {"console", OPTION_CONSOLE, NULL, 0, "logs: the guest's console", 0},
    {0},
};

struct parsing {
    struct invocation invocation;
    const struct command *command;
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int set_number(const char *option, unsigned *to, const char *text)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || value > 1000000)
        return fail(-EINVAL, "--%s '%s': give a number, at most 1000000", option, text);
    *to = (unsigned)value;
    return 0;
}

static int take_argument(struct parsing *parsing, struct argp_state *state, char *argument)
{
    struct invocation *invocation = &parsing->invocation;
    if (!parsing->command) {
        parsing->command = find_command(argument);
        if (!parsing->command)
            return fail(-EINVAL, "'%s' is no command (see --help)", argument);
        if (parsing->command->run == do_exec) { /* it has options of its own */
            invocation->rest = state->argv + state->next;
            state->next = state->argc;
        }
        return 0;
    }
    voltctl_command *run = parsing->command->run;
    bool worded = run == do_balloon || run == do_snapshot || run == do_restore || run == do_drive;
    bool second = worded && invocation->name && !invocation->word;
    if (run == do_fork && invocation->name) { /* the copies' names */
        invocation->rest = state->argv + state->next - 1;
        state->next = state->argc;
        return 0;
    }
    if (!parsing->command->named || (invocation->name && !second))
        return fail(-EINVAL, "%s: '%s' is too much", parsing->command->name, argument);
    if (second)
        invocation->word = argument;
    else
        invocation->name = argument;
    if (run == do_start || (run == do_restore && second)) { /* what follows is volt-vmm's */
        invocation->rest = state->argv + state->next;
        state->next = state->argc;
    }
    return 0;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct parsing *parsing = state->input;
    struct invocation *invocation = &parsing->invocation;
    int r = 0;
    switch (key) {
    case 'd': invocation->directory = argument; break;
    case 'j': invocation->json = true; break;
    case 't': r = set_number("timeout", &invocation->timeout_seconds, argument); break;
    case 'n': r = set_number("count", &invocation->count, argument); break;
    case OPTION_PAUSED: invocation->paused = true; break;
    case OPTION_FORCE: invocation->force = true; break;
    case OPTION_CONSOLE: invocation->console = true; break;
    case OPTION_STORE: invocation->store = argument; break;
    case ARGP_KEY_ARG: r = take_argument(parsing, state, argument); break;
    case ARGP_KEY_END:
        if (!parsing->command) {
            argp_usage(state);
            break;
        }
        if (parsing->command->named && !invocation->name)
            r = fail(-EINVAL, "%s: name a VM (voltctl list)", parsing->command->name);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return r < 0 ? -r : 0;
}

/* The commands, behind the options. */
static char *help_filter(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC)
        return (char *)text;
    struct text help = {0};
    text_puts(&help, "Commands:\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        text_printf(&help, "  %-8s %-21s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    return help.failed ? (char *)text : help.at;
}

static char *default_directory(void)
{
    const char *own = getenv("VOLT_RUNTIME_DIR"), *users = getenv("XDG_RUNTIME_DIR");
    char *path = NULL;
    if (own)
        return strdup(own);
    if (users && asprintf(&path, "%s/volt", users) >= 0)
        return path;
    return users ? NULL : strdup("/run/volt");
}

int main(int argc, char **argv)
{
    static char *nothing[] = {NULL};
    const struct argp argp = {.options = options,
                              .parser = parse_option,
                              .args_doc = "COMMAND [NAME]",
                              .doc = "Control virtual machines of volt-vmm.\v",
                              .help_filter = help_filter};
    CLEANUP_FREE char *directory = default_directory();
    struct parsing parsing = {.invocation = {.directory = directory ? directory : "/run/volt",
                                             .rest = nothing,
                                             .timeout_seconds = 30}};
    signal(SIGPIPE, SIG_IGN);
    argp_err_exit_status = 2;
    error_t error = argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &parsing);
    if (error) {
        fprintf(stderr, "voltctl: %s\n", fail_text());
        return 2;
    }
    int r = parsing.command->run(&parsing.invocation);
    if (r == 0 && fflush(stdout) != 0)
        r = fail_errno(-errno, "standard output");
    if (r < 0)
        fprintf(stderr, "voltctl: %s\n", fail_text());
    if (r < 0)
        return parsing.command->run == do_exec ? VOLTCTL_EXEC_FAILED : 1;
    return r;
}
