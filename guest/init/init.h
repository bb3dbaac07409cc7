/* volt-init: what its files that act use of each other. Single-threaded; PID 1 of the guest. */
#pragma once

#include "base/base.h"
#include "cmdline.h"

#include <signal.h>

/* say.c: one line on the console, "volt-init: " before it, in one write. Losing it is no error. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* say() and then reboot: the last words of an init that cannot go on. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* From now on a crash of volt-init says so and reboots, instead of leaving a kernel panic. Takes the signals
 * of a crash out of `blocked`: the kernel would not wait for them to be unblocked. */
void say_crashes(sigset_t *blocked);

/* file.c: the whole of a text file, terminated, at most FILE_TEXT_MAX bytes; files of /proc too. The caller
 * frees it. -ENOENT and the like without words, -EFBIG with. */
#define FILE_TEXT_MAX (8 * MIB)
int file_text(const char *path, char **ret_text);
/* A line taken off the text at *cursor with blanks and a #comment cut off; NULL at the end. Empty lines are
 * passed over. */
char *file_line(char **cursor);

/* mount.c: /proc, /sys and /dev; and what else programs expect. What cannot be mounted is said. */
void mount_first(void);
void mount_rest(void);
/* Unmounts everything that keeps data, the root read-only instead. What could not be is said. */
void unmount_all(void);

/* modules.c: loads the modules that /etc/volt/modules names and this kernel has, with what they need. */
void load_modules(void);

/* root.c: in an initramfs: waits for the root device, mounts it, frees the initramfs and starts the init on
 * it. Gives up if any of that fails. */
_Noreturn void root_start(const struct boot_line *boot);

/* button.c: the power button of a kernel that reports it as an input device. Opens it, -1 if there is none.
 */
int button_open(void);
/* Whether the events waiting at the button say that it was pressed. */
bool button_pressed(int fd);

/* supervise.c: starts the main command, reaps and forwards until that ends or the end is asked for, and says
 * how it ended. */
enum ending { ENDING_POWER_OFF, ENDING_REBOOT };
enum ending supervise(const struct boot_line *boot);

/* end.c: ends every process. At most END_PATIENCE_SECONDS between asking and killing. */
#define END_PATIENCE_SECONDS 5
void end_processes(pid_t main_pid);
/* Ends the machine, now. Falls back on what is left if the kernel cannot do it as asked. */
_Noreturn void end_machine(enum ending ending);
