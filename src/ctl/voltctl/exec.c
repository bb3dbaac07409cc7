/* `voltctl exec`: what is asked for. */
#include "ctl/voltctl/agent.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

struct exec_options {
    struct invocation invocation;
    struct agent_request *request;
    char **command;
};

/* A number of a user or group; the last of all numbers is none. */
static bool take_id(const char **cursor, uint32_t *ret_id)
{
    char *end = NULL;
    errno = 0;
    unsigned long value = strtoul(*cursor, &end, 10);
    if (**cursor < '0' || **cursor > '9' || errno || value >= UINT32_MAX)
        return false;
    *cursor = end;
    *ret_id = (uint32_t)value;
    return true;
}

static int set_user(struct agent_request *request, const char *text)
{
    const char *cursor = text;
    bool good = take_id(&cursor, &request->uid);
    request->gid = request->uid;
    if (good && *cursor == ':') {
        cursor++;
        good = take_id(&cursor, &request->gid);
    }
    if (!good || *cursor)
        return fail(-EINVAL, "--user '%s': give numbers, as in 1000 or 1000:100", text);
    request->flags |= AGENT_WITH_USER;
    return 0;
}

static int add_variable(struct agent_request *request, const char *text)
{
    if (text[0] == '=' || !strchr(text, '='))
        return fail(-EINVAL, "--env '%s': give NAME=VALUE", text);
    if (request->variable_count == AGENT_STRINGS_MAX)
        return fail(-E2BIG, "--env: at most %u variables", AGENT_STRINGS_MAX);
    request->variables[request->variable_count++] = text;
    return 0;
}

static const struct argp_option options[] = {
    {"dir", 'd', "DIR", 0, "where the sockets are, as for voltctl", 0},
    {"env", 'e', "NAME=VALUE", 0, "a variable of the command's environment", 0},
    {"tty", 't', NULL, 0, "give the command a terminal", 0},
    {"user", 'u', "UID[:GID]", 0, "run it as this user, by number (default root)", 0},
    {"workdir", 'w', "DIR", 0, "run it in this folder of the guest", 0},
    {0},
};

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    struct exec_options *exec = state->input;
    int r = 0;
    switch (key) {
    case 'd': exec->invocation.directory = argument; break;
    case 'e': r = add_variable(exec->request, argument); break;
    case 't': exec->request->flags |= AGENT_WITH_TTY; break;
    case 'u': r = set_user(exec->request, argument); break;
    case 'w': exec->request->directory = argument; break;
    case ARGP_KEY_ARG:
        exec->invocation.name = argument;
        exec->command = state->argv + state->next; /* all that follows is the command's */
        state->next = state->argc;
        if (exec->command[0] && strcmp(exec->command[0], "--") == 0)
            exec->command++;
        break;
    case ARGP_KEY_END:
        if (!exec->invocation.name)
            r = fail(-EINVAL, "exec: name a VM (voltctl list)");
        else if (!exec->command[0])
            r = fail(-EINVAL, "exec: name a command, as in: voltctl exec %s -- ls", exec->invocation.name);
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return r < 0 ? -r : 0;
}

static int parse(const struct invocation *invocation, struct exec_options *exec)
{
    static char program[] = "voltctl exec";
    const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .args_doc = "VM -- COMMAND [ARGUMENT...]",
        .doc = "Run a command in the guest of a VM, by its agent.\v"
               "The exit status is the command's; 128 + N after signal N, 127 if it is not "
               "found, 126 if it cannot be started, 125 if voltctl itself fails."};
    size_t count = 0;
    while (invocation->rest[count])
        count++;
    CLEANUP_FREE char **arguments = calloc(count + 2, sizeof(*arguments));
    if (!arguments)
        return fail(-ENOMEM, "no memory");
    arguments[0] = program;
    memcpy(arguments + 1, invocation->rest, count * sizeof(*arguments));
    error_t error = argp_parse(&argp, (int)count + 1, arguments, ARGP_IN_ORDER, NULL, exec);
    /* The words that it pointed to are of `rest`, whose end is the same. */
    if (exec->command)
        exec->command = invocation->rest + (exec->command - arguments - 1);
    return -error;
}

/* The terminal of the guest's begins as this one is. */
static int set_terminal(struct agent_request *request, char **ret_term)
{
    struct winsize size = {0};
    const char *term = getenv("TERM");
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
        request->rows = size.ws_row;
        request->columns = size.ws_col;
    }
    for (size_t i = 0; i < request->variable_count; i++)
        if (strncmp(request->variables[i], "TERM=", 5) == 0)
            return 0;
    if (!term)
        return 0;
    if (asprintf(ret_term, "TERM=%s", term) < 0) {
        *ret_term = NULL;
        return fail(-ENOMEM, "no memory");
    }
    return add_variable(request, *ret_term);
}

/* With the terminal as it is for a terminal in the guest, if there are two. */
static int follow(const char *name, int conn, bool tty)
{
    struct termios before;
    bool raw = tty && tcgetattr(STDIN_FILENO, &before) == 0;
    if (raw) {
        struct termios wanted = before;
        cfmakeraw(&wanted);
        tcsetattr(STDIN_FILENO, TCSADRAIN, &wanted);
    }
    int r = agent_follow(name, conn, tty);
    if (raw)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    return r;
}

int do_exec(const struct invocation *invocation)
{
    static struct agent_request request = {.directory = ""};
    static uint8_t frame[AGENT_FRAME_MAX];
    struct exec_options exec = {.invocation = *invocation, .request = &request};
    CLEANUP_FREE char *term = NULL;
    CLEANUP_FD int conn = -1;
    argp_err_exit_status = VOLTCTL_EXEC_FAILED;
    int r = parse(invocation, &exec);
    if (r < 0)
        return r;
    bool tty = request.flags & AGENT_WITH_TTY;
    for (; exec.command[request.argument_count]; request.argument_count++) {
        if (request.argument_count == AGENT_STRINGS_MAX)
            return fail(-E2BIG, "the command is too long: at most %u words", AGENT_STRINGS_MAX);
        request.arguments[request.argument_count] = exec.command[request.argument_count];
    }
    if (!exec.command[0][0])
        return fail(-EINVAL, "exec: the command's name is empty");
    if (tty && (r = set_terminal(&request, &term)) < 0)
        return r;
    ssize_t length = agent_request_write(&request, frame);
    if (length < 0)
        return (int)length;
    r = agent_connect(&exec.invocation, frame, (size_t)length, &conn);
    return r < 0 ? r : follow(exec.invocation.name, conn, tty);
}
