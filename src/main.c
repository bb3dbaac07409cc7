/* volt-vmm: reads what to run, runs it, and says by its exit status how it ended. */
#include "machine.h"
#include "terminal.h"

#include <stdio.h>

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
    int status = machine_run(&config);
    terminal_restore();
    fflush(NULL);
    _exit(status);
}
