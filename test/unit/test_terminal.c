/* Ctrl-A commands in what was typed. */
#include "terminal.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(terminal, .timeout = 10);

static void typed(const char *keys, const char *left, enum terminal_command wanted)
{
    uint8_t bytes[32];
    size_t length = strlen(keys);
    enum terminal_command command;
    memcpy(bytes, keys, length);
    size_t kept = terminal_filter(bytes, length, &command);
    cr_assert_eq(kept, strlen(left), "what is left of '%s' has %zu bytes", keys, kept);
    cr_assert_eq(memcmp(bytes, left, kept), 0, "what is left of '%s'", keys);
    cr_assert_eq(command, wanted, "the command in '%s'", keys);
}

Test(terminal, keys_pass_and_commands_do_not)
{
    typed("ls\r", "ls\r", TERMINAL_NOTHING);
    typed("a\1xb", "ab", TERMINAL_END);
    typed("\1h", "", TERMINAL_HELP);
    typed("\1p", "", TERMINAL_POWER_BUTTON);
    typed("\1?", "", TERMINAL_HELP);
    typed("\1a", "\1", TERMINAL_NOTHING);
    typed("\1\1", "\1", TERMINAL_NOTHING);
    typed("", "", TERMINAL_NOTHING);
}

Test(terminal, a_command_may_come_in_two_reads)
{
    typed("ls\1", "ls", TERMINAL_NOTHING);
    typed("x", "", TERMINAL_END);
    typed("x", "x", TERMINAL_NOTHING);
}
