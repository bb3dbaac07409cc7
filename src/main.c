/* volt-vmm: reads what to run, runs it, and says by its exit status how it ended. */
#include "ctl/options.h"
#include "machine.h"
#include "terminal.h"

#include <stdio.h>
#include <string.h>

/* Firecracker's exit statuses (src/vmm/src/lib.rs, FcExitCode), for who knows the program by that name. */
#define FIRECRACKER_GENERIC_ERROR 1
#define FIRECRACKER_ARG_PARSING   153

static int run_alone(struct loop *loop, const struct config *config)
{
    struct machine *machine = NULL;
    enum machine_status blame = MACHINE_HOST_FAILED;
    int r = machine_new(loop, &(struct machine_observer){0}, &machine);
    if (r == 0)
        r = machine_start(machine, config, &blame);
    if (r < 0) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return blame;
    }
    return machine_finish(machine, loop_run(loop));
}

/* A panic and a crash are the guest's own affair there. */
static int firecracker_status(int status)
{
    if (status == MACHINE_PANICKED)
        return 0;
    return status == MACHINE_CRASHED || status == MACHINE_HOST_FAILED ? FIRECRACKER_GENERIC_ERROR : status;
}

static int run_with_ctl(struct loop *loop, const struct ctl_config *options, const struct config *config)
{
    struct ctl *ctl = NULL;
    enum machine_status blame = MACHINE_HOST_FAILED;
    int r = ctl_new(loop, options, config, &ctl, &blame);
    if (r == 0)
        r = ctl_start(ctl, &blame);
    int status = blame;
    if (r < 0) {
        fprintf(stderr, "%s: %s\n", options->firecracker ? "Error" : "volt-vmm", fail_text());
        ctl_log(ctl, true, "%s", fail_text());
    } else {
        status = machine_finish(ctl_machine(ctl), loop_run(loop));
        ctl_log(ctl, false, "Vmm is stopping.");
    }
    if (options->firecracker) {
        status = firecracker_status(status);
        if (status == 0)
            ctl_log(ctl, false, "Firecracker exiting successfully. exit_code=0");
        else
            ctl_log(ctl, true, "Firecracker exiting with error. exit_code=%d", status);
    }
    ctl_free(ctl, status);
    return status;
}

static bool named_firecracker(const char *name)
{
    const char *slash = strrchr(name, '/');
    return strcmp(slash ? slash + 1 : name, "firecracker") == 0;
}

int main(int argc, char **argv)
{
    static struct config config;
    struct ctl_options options;
    bool firecracker = argc > 0 && named_firecracker(argv[0]);
    config_init(&config);
    ctl_options_init(&options, firecracker);
    argp_err_exit_status = firecracker ? FIRECRACKER_ARG_PARSING : MACHINE_BAD_CONFIG;
    if (firecracker)
        argp_program_version = "Firecracker v" CTL_FIRECRACKER_VERSION "\n";
    int r = config_from_args(argc, argv, &ctl_options_child, &options, &config);
    if (r == 0)
        r = ctl_options_check(&options);
    bool wanted = ctl_options_wanted(&options);
    if (r == 0 && !wanted)
        r = config_check(&config);
    if (r < 0) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return argp_err_exit_status;
    }
    struct loop *loop = NULL;
    int status = MACHINE_HOST_FAILED;
    if (loop_new(MACHINE_LOOP_ENTRIES, &loop) < 0)
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
    else
        status = wanted ? run_with_ctl(loop, &options.config, &config) : run_alone(loop, &config);
    terminal_restore();
    fflush(NULL);
    _exit(status);
}
