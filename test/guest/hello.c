/* Says hello and its command line back: entry, console and end. With echo=1 it then says in hexadecimal what
 * is typed, until a q; with deaf=1 it stays, and listens to nothing. */
#include "lib/guest.h"

#define COM1           0x3f8
#define COM1_LSR       (COM1 + 5)
#define COM1_MCR       (COM1 + 4)
#define LSR_DATA_READY 0x01
#define MCR_DTR_RTS    0x03

void guest_main(const struct start_info *info)
{
    say("hello from a guest, command line '%s'\n", (const char *)(uintptr_t)info->cmdline);
    while (option_number("deaf", 0)) {
    }
    port_write8(COM1_MCR, MCR_DTR_RTS);
    for (uint8_t typed = 0; option_number("echo", 0) && typed != 'q';) {
        while (!(port_read8(COM1_LSR) & LSR_DATA_READY)) {
        }
        typed = port_read8(COM1);
        say("<%x>", typed);
    }
}
