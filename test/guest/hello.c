/* Says hello and its command line back: entry, console and end. */
#include "lib/guest.h"

void guest_main(const struct start_info *info)
{
    say("hello from a guest, command line '%s'\n", (const char *)(uintptr_t)info->cmdline);
}
