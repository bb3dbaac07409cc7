/* volt-vmm: reads what to run, runs it, and says by its exit status how it ended. */
#include "machine.h"
#include "terminal.h"

#include <stdio.h>

static int run(const struct config *config)
{
    struct loop *loop;
    struct machine *machine;
    enum machine_status blame = MACHINE_HOST_FAILED;
    int r = loop_new(MACHINE_LOOP_ENTRIES, &loop);
    if (r == 0)
        r = machine_new(loop, &(struct machine_observer){0}, &machine);
    if (r == 0)
        r = machine_start(machine, config, &blame);
    if (r < 0) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return blame;
    }
    return machine_finish(machine, loop_run(loop));
}

int main(int argc, char **argv)
{
    static struct config config;
    config_init(&config);
    int r = config_from_args(argc, argv, &config);
    if (r == 0)
        r = config_check(&config);
    if (r < 0) {
        fprintf(stderr, "volt-vmm: %s\n", fail_text());
        return MACHINE_BAD_CONFIG;
    }
    int status = run(&config);
    terminal_restore();
    fflush(NULL);
    _exit(status);
}
