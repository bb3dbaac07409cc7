/* volt-vmm: reads what to run, runs it, and says by its exit status how it ended. */
#include "base/log.h"
#include "confine.h"
#include "ctl/firecracker.h"
#include "machine.h"
#include "snapshot_config.h"
#include "snapshot_store.h"
#include "terminal.h"

#include <stdio.h>
#include <string.h>

/* Starts it from the snapshot that `config` names. */
static int restore(struct machine *machine, const struct config *config, enum machine_status *ret_blame)
{
    static struct config merged; /* both to the end of the process */
    static struct snapshot snapshot;
    *ret_blame = MACHINE_BAD_CONFIG;
    int r = snapshot_open_any(config->restore, config->cas_store, &snapshot);
    if (r == 0)
        r = snapshot_make_config(&snapshot, config, &merged);
    if (r == 0)
        r = snapshot_check_config(&merged);
    if (r == 0)
        r = machine_start(machine, &merged, ret_blame);
    if (r < 0)
        snapshot_close(&snapshot);
    return r;
}

static int run_alone(struct loop *loop, const struct config *config)
{
    struct machine *machine = NULL;
    enum machine_status blame = MACHINE_HOST_FAILED;
    int r = machine_new(loop, &(struct machine_observer){0}, &machine);
    if (r == 0)
        r = config->restore ? restore(machine, config, &blame) : machine_start(machine, config, &blame);
    if (r < 0) {
        say("%s", fail_text());
        return blame;
    }
    return machine_finish(machine, loop_run(loop));
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

/* A copy of this process: it has the options of the other VM, a name and a socket of its own, and nothing
 * that both write to. */
static void run_copy(const struct ctl_config *other, const struct ctl_copy *copy)
{
    static struct config config; /* to the end of the process, as all of them */
    static struct ctl_config options;
    static struct ctl_copy made;
    struct loop *loop = NULL;
    int status = MACHINE_HOST_FAILED;
    made = *copy;
    options = (struct ctl_config){.socket_path = "",
                                  .firecracker = other->firecracker,
                                  .id = strdup(copy->id),
                                  .payload_max = other->payload_max,
                                  .metadata_max = other->metadata_max,
                                  .copied = run_copy,
                                  .copy = &made};
    config_init(&config);
    config.name = strdup(copy->id);
    config.sandbox = *copy->sandbox;
    if (!options.id || !config.name)
        (void)fail(-ENOMEM, "no memory for a copy");
    else if (loop_new(MACHINE_LOOP_ENTRIES, &loop) == 0 && confine_ring(&config, loop) == 0)
        status = run_with_ctl(loop, &options, &config);
    if (!loop)
        say("%s", fail_text());
    _exit(status);
}

/* Reads the command line. -1 to go on, or the status to exit with, all said. */
static int read_arguments(int argc, char **argv, struct ctl_options *options, struct config *config)
{
    if (options->config.firecracker) {
        int status = firecracker_args(argc, argv, options);
        config->boot_timer = options->boot_timer;
        return status;
    }
    argp_err_exit_status = MACHINE_BAD_CONFIG;
    int r = config_from_args(argc, argv, &ctl_options_child, options, config);
    if (r == 0)
        r = ctl_options_check(options);
    if (r == 0 && options->named)
        config->name = strdup(options->config.id);
    if (r == 0 && !ctl_options_wanted(options))
        r = config_check(config);
    if (r == 0)
        return -1;
    say("%s", fail_text());
    return MACHINE_BAD_CONFIG;
}

int main(int argc, char **argv)
{
    static struct config config;
    struct ctl_options options;
    struct loop *loop = NULL;
    config_init(&config);
    ctl_options_init(&options, argc > 0 && firecracker_is_name(argv[0]));
    int status = read_arguments(argc, argv, &options, &config);
    if (status >= 0)
        return status;
    status = MACHINE_HOST_FAILED;
    options.config.copied = run_copy;
    if (options.config.firecracker)
        config.sandbox.trap_status = FIRECRACKER_BAD_SYSCALL;
    if (confine_early(&config) < 0 || loop_new(MACHINE_LOOP_ENTRIES, &loop) < 0 ||
        confine_ring(&config, loop) < 0)
        say("%s", fail_text());
    else if (ctl_options_wanted(&options))
        status = run_with_ctl(loop, &options.config, &config);
    else
        status = run_alone(loop, &config);
    terminal_restore();
    fflush(NULL);
    if (options.config.firecracker)
        firecracker_die(status);
    _exit(status);
}
