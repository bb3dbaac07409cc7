/*
 * volt-init: PID 1 of a guest, in an initramfs (as /init) and on its root (as /sbin/init).
 *
 * In this order: print the first line; mount the kernel's file systems; load modules; in an initramfs
 * with root=, start the init of the root; set the host name and the network up; run the main command, reap
 * and forward signals; end processes, mounts and the machine. PID 1 never returns: after a failure it says so
 * on the console and reboots.
 */
#include "init.h"
#include "signals.h"

#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* The kernel puts words NAME=VALUE of its command line that it does not know into init's environment, so
 * this can be read before anything is mounted. bench/boot measures the boot up to the first line, and the
 * end of the machine. */
#define BENCH_VARIABLE "VOLT_BENCH"
#define FIRST_LINE     "volt-init: started\n"

/* This program is run as `poweroff`, `halt` or `reboot`: asks PID 1 to do it. */
static int ask_init(const char *program, int number, int argc)
{
    if (argc > 1 || number == 0) {
        fprintf(stderr, "%s: %s\n", program,
                number == 0 ? "only runs as PID 1, or as poweroff, halt or reboot" : "takes no arguments");
        return 1;
    }
    if (kill(1, number) == 0)
        return 0;
    perror(program);
    return 1;
}

/* The kernel opens the console for its init in a /dev that the mounted one hides: programs would not find
 * the name of their terminal. Without a console (serial port off) output is lost. */
static void open_console(void)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);
    if (fd < 0)
        fd = open("/dev/null", O_RDWR);
    if (fd < 0)
        return; /* the descriptors that the kernel opened stay */
    for (int standard = STDIN_FILENO; standard <= STDERR_FILENO; standard++)
        dup2(fd, standard);
    if (fd > STDERR_FILENO)
        close(fd);
}

static void set_host_name(const char *name)
{
    CLEANUP_FREE char *text = NULL;
    if (name == NULL && file_text("/etc/hostname", &text) == 0) {
        char *cursor = text;
        name = file_line(&cursor);
    }
    if (name != NULL && sethostname(name, strlen(name)) != 0)
        say("host name %.80s: %s", name, strerror(errno));
}

/* Programs use 127.0.0.1 without a network too. */
static void raise_loopback(void)
{
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq loopback = {.ifr_name = "lo"};
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &loopback) != 0)
        return; /* a kernel without networking */
    loopback.ifr_flags = (short)(loopback.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &loopback) != 0)
        say("lo: cannot bring it up: %s", strerror(errno));
}

static void set_environment(void)
{
    const char *const defaults[][2] = {
        {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        {"TERM", "linux"},
        {"SHELL", "/bin/sh"},
        {"USER", "root"},
        {"LOGNAME", "root"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(defaults); i++)
        setenv(defaults[i][0], defaults[i][1], 0); /* TERM=... on the kernel's command line wins */
    setenv("HOME", "/root", 1);                    /* the kernel says "/" */
    if (chdir("/root") != 0)
        (void)!chdir("/");
}

/* udhcpc has an answer, or wants the card as it was. */
static int take_lease(const char *event, const char *card)
{
    CLEANUP_FREE char *line = NULL;
    struct boot_line boot = {0};
    open_console();
    if (file_text("/proc/cmdline", &line) < 0 || boot_line_parse(line, &boot) < 0)
        return 1;
    return network_lease(event, card, &boot);
}

int main(int argc, char *argv[])
{
    const char *program = argc > 0 ? argv[0] : "volt-init";
    const char *card = getenv("interface");
    if (getpid() != 1 && strcmp(program, NETWORK_LEASE_PROGRAM) == 0 && argc == 2 && card != NULL)
        return take_lease(argv[1], card);
    if (getpid() != 1)
        return ask_init(program, signal_of_client(program), argc);

    (void)!write(STDERR_FILENO, FIRST_LINE, sizeof(FIRST_LINE) - 1);
    const char *bench = getenv(BENCH_VARIABLE);
    if (bench != NULL && strcmp(bench, "boot") == 0)
        reboot(RB_AUTOBOOT);

    sigset_t blocked; /* PID 1 takes its signals from a descriptor, one at a time */
    sigfillset(&blocked);
    say_crashes(&blocked);
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del becomes SIGINT */
    umask(022);
    mount_first();
    open_console();
    load_modules();

    CLEANUP_FREE char *line = NULL;
    struct boot_line boot = {0};
    int error = file_text("/proc/cmdline", &line);
    if (error < 0)
        say("/proc/cmdline: %s", strerror(-error));
    else if (boot_line_parse(line, &boot) < 0)
        give_up("%s", fail_text());
    if (strcmp(program, "/init") == 0 && boot.root != NULL)
        root_start(&boot);

    mount_rest();
    set_host_name(boot.hostname);
    raise_loopback();
    set_environment();
    network_start(&boot);
    enum ending ending = supervise(&boot);
    say(ending == ENDING_REBOOT ? "rebooting" : "powering off");
    unmount_all();
    end_machine(ending);
}
