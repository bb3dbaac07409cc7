/* The filters: loading one, and the end of a process that did what its filter does not allow. */
#include "sec/internal.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Made by generate/filters.c. */
#include "sec/filters.h"

struct filter {
    struct sock_filter *program;
    size_t length;
    const char *const *calls;
};
#define FILTER(name)                                                                                         \
    (struct filter)                                                                                          \
    {                                                                                                        \
        program_##name, ARRAY_SIZE(program_##name), calls_##name                                             \
    }

/* SYS_SECCOMP of asm-generic/siginfo.h, which glibc does not have. */
#define CODE_SECCOMP 1

static struct filter chosen[SANDBOX_ROLES];
static int trap_status;
static void (*trapped_callback)(void);
static struct sigaction action_before; /* of SIGSYS */
static _Thread_local char thread_name[16];

/* The filters have a mark where this process's number belongs. */
static void put_pid(const struct filter *filter)
{
    for (size_t i = 0; i < filter->length; i++)
        if (BPF_CLASS(filter->program[i].code) == BPF_JMP && filter->program[i].k == SANDBOX_OWN_PID)
            filter->program[i].k = (uint32_t)getpid();
}

void filter_choose(const struct sandbox_config *config, bool makes)
{
    const struct filter loops[6][4] = {
        {FILTER(loop), FILTER(loop_net), FILTER(loop_unix), FILTER(loop_unix_net)},
        {FILTER(loop_files), FILTER(loop_files_net), FILTER(loop_files_unix), FILTER(loop_files_unix_net)},
        {FILTER(loop_forks), FILTER(loop_forks_net), FILTER(loop_forks_unix), FILTER(loop_forks_unix_net)},
        {FILTER(loop_makes), FILTER(loop_makes_net), FILTER(loop_makes_unix), FILTER(loop_makes_unix_net)},
        {FILTER(loop_copies), FILTER(loop_copies_net), FILTER(loop_copies_unix),
         FILTER(loop_copies_unix_net)},
        {FILTER(loop_copies_makes), FILTER(loop_copies_makes_net), FILTER(loop_copies_makes_unix),
         FILTER(loop_copies_makes_unix_net)}};
    unsigned files = config->copies        ? 4u + makes
                     : makes               ? 3
                     : config->forks       ? 2
                     : config->opens_files ? 1
                                           : 0;
    chosen[SANDBOX_LOOP] = loops[files][2 * config->connects + config->net];
    chosen[SANDBOX_VCPU] = FILTER(vcpu);
    chosen[SANDBOX_OPENER] = FILTER(opener);
    for (unsigned role = 0; role < SANDBOX_ROLES; role++)
        put_pid(&chosen[role]);
}

int filter_load(enum sandbox_role role)
{
    const struct filter *filter = &chosen[role];
    const struct sock_fprog program = {.len = (unsigned short)filter->length, .filter = filter->program};
    CHECK(filter->length > 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}

const char *const *sandbox_calls(enum sandbox_role role)
{
    return chosen[role].calls;
}

const char *filter_call_name(int number)
{
    return number >= 0 && (size_t)number < ARRAY_SIZE(call_names) ? call_names[number] : NULL;
}

void filter_name_thread(const char *name)
{
    snprintf(thread_name, sizeof(thread_name), "%s", name);
}

/* ---- A call that is not allowed ---- */

/* Adds `text` to a line, at most up to its last byte; for where printf() is not allowed. */
static void add(char *line, size_t size, const char *text)
{
    size_t length = strlen(line);
    while (*text && length + 1 < size)
        line[length++] = *text++;
    line[length] = '\0';
}

static void add_number(char *line, size_t size, unsigned number)
{
    char digits[12];
    char *at = &digits[sizeof(digits) - 1];
    *at = '\0';
    do
        *--at = (char)('0' + number % 10);
    while (number /= 10);
    add(line, size, at);
}

static void trapped(int number, siginfo_t *info, void *context)
{
    char line[160] = "volt-vmm: the sandbox ends the VM: thread ";
    const char *call = filter_call_name(info->si_syscall);
    if (info->si_code != CODE_SECCOMP && (action_before.sa_flags & SA_SIGINFO)) { /* a process has sent it */
        action_before.sa_sigaction(number, info, context);
        return;
    }
    if (trapped_callback)
        trapped_callback();
    if (info->si_code != CODE_SECCOMP)
        _exit(128 + number);
    add(line, sizeof(line), thread_name[0] ? thread_name : "?");
    add(line, sizeof(line), " called ");
    add(line, sizeof(line), call ? call : "an unknown system call");
    add(line, sizeof(line), " (");
    add_number(line, sizeof(line), (unsigned)info->si_syscall);
    add(line, sizeof(line), "), which its filter does not allow\n");
    (void)!write(STDERR_FILENO, line, strlen(line));
    _exit(trap_status);
}

int filter_catch(const struct sandbox_config *config)
{
    const struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    trap_status = config->trap_status;
    trapped_callback = config->trapped;
    if (sigaction(SIGSYS, &action, &action_before) < 0)
        return fail_errno(-errno, "the sandbox: sigaction");
    return 0;
}
