/*
 * Writes filters.h: for each role of a thread the BPF program of its seccomp filter, made by libseccomp when
 * the monitor is built, so that a start only hands it to the kernel. Each call has the reason why it is
 * there. A call that has none is trapped, and the process ends with a line that names it (sandbox.c).
 *
 * Arguments are checked where that bounds what a call can do. A filter sees numbers, not what they point to:
 * which paths may be opened is Landlock's.
 */
#include "sec/roles.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define LOOP   (1u << SANDBOX_LOOP)
#define VCPU   (1u << SANDBOX_VCPU)
#define OPENER (1u << SANDBOX_OPENER)
#define FILES  (1u << 8)  /* of a loop that opens files later, or answers on a control socket */
#define NET    (1u << 9)  /* of a loop whose network cards come and go on the host */
#define FORKS  (1u << 10) /* of a loop with a control socket: a copy of the process writes snapshots */
#define MAKES  (1u << 11) /* and of one that may make files for them */
#define UNIX   (1u << 12) /* of a loop that connects its guest with Unix sockets (vsock) */
#define COPIES (1u << 13) /* and of one whose copies go on as VMs of their own */

#define CONDITIONS_MAX 3

struct rule {
    unsigned to;
    int call;
    unsigned count;
    struct scmp_arg_cmp conditions[CONDITIONS_MAX];
};

/* Arguments that the kernel takes as 32 bits: what stands above them is nobody's. */
#define IS(argument, value)                                                                                  \
    {                                                                                                        \
        argument, SCMP_CMP_MASKED_EQ, 0xffffffffu, (uint32_t)(value)                                         \
    }
#define NONE_OF(argument, bits)                                                                              \
    {                                                                                                        \
        argument, SCMP_CMP_MASKED_EQ, bits, 0                                                                \
    }
#define NO_POINTER(argument)                                                                                 \
    {                                                                                                        \
        argument, SCMP_CMP_EQ, 0, 0                                                                          \
    }
#define ANY(to, call)                                                                                        \
    {                                                                                                        \
        to, SCMP_SYS(call), 0,                                                                               \
        {                                                                                                    \
            {                                                                                                \
                0                                                                                            \
            }                                                                                                \
        }                                                                                                    \
    }
#define IF(to, call, ...)                                                                                    \
    {                                                                                                        \
        to, SCMP_SYS(call), sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp),      \
        {                                                                                                    \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    }
#define IOCTL(to, request) IF(to, ioctl, IS(1, request))

static const struct rule rules[] = {
    /* ---- What threads do ---- */

    /* Running the guest. */
    IOCTL(VCPU, KVM_RUN),
    /* Where the guest stood when it did what KVM cannot. */
    IOCTL(VCPU, KVM_GET_REGS),
    /* So that a guest's watchdog does not take a pause for a lock-up. */
    IOCTL(VCPU, KVM_KVMCLOCK_CTRL),
    /* A register whose read acknowledges an interrupt is answered on the vCPU's thread. */
    IOCTL(LOOP | VCPU, KVM_IRQ_LINE),
    /* The one place where the loop waits. */
    ANY(LOOP, io_uring_enter),
    /* liburing's end of the ring. What else could be registered is refused by the ring's own restrictions. */
    IF(LOOP, io_uring_register, IS(1, IORING_UNREGISTER_RING_FDS)),
    /* Locks and conditions of the mailbox, parking. */
    ANY(LOOP | VCPU | OPENER, futex),
    /* Waking the loop: an eventfd takes eight bytes. */
    IF(VCPU, write, IS(2, 8)),
    /* Words for people. */
    IF(VCPU, write, IS(0, STDERR_FILENO)),
    IF(VCPU | OPENER, writev, IS(0, STDERR_FILENO)),
    /* Out of a handler: the kick, and SIGTERM and its like. */
    ANY(LOOP | VCPU | OPENER, rt_sigreturn),
    /* glibc blocks signals while it ends a thread or sends a signal. */
    ANY(LOOP | VCPU | OPENER, rt_sigprocmask),
    /* abort(), and a fatal signal's second time: to the default. Not SIGSYS, whose handler ends us. */
    IF(LOOP | VCPU | OPENER, rt_sigaction, IS(0, SIGABRT)),
    IF(LOOP, rt_sigaction, IS(0, SIGTERM)),
    IF(LOOP, rt_sigaction, IS(0, SIGINT)),
    IF(LOOP, rt_sigaction, IS(0, SIGSEGV)),
    IF(LOOP, rt_sigaction, IS(0, SIGBUS)),
    IF(LOOP, rt_sigaction, IS(0, SIGILL)),
    IF(LOOP, rt_sigaction, IS(0, SIGFPE)),
    IF(LOOP, rt_sigaction, IS(0, SIGQUIT)),
    IF(LOOP, rt_sigaction, IS(0, SIGXCPU)),
    IF(LOOP, rt_sigaction, IS(0, SIGXFSZ)),
    /* Kicking a vCPU out of the guest, abort(), raise(): to threads of this process. */
    IF(LOOP | VCPU | OPENER, tgkill, IS(0, SANDBOX_OWN_PID)),
    /* Who am I, for the above. */
    ANY(LOOP | VCPU | OPENER, getpid),
    ANY(LOOP | VCPU | OPENER, gettid),
    /* The end of a thread, and of the process. */
    ANY(LOOP | VCPU | OPENER, exit),
    ANY(LOOP | VCPU | OPENER, exit_group),
    /* A thread's stack is given back when it ends. */
    ANY(LOOP | VCPU | OPENER, madvise),
    /* How many arenas malloc() has, when a thread first wants one. */
    ANY(LOOP | VCPU | OPENER, sched_getaffinity),
    /* How much memory there is: qsort(), when it first wants some of its own. */
    ANY(LOOP | OPENER, sysinfo),
    /* Starting and ending a thread that was made before its filter. */
    ANY(VCPU | OPENER, set_robust_list),
    ANY(VCPU | OPENER, rseq),

    /* ---- Memory: never executable ---- */

    IF(LOOP | VCPU | OPENER, mmap, NONE_OF(2, PROT_EXEC)),
    IF(LOOP | VCPU | OPENER, mprotect, NONE_OF(2, PROT_EXEC)),
    ANY(LOOP | VCPU | OPENER, munmap),
    ANY(LOOP | VCPU | OPENER, mremap),
    ANY(LOOP | VCPU | OPENER, brk),

    /* ---- Time ---- */

    /* Where the vDSO cannot read the clock, and the CPU time of a thread. */
    ANY(LOOP | VCPU | OPENER, clock_gettime),
    ANY(LOOP | VCPU | OPENER, gettimeofday),
    ANY(LOOP | VCPU | OPENER, time),
    /* A file that another process has locked is tried again after a while. */
    ANY(LOOP | OPENER, clock_nanosleep),
    /* CPU time, for metrics. */
    ANY(LOOP, getrusage),

    /* ---- Files that are open ---- */

    ANY(LOOP | OPENER, read),
    ANY(LOOP | OPENER, write),
    ANY(LOOP, writev),
    /* Objects of the store, the map of a volume. */
    ANY(LOOP | OPENER, pread64),
    ANY(LOOP | OPENER, pwrite64),
    ANY(LOOP | OPENER, lseek),
    ANY(LOOP | OPENER, close),
    /* fstat(), and the kind and length of what was opened. */
    ANY(LOOP | OPENER, fstat),
    ANY(LOOP | OPENER, newfstatat),
    /* A volume's last checkpoint, when the ring is no more. */
    ANY(LOOP, fdatasync),
    ANY(LOOP, fsync),
    /* Non-blocking, close on exec, locks of disks. No owner of a signal (F_SETOWN), no lease. */
    IF(LOOP | OPENER, fcntl, IS(1, F_GETFL)),
    IF(LOOP | OPENER, fcntl, IS(1, F_SETFL)),
    IF(LOOP | OPENER, fcntl, IS(1, F_GETFD)),
    IF(LOOP | OPENER, fcntl, IS(1, F_SETFD)),
    IF(LOOP | OPENER, fcntl, IS(1, F_OFD_SETLK)),
    IF(LOOP | OPENER, fcntl, IS(1, F_DUPFD_CLOEXEC)),
    /* The table of open objects is as long as the limit allows. Only to read it. */
    IF(LOOP | OPENER, prlimit64, IS(0, 0), NO_POINTER(2)),
    /* May this be written without waiting? Logs, metrics. */
    ANY(LOOP | OPENER | VCPU, poll),
    /* The terminal as it was: also for a thread that is ended. */
    IF(LOOP | VCPU | OPENER, ioctl, IS(0, STDIN_FILENO), IS(1, TCSETS)),
    /* stdio asks whether it writes to a terminal. */
    IOCTL(LOOP | OPENER, TCGETS),
    /* Random bytes: the entropy device, names of temporary files. */
    ANY(LOOP | OPENER, getrandom),

    /* ---- libev ---- */

    ANY(LOOP, epoll_wait),
    ANY(LOOP, epoll_pwait),
    ANY(LOOP, epoll_ctl),
    /* Which signals its descriptor tells of. */
    ANY(LOOP, signalfd4),
    /* libev's own wake-up. */
    ANY(LOOP, eventfd2),

    /* ---- The control socket, and files that are opened later ---- */

    IF(LOOP | FILES, accept4, IS(3, SOCK_NONBLOCK | SOCK_CLOEXEC)),
    ANY(LOOP | FILES, shutdown),
    IF(LOOP | FILES, getsockopt, IS(1, SOL_SOCKET), IS(2, SO_PEERCRED)),
    /* Requests, and descriptors that come with them. */
    ANY(LOOP | FILES, recvmsg),
    /* Beneath the directories that Landlock allows, and nothing is made there. */
    IF(LOOP | FILES, openat, NONE_OF(2, O_CREAT | (O_TMPFILE & ~O_DIRECTORY))),
    IF(OPENER, openat, NONE_OF(2, O_CREAT | (O_TMPFILE & ~O_DIRECTORY))),
    /* The threads in /proc, for the report. */
    ANY(LOOP | FILES, getdents64),
    /* An object that was verified gets its stamp. */
    ANY(LOOP | FILES, utimensat),
    /* The socket's file is removed at the end, under its folder's lock. */
    ANY(LOOP | FILES, statx),
    ANY(LOOP | FILES, unlinkat),
    ANY(LOOP | FILES, flock),
    ANY(OPENER, flock),
    ANY(OPENER, statx),
    ANY(OPENER, fadvise64),
    ANY(OPENER, readlink),
    /* The size and the mode of a block device. */
    IOCTL(OPENER, 0x80081272 /* BLKGETSIZE64 */),
    IOCTL(OPENER, 0x125e /* BLKROGET */),
    IOCTL(OPENER, 0x1268 /* BLKSSZGET */),

    /* ---- Snapshots: a copy of the process writes them ---- */

    /* The state that KVM has of the VM: it is only read. */
    IOCTL(LOOP | FORKS, KVM_CHECK_EXTENSION),
    IOCTL(LOOP | FORKS, KVM_GET_MSR_INDEX_LIST),
    IOCTL(LOOP | FORKS, KVM_GET_CPUID2),
    IOCTL(LOOP | FORKS, KVM_GET_TSC_KHZ),
    IOCTL(LOOP | FORKS, KVM_GET_MP_STATE),
    IOCTL(LOOP | FORKS, KVM_GET_REGS),
    IOCTL(LOOP | FORKS, KVM_GET_SREGS),
    IOCTL(LOOP | FORKS, KVM_GET_SREGS2),
    IOCTL(LOOP | FORKS, KVM_GET_XSAVE),
    IOCTL(LOOP | FORKS, KVM_GET_XSAVE2),
    IOCTL(LOOP | FORKS, KVM_GET_XCRS),
    IOCTL(LOOP | FORKS, KVM_GET_DEBUGREGS),
    IOCTL(LOOP | FORKS, KVM_GET_LAPIC),
    IOCTL(LOOP | FORKS, KVM_GET_MSRS),
    IOCTL(LOOP | FORKS, KVM_GET_VCPU_EVENTS),
    IOCTL(LOOP | FORKS, KVM_GET_IRQCHIP),
    IOCTL(LOOP | FORKS, KVM_GET_PIT2),
    IOCTL(LOOP | FORKS, KVM_GET_CLOCK),
    IOCTL(LOOP | FORKS, KVM_HAS_DEVICE_ATTR),
    IOCTL(LOOP | FORKS, KVM_GET_DEVICE_ATTR),
    /* And set again, when the VM is reset. */
    IOCTL(LOOP | FORKS, KVM_SET_TSC_KHZ),
    IOCTL(LOOP | FORKS, KVM_SET_MP_STATE),
    IOCTL(LOOP | FORKS, KVM_SET_REGS),
    IOCTL(LOOP | FORKS, KVM_SET_SREGS),
    IOCTL(LOOP | FORKS, KVM_SET_SREGS2),
    IOCTL(LOOP | FORKS, KVM_SET_XSAVE),
    IOCTL(LOOP | FORKS, KVM_SET_XCRS),
    IOCTL(LOOP | FORKS, KVM_SET_DEBUGREGS),
    IOCTL(LOOP | FORKS, KVM_SET_LAPIC),
    IOCTL(LOOP | FORKS, KVM_SET_MSRS),
    IOCTL(LOOP | FORKS, KVM_SET_VCPU_EVENTS),
    IOCTL(LOOP | FORKS, KVM_SET_IRQCHIP),
    IOCTL(LOOP | FORKS, KVM_SET_PIT2),
    IOCTL(LOOP | FORKS, KVM_SET_CLOCK),
    IOCTL(LOOP | FORKS, KVM_SET_DEVICE_ATTR),
    /* fork(), as glibc does it, and nothing that shares memory. */
    IF(LOOP | FORKS, clone, IS(0, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD)),
    ANY(LOOP | FORKS, set_robust_list),
    ANY(LOOP | FORKS, wait4),
    /* The copy says how it went, and keeps nothing else open. */
    IF(LOOP | FORKS, pipe2, IS(1, O_CLOEXEC)),
    ANY(LOOP | FORKS, close_range),
    /* Files in folders that were named, by Landlock, and their names when they are whole. */
    IF(LOOP | MAKES, openat, NONE_OF(2, O_TMPFILE & ~O_DIRECTORY)),
    ANY(LOOP | MAKES, renameat),

    /* ---- Forks: a copy of the process makes a VM of its own, and its threads, under this filter ---- */

    /* The VM: around memory that it has, on the descriptor of /dev/kvm that it has. */
    IOCTL(LOOP | COPIES, KVM_CREATE_VM),
    IOCTL(LOOP | COPIES, KVM_ENABLE_CAP),
    IOCTL(LOOP | COPIES, KVM_SET_IDENTITY_MAP_ADDR),
    IOCTL(LOOP | COPIES, KVM_SET_TSS_ADDR),
    IOCTL(LOOP | COPIES, KVM_SET_USER_MEMORY_REGION),
    IOCTL(LOOP | COPIES, KVM_CREATE_IRQCHIP),
    IOCTL(LOOP | COPIES, KVM_CREATE_PIT2),
    IOCTL(LOOP | COPIES, KVM_GET_VCPU_MMAP_SIZE),
    IOCTL(LOOP | COPIES, KVM_GET_SUPPORTED_CPUID),
    IOCTL(LOOP | COPIES, KVM_CREATE_VCPU),
    IOCTL(LOOP | COPIES, KVM_SET_CPUID2),
    IOCTL(LOOP | COPIES, KVM_IOEVENTFD),
    IOCTL(LOOP | COPIES, KVM_REGISTER_COALESCED_MMIO),
    /* Its vCPUs' threads, which begin under the loop's filter and then put on their own. */
    IF(LOOP | COPIES, clone,
       IS(0, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)),
    IF(LOOP | COPIES, prctl, IS(0, PR_SET_NAME)),
    IF(LOOP | COPIES, seccomp, IS(0, SECCOMP_SET_MODE_FILTER), IS(1, 0)),
    ANY(LOOP | COPIES, rseq),
    IF(LOOP | COPIES, rt_sigaction, IS(0, 34 /* SIGRTMIN of glibc: the kick */)),
    IOCTL(LOOP | COPIES, KVM_RUN),
    IOCTL(LOOP | COPIES, KVM_KVMCLOCK_CTRL),
    /* Which signals end it, and a reader that goes away is no signal. */
    IF(LOOP | COPIES, rt_sigaction, IS(0, SIGHUP)),
    IF(LOOP | COPIES, rt_sigaction, IS(0, SIGPIPE)),
    /* The kick by a timer, which the kernel lets reach threads of its own process alone: the number of the
     * process that may be sent signals to is the parent's. */
    ANY(LOOP | COPIES, timer_create),
    ANY(LOOP | COPIES, timer_settime),
    /* A loop of its own. */
    ANY(LOOP | COPIES, io_uring_setup),
    IF(LOOP | COPIES, io_uring_register, IS(1, IORING_REGISTER_RESTRICTIONS)),
    IF(LOOP | COPIES, io_uring_register, IS(1, IORING_REGISTER_ENABLE_RINGS)),
    IF(LOOP | COPIES, io_uring_register, IS(1, IORING_REGISTER_RING_FDS)),
    ANY(LOOP | COPIES, epoll_create1),
    /* How old is this kernel? libev asks. */
    ANY(LOOP | COPIES, uname),
    /* Whose copy it is, for its log. */
    ANY(LOOP | COPIES, getppid),
    /* Its standard input, output and error, and where its control socket is. */
    ANY(LOOP | COPIES, dup2),
    ANY(LOOP | COPIES, getsockname),
    ANY(LOOP | COPIES, listen),
    /* What was written to its disks, in files that were handed in. */
    IOCTL(LOOP | COPIES, FICLONE),
    ANY(LOOP | COPIES, ftruncate),
    ANY(LOOP | COPIES, copy_file_range),
    /* Is a copy still there? The descriptor of its process. */
    ANY(LOOP | COPIES, pidfd_open),

    /* Answers, and the log where standard error is a socket. Without an address: to who is connected. */
    IF(LOOP | VCPU | OPENER, sendto, NO_POINTER(4)),
    ANY(LOOP, recvfrom),

    /* ---- vsock: the guest's connections to programs of the host ---- */

    /* One kind of socket. The ring, which may connect, cannot make any. */
    IF(LOOP | UNIX, socket, IS(0, AF_UNIX), IS(1, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)),
    /* At once or not at all: by the ring it waits, on a thread of the kernel's. */
    ANY(LOOP | UNIX, connect),
    /* One side has said all. */
    ANY(LOOP | UNIX, shutdown),
    /* Into the guest's buffers, which a packet's header comes before. */
    ANY(LOOP | UNIX, readv),
    /* The socket's file is removed at the end, under its folder's lock. */
    IF(LOOP | UNIX, openat, NONE_OF(2, O_CREAT | (O_TMPFILE & ~O_DIRECTORY))),
    ANY(LOOP | UNIX, statx),
    ANY(LOOP | UNIX, unlinkat),
    ANY(LOOP | UNIX, flock),

    /* ---- Network cards ---- */

    /* What the guest's driver can do is told to the TAP. */
    IOCTL(LOOP, TUNSETOFFLOAD),
    IOCTL(LOOP, TUNSETQUEUE),
    IOCTL(LOOP, TUNSETTXFILTER),
    /* Which links are there, and which change: the kernel's filter of events. */
    IF(LOOP, setsockopt, IS(1, SOL_SOCKET), IS(2, SO_ATTACH_FILTER)),
    /* A TAP or a bridge that comes back is asked about and joined to. */
    IF(LOOP | NET, socket, IS(0, AF_NETLINK), IS(2, NETLINK_ROUTE)),
    IF(LOOP | NET, socket, IS(0, AF_UNIX)),
    IF(LOOP | NET, setsockopt, IS(1, SOL_SOCKET), IS(2, SO_SNDBUF)),
    IF(LOOP | NET, setsockopt, IS(1, SOL_SOCKET), IS(2, SO_RCVBUF)),
    ANY(LOOP | NET, bind),
    ANY(LOOP | NET, getsockname),
    ANY(LOOP | NET, sendmsg),
    ANY(LOOP | NET, recvmsg),
    IF(LOOP | NET, openat, NONE_OF(2, O_CREAT | (O_TMPFILE & ~O_DIRECTORY))),
    IOCTL(LOOP | NET, TUNSETIFF),
    IOCTL(LOOP | NET, TUNGETIFF),
    IOCTL(LOOP | NET, TUNSETVNETHDRSZ),
    IOCTL(LOOP | NET, SIOCGIFMTU),
};

#define CHOICES (FILES | NET | FORKS | MAKES | UNIX | COPIES)

/* True if the rule is one of a thread with `role`, and the choices that it has. */
static bool applies(const struct rule *rule, unsigned role, unsigned choices)
{
    unsigned needed = rule->to & CHOICES;
    return (rule->to & role) && (needed & ~choices) == 0;
}

static void fail_if(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "filters: %s: %d\n", what, r);
    exit(1);
}

static scmp_filter_ctx make_filter(unsigned role, unsigned choices)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    fail_if(filter ? 0 : -ENOMEM, "seccomp_init");
    fail_if(seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), "the action of others");
    fail_if(seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2), "a binary tree");
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++)
        if (applies(&rules[i], role, choices))
            fail_if(seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call, rules[i].count,
                                           rules[i].conditions),
                    "a rule");
    if (choices & COPIES) /* glibc then starts a thread by clone(), whose flags can be looked at */
        fail_if(seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "no clone3");
    return filter;
}

/* The instructions of the filter, as an initialiser. */
static void print_program(scmp_filter_ctx filter, const char *name)
{
    struct {
        unsigned short code;
        unsigned char jt, jf;
        unsigned k;
    } instruction;
    FILE *file = tmpfile();
    fail_if(file ? 0 : -errno, "a temporary file");
    fail_if(seccomp_export_bpf(filter, fileno(file)), "seccomp_export_bpf");
    rewind(file);
    printf("static struct sock_filter program_%s[] = {\n", name);
    while (fread(&instruction, sizeof(instruction), 1, file) == 1)
        printf("    {0x%x, %u, %u, 0x%x},\n", instruction.code, instruction.jt, instruction.jf,
               instruction.k);
    printf("};\n");
    fclose(file);
}

/* The names of its calls, each once, for the report. */
static void print_calls(const char *name, unsigned role, unsigned choices)
{
    printf("static const char *const calls_%s[] = {", name);
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
        bool told = !applies(&rules[i], role, choices);
        for (size_t k = 0; k < i && !told; k++)
            told = rules[k].call == rules[i].call && applies(&rules[k], role, choices);
        if (told)
            continue;
        char *call = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, rules[i].call);
        printf("\"%s\", ", call);
        free(call);
    }
    printf("NULL};\n");
}

int main(void)
{
    static const struct {
        const char *name;
        unsigned role, choices;
    } filters[] = {
        {"loop", LOOP, 0},
        {"loop_net", LOOP, NET},
        {"loop_files", LOOP, FILES},
        {"loop_files_net", LOOP, FILES | NET},
        {"loop_forks", LOOP, FILES | FORKS},
        {"loop_forks_net", LOOP, FILES | FORKS | NET},
        {"loop_makes", LOOP, FILES | FORKS | MAKES},
        {"loop_makes_net", LOOP, FILES | FORKS | MAKES | NET},
        {"loop_unix", LOOP, UNIX},
        {"loop_unix_net", LOOP, UNIX | NET},
        {"loop_files_unix", LOOP, FILES | UNIX},
        {"loop_files_unix_net", LOOP, FILES | UNIX | NET},
        {"loop_forks_unix", LOOP, FILES | FORKS | UNIX},
        {"loop_forks_unix_net", LOOP, FILES | FORKS | UNIX | NET},
        {"loop_makes_unix", LOOP, FILES | FORKS | MAKES | UNIX},
        {"loop_makes_unix_net", LOOP, FILES | FORKS | MAKES | UNIX | NET},
        {"loop_copies", LOOP, FILES | FORKS | COPIES},
        {"loop_copies_net", LOOP, FILES | FORKS | COPIES | NET},
        {"loop_copies_makes", LOOP, FILES | FORKS | COPIES | MAKES},
        {"loop_copies_makes_net", LOOP, FILES | FORKS | COPIES | MAKES | NET},
        {"loop_copies_unix", LOOP, FILES | FORKS | COPIES | UNIX},
        {"loop_copies_unix_net", LOOP, FILES | FORKS | COPIES | UNIX | NET},
        {"loop_copies_makes_unix", LOOP, FILES | FORKS | COPIES | MAKES | UNIX},
        {"loop_copies_makes_unix_net", LOOP, FILES | FORKS | COPIES | MAKES | UNIX | NET},
        {"vcpu", VCPU, 0},
        {"opener", OPENER, 0},
    };
    printf("/* Made by src/sec/generate/filters.c. */\n");
    for (size_t i = 0; i < sizeof(filters) / sizeof(*filters); i++) {
        scmp_filter_ctx filter = make_filter(filters[i].role, filters[i].choices);
        print_program(filter, filters[i].name);
        print_calls(filters[i].name, filters[i].role, filters[i].choices);
        seccomp_release(filter);
    }
    /* What a trapped call is called. */
    printf("static const char *const call_names[] = {\n");
    for (int number = 0; number < 512; number++) {
        char *call = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
        if (call)
            printf("    [%d] = \"%s\",\n", number, call);
        free(call);
    }
    printf("};\n");
    return 0;
}
