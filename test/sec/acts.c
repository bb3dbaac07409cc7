/* What an attacker in the monitor tries, and what is to come of it. */
#include "acts.h"

#include "loop/internal.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/keyctl.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define CALL(...) return syscall(__VA_ARGS__) < 0 ? -errno : 0

struct loop *ring_of;
static char buffer[4096];

/* One operation of the ring, with its result. */
static int ring_op(unsigned char opcode)
{
    struct io_uring_sqe *sqe = loop_next_sqe(ring_of);
    struct io_uring_cqe *cqe = NULL;
    io_uring_prep_rw((int)opcode, sqe, AT_FDCWD, "/etc/passwd", 0, 0);
    io_uring_sqe_set_data64(sqe, 0x6576696c);
    do {
        if (cqe)
            io_uring_cqe_seen(&ring_of->ring, cqe);
        if (io_uring_submit_and_wait(&ring_of->ring, 1) < 0 || io_uring_peek_cqe(&ring_of->ring, &cqe) < 0)
            return -EIO;
    } while (cqe->user_data != 0x6576696c);
    return cqe->res < 0 ? cqe->res : 0;
}

#define ACT(name, ...)                                                                                       \
    static long act_##name(void)                                                                             \
    {                                                                                                        \
        CALL(__VA_ARGS__);                                                                                   \
    }
#define RING(name, opcode)                                                                                   \
    static long act_##name(void)                                                                             \
    {                                                                                                        \
        return ring_op(opcode);                                                                              \
    }

static char *const no_words[] = {NULL};
static const struct timespec moment = {0, 1000};

/* Programs and processes. */
ACT(execve, SYS_execve, "/bin/true", no_words, no_words)
ACT(execveat, SYS_execveat, AT_FDCWD, "/bin/true", no_words, no_words, 0)
ACT(fork, SYS_fork)
ACT(vfork, SYS_vfork)
ACT(clone, SYS_clone, SIGCHLD, 0, 0, 0, 0)
ACT(clone_thread, SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, buffer + 4096,
    0, 0, 0)
ACT(clone3, SYS_clone3, buffer, 64)
ACT(ptrace, SYS_ptrace, PTRACE_TRACEME, 0, 0, 0)
ACT(ptrace_parent, SYS_ptrace, PTRACE_SEIZE, getppid(), 0, 0)
ACT(vm_readv, SYS_process_vm_readv, 1, NULL, 0, NULL, 0, 0)
ACT(vm_writev, SYS_process_vm_writev, 1, NULL, 0, NULL, 0, 0)
ACT(kill_init, SYS_kill, 1, 0)
ACT(kill_all, SYS_kill, -1, 0)
ACT(tgkill_init, SYS_tgkill, 1, 1, 0)
ACT(tkill, SYS_tkill, 1, 0)
ACT(sigqueue, SYS_rt_sigqueueinfo, 1, 0, buffer)
ACT(pidfd_open, SYS_pidfd_open, 1, 0)
ACT(pidfd_getfd, SYS_pidfd_getfd, 0, 0, 0)
ACT(pidfd_signal, SYS_pidfd_send_signal, 0, 0, NULL, 0)
ACT(kcmp, SYS_kcmp, 1, 1, 0, 0, 0)
ACT(wait4, SYS_wait4, -1, NULL, 0, NULL)
ACT(setsid, SYS_setsid)
ACT(setpgid, SYS_setpgid, 0, 0)
ACT(process_madvise, SYS_process_madvise, 0, NULL, 0, 0, 0)
/* Sockets. */
ACT(socket_inet, SYS_socket, AF_INET, SOCK_STREAM, 0)
ACT(socket_inet_dgram, SYS_socket, AF_INET, SOCK_DGRAM, 0)
ACT(socket_inet6, SYS_socket, AF_INET6, SOCK_STREAM, 0)
ACT(socket_packet, SYS_socket, AF_PACKET, SOCK_RAW, 0)
ACT(socket_raw, SYS_socket, AF_INET, SOCK_RAW, 1)
ACT(socket_unix, SYS_socket, AF_UNIX, SOCK_STREAM, 0)
ACT(socket_unix_closed, SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
ACT(socket_unix_dgram, SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
ACT(socket_netlink, SYS_socket, AF_NETLINK, SOCK_RAW, 0)
ACT(socket_vsock, SYS_socket, AF_VSOCK, SOCK_STREAM, 0)
ACT(socket_alg, SYS_socket, AF_ALG, SOCK_SEQPACKET, 0)
ACT(socketpair, SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, buffer)
ACT(connect, SYS_connect, 0, buffer, 16)
ACT(bind, SYS_bind, 0, buffer, 16)
ACT(listen, SYS_listen, 0, 1)
ACT(getsockname, SYS_getsockname, 0, buffer, buffer)
ACT(sendto_address, SYS_sendto, 0, buffer, 1, 0, buffer, 16)
ACT(sendmsg, SYS_sendmsg, 0, buffer, 0)
ACT(sendmmsg, SYS_sendmmsg, 0, buffer, 0, 0)
ACT(recvmsg, SYS_recvmsg, 0, buffer, 0)
/* Files. */
ACT(open, SYS_open, "/etc/passwd", O_RDONLY)
ACT(openat, SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY)
ACT(openat_root, SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY)
ACT(openat_kvm, SYS_openat, AT_FDCWD, "/dev/kvm", O_RDWR)
ACT(openat_mem, SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR)
ACT(openat_climbs, SYS_openat, AT_FDCWD, "allowed/../vm.sock", O_RDONLY)
ACT(openat_create, SYS_openat, AT_FDCWD, "evil-file", O_WRONLY | O_CREAT, 0600)
ACT(openat_unnamed, SYS_openat, AT_FDCWD, ".", O_WRONLY | O_TMPFILE, 0600)
ACT(openat_allowed, SYS_openat, AT_FDCWD, "allowed/file", O_RDONLY)
ACT(openat_allowed_write, SYS_openat, AT_FDCWD, "allowed/file", O_RDWR)
ACT(openat_read_only, SYS_openat, AT_FDCWD, "read-only/file", O_RDONLY)
ACT(openat_read_only_write, SYS_openat, AT_FDCWD, "read-only/file", O_RDWR)
ACT(openat2, SYS_openat2, AT_FDCWD, "/etc/passwd", buffer, 24)
ACT(creat, SYS_creat, "evil-file", 0600)
ACT(handle_at, SYS_name_to_handle_at, AT_FDCWD, "/", buffer, buffer, 0)
ACT(open_by_handle, SYS_open_by_handle_at, 0, buffer, 0)
ACT(unlinkat, SYS_unlinkat, AT_FDCWD, "/etc/passwd", 0)
ACT(unlink, SYS_unlink, "/etc/passwd")
ACT(rename, SYS_rename, "/etc/passwd", "/etc/passwd")
ACT(renameat2, SYS_renameat2, AT_FDCWD, "/etc/passwd", AT_FDCWD, "/etc/passwd", 0)
ACT(link, SYS_link, "/etc/passwd", "evil-file")
ACT(symlink, SYS_symlink, "/etc/passwd", "evil-file")
ACT(mkdir, SYS_mkdir, "evil-folder", 0700)
ACT(mknod, SYS_mknod, "evil-node", S_IFCHR | 0600, 0x103)
ACT(chmod, SYS_chmod, "/etc/passwd", 0644)
ACT(fchmod, SYS_fchmod, 0, 0644)
ACT(chown, SYS_chown, "/etc/passwd", 0, 0)
ACT(truncate, SYS_truncate, "/etc/passwd", 1)
ACT(setxattr, SYS_setxattr, "/etc/passwd", "user.evil", "", 0, 0)
ACT(inotify, SYS_inotify_init1, 0)
ACT(fanotify, SYS_fanotify_init, 0, 0)
ACT(chdir, SYS_chdir, "/")
ACT(getcwd, SYS_getcwd, buffer, sizeof(buffer))
ACT(memfd, SYS_memfd_create, "evil", 0)
ACT(fcntl_owner, SYS_fcntl, 0, F_SETOWN, 1)
ACT(fcntl_lease, SYS_fcntl, 0, F_SETLEASE, F_RDLCK)
ACT(dup2, SYS_dup2, 0, 100)
ACT(dup3, SYS_dup3, 0, 100, O_CLOEXEC)
ACT(ftruncate, SYS_ftruncate, -1, 0)
ACT(ficlone, SYS_ioctl, 0, FICLONE, 0)
ACT(splice, SYS_splice, 0, NULL, 1, NULL, 1, 0)
ACT(sendfile, SYS_sendfile, 1, 0, NULL, 1)
ACT(copy_file_range, SYS_copy_file_range, 0, NULL, 1, NULL, 1, 0)
ACT(pipe2, SYS_pipe2, buffer, 0)
/* What is done for a snapshot. */
ACT(pipe2_closed, SYS_pipe2, buffer, O_CLOEXEC)
ACT(close_range, SYS_close_range, 100, 101, 0)
ACT(create_allowed, SYS_openat, AT_FDCWD, "allowed/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600)
ACT(create_read_only, SYS_openat, AT_FDCWD, "read-only/new", O_RDWR | O_CREAT | O_CLOEXEC, 0600)
ACT(rename_allowed, SYS_renameat, AT_FDCWD, "allowed/file", AT_FDCWD, "allowed/file")
ACT(rename_other, SYS_renameat, AT_FDCWD, "/etc/passwd", AT_FDCWD, "/etc/passwd")
static long act_fork_to_save(void)
{
    long child = syscall(SYS_clone, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, 0, 0, buffer, 0);
    if (child == 0)
        _exit(0);
    return child < 0 ? -errno : 0;
}
/* The system. */
ACT(mount, SYS_mount, "none", "/mnt", "tmpfs", 0, NULL)
ACT(umount, SYS_umount2, "/", 2 /* MNT_DETACH */)
ACT(move_mount, SYS_move_mount, 0, "", 0, "", 0)
ACT(fsopen, SYS_fsopen, "tmpfs", 0)
ACT(pivot_root, SYS_pivot_root, "/", "/")
ACT(chroot, SYS_chroot, "/")
ACT(unshare_user, SYS_unshare, CLONE_NEWUSER)
ACT(unshare_mounts, SYS_unshare, CLONE_NEWNS)
ACT(setns, SYS_setns, 0, 0)
ACT(keyctl, SYS_keyctl, KEYCTL_GET_KEYRING_ID, 0, 0)
ACT(add_key, SYS_add_key, "user", "evil", "x", 1, 0)
ACT(request_key, SYS_request_key, "user", "evil", NULL, 0)
ACT(bpf, SYS_bpf, 0, buffer, 64)
ACT(userfaultfd, SYS_userfaultfd, 0)
ACT(perf, SYS_perf_event_open, buffer, 0, -1, -1, 0)
ACT(init_module, SYS_init_module, buffer, 1, "")
ACT(finit_module, SYS_finit_module, 0, "", 0)
ACT(delete_module, SYS_delete_module, "evil", 0)
ACT(kexec, SYS_kexec_load, 0, 0, NULL, 0)
ACT(reboot, SYS_reboot, 0, 0, 0, NULL)
ACT(swapon, SYS_swapon, "/dev/null", 0)
ACT(sethostname, SYS_sethostname, "evil", 4)
ACT(settimeofday, SYS_settimeofday, NULL, NULL)
ACT(clock_settime, SYS_clock_settime, CLOCK_REALTIME, &moment)
ACT(adjtimex, SYS_adjtimex, NULL)
ACT(syslog, SYS_syslog, 10, NULL, 0)
ACT(acct, SYS_acct, NULL)
ACT(iopl, SYS_iopl, 3)
ACT(ioperm, SYS_ioperm, 0x80, 1, 1)
ACT(modify_ldt, SYS_modify_ldt, 0, buffer, 8)
ACT(arch_prctl, SYS_arch_prctl, 0x1003, buffer)
ACT(personality, SYS_personality, 0xffffffff)
ACT(setuid, SYS_setuid, 0)
ACT(setgroups, SYS_setgroups, 0, NULL)
ACT(capset, SYS_capset, buffer, buffer)
ACT(prctl_dumpable, SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)
ACT(prctl_seccomp, SYS_prctl, PR_SET_SECCOMP, 1, 0, 0, 0)
ACT(seccomp, SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL)
ACT(seccomp_filter, SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL)
ACT(seccomp_listener, SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, NULL)
ACT(prctl_name, SYS_prctl, PR_SET_NAME, "evil", 0, 0, 0)
ACT(uname, SYS_uname, buffer)
ACT(epoll_new, SYS_epoll_create1, 0)
ACT(sigaction_hup, SYS_rt_sigaction, SIGHUP, NULL, NULL, 8)
ACT(landlock, SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION)
ACT(setrlimit, SYS_setrlimit, RLIMIT_CORE, &moment)
ACT(prlimit_set, SYS_prlimit64, 0, RLIMIT_CORE, &moment, NULL)
ACT(prlimit_other, SYS_prlimit64, 1, RLIMIT_CORE, NULL, buffer)
ACT(affinity, SYS_sched_setaffinity, 0, 8, buffer)
ACT(scheduler, SYS_sched_setscheduler, 0, 0, buffer)
ACT(setpriority, SYS_setpriority, 0, 0, -5)
ACT(sigaction_sys, SYS_rt_sigaction, SIGSYS, NULL, NULL, 8)
ACT(sigaltstack, SYS_sigaltstack, NULL, NULL)
ACT(timer_create, SYS_timer_create, 0, NULL, buffer)
/* A signal to a thread of another process. */
static long act_timer_other(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGKILL};
    event._sigev_un._tid = 1;
    CALL(SYS_timer_create, CLOCK_MONOTONIC, &event, buffer);
}
ACT(timer_set, SYS_timer_settime, 4711, 0, buffer, NULL)
ACT(mbind, SYS_mbind, buffer, 0, 0, NULL, 0, 0)
ACT(mlockall, SYS_mlockall, 1)
ACT(shmget, SYS_shmget, 0, 4096, 0)
ACT(msgget, SYS_msgget, 0, 0)
ACT(mq_open, SYS_mq_open, "evil", 0, 0, NULL)
/* The numbers of x32 are other calls; the kernel hands them to the filter all the same. */
ACT(x32, SYS_getpid | 0x40000000)
/* Memory. */
ACT(mmap_exec, SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
ACT(mprotect_exec, SYS_mprotect, (uintptr_t)buffer & ~4095ul, 4096, PROT_READ | PROT_EXEC)
ACT(pkey_mprotect, SYS_pkey_mprotect, (uintptr_t)buffer & ~4095ul, 4096, PROT_READ, -1)
ACT(remap_file_pages, SYS_remap_file_pages, buffer, 0, 0, 0, 0)
/* Devices. */
ACT(tiocsti, SYS_ioctl, 0, TIOCSTI, "x")
ACT(tioclinux, SYS_ioctl, 0, 0x541c, "x")
ACT(kvm_create_vm, SYS_ioctl, 0, KVM_CREATE_VM, 0)
ACT(kvm_create_vcpu, SYS_ioctl, 0, KVM_CREATE_VCPU, 9)
ACT(kvm_memory, SYS_ioctl, 0, KVM_SET_USER_MEMORY_REGION, buffer)
ACT(kvm_ioeventfd, SYS_ioctl, 0, KVM_IOEVENTFD, buffer)
ACT(kvm_irqfd, SYS_ioctl, 0, KVM_IRQFD, buffer)
ACT(kvm_device, SYS_ioctl, 0, KVM_CREATE_DEVICE, buffer)
ACT(kvm_run, SYS_ioctl, 0, KVM_RUN, 0)
ACT(tun, SYS_ioctl, 0, TUNSETIFF, buffer)
ACT(fiemap, SYS_ioctl, 0, 0xc020660b, buffer)
/* The ring. */
ACT(ring_new, SYS_io_uring_setup, 1, buffer)
ACT(ring_register, SYS_io_uring_register, 0, IORING_REGISTER_PERSONALITY, NULL, 0)
RING(ring_openat, IORING_OP_OPENAT)
RING(ring_openat2, IORING_OP_OPENAT2)
RING(ring_unlinkat, IORING_OP_UNLINKAT)
RING(ring_renameat, IORING_OP_RENAMEAT)
RING(ring_linkat, IORING_OP_LINKAT)
RING(ring_symlinkat, IORING_OP_SYMLINKAT)
RING(ring_mkdirat, IORING_OP_MKDIRAT)
RING(ring_statx, IORING_OP_STATX)
RING(ring_socket, IORING_OP_SOCKET)
RING(ring_shutdown, IORING_OP_SHUTDOWN)
RING(ring_splice, IORING_OP_SPLICE)
RING(ring_tee, IORING_OP_TEE)
RING(ring_close, IORING_OP_CLOSE)
RING(ring_epoll, IORING_OP_EPOLL_CTL)
RING(ring_madvise, IORING_OP_MADVISE)
RING(ring_files, IORING_OP_FILES_UPDATE)
RING(ring_buffers, IORING_OP_PROVIDE_BUFFERS)
RING(ring_msg, IORING_OP_MSG_RING)
RING(ring_xattr, IORING_OP_SETXATTR)
RING(ring_command, IORING_OP_URING_CMD)

/* What must go on working. */
ACT(ok_mmap, SYS_mmap, NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
ACT(ok_mprotect, SYS_mprotect, (uintptr_t)buffer & ~4095ul, 4096, PROT_READ | PROT_WRITE)
ACT(ok_brk, SYS_brk, 0)
ACT(ok_madvise, SYS_madvise, 0, 0, MADV_DONTNEED)
ACT(ok_futex, SYS_futex, buffer, 1, 1, NULL, NULL, 0)
ACT(ok_clock, SYS_clock_gettime, CLOCK_MONOTONIC, buffer)
ACT(ok_getpid, SYS_getpid)
ACT(ok_tgkill, SYS_tgkill, syscall(SYS_getpid), syscall(SYS_gettid), 0)
ACT(ok_sigmask, SYS_rt_sigprocmask, 0, NULL, NULL, 8)
ACT(ok_abort, SYS_rt_sigaction, SIGABRT, NULL, NULL, 8)
ACT(ok_sysinfo, SYS_sysinfo, buffer)
ACT(ok_sleep, SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &moment, NULL)
ACT(ok_getrandom, SYS_getrandom, buffer, 8, 0)
ACT(ok_rusage, SYS_getrusage, 0, buffer)
ACT(ok_limit, SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, buffer)
ACT(ok_fstat, SYS_newfstatat, 2, "", buffer, AT_EMPTY_PATH)
ACT(ok_flags, SYS_fcntl, 2, F_GETFL)
ACT(ok_poll, SYS_poll, NULL, 0, 0)
ACT(ok_write, SYS_write, 2, "", 0)
ACT(write_other, SYS_write, 1, "", 0)

#define MAKES(name, files, makes)                                                                            \
    {                                                                                                        \
#name, act_##name, 'T', files, 'T', makes, files, 'T'                                                \
    }
#define ROW(name, loop, files, vcpu)                                                                         \
    {                                                                                                        \
#name, act_##name, loop, files, vcpu, files, files, loop                                             \
    }
#define COPIES(name, vcpu, copies)                                                                           \
    {                                                                                                        \
#name, act_##name, 'T', 'T', vcpu, 'T', copies, 'T'                                                  \
    }
#define CONNECTS(name, files, connects)                                                                      \
    {                                                                                                        \
#name, act_##name, 'T', files, 'T', files, files, connects                                           \
    }
#define NEVER(name) ROW(name, 'T', 'T', 'T')

const struct act acts[] = {
    NEVER(execve),
    NEVER(execveat),
    NEVER(fork),
    NEVER(vfork),
    NEVER(clone),
    NEVER(clone_thread),
    COPIES(clone3, 'T', 'R'),
    NEVER(ptrace),
    NEVER(ptrace_parent),
    NEVER(vm_readv),
    NEVER(vm_writev),
    NEVER(kill_init),
    NEVER(kill_all),
    NEVER(tgkill_init),
    NEVER(tkill),
    NEVER(sigqueue),
    COPIES(pidfd_open, 'T', 'A'),
    NEVER(pidfd_getfd),
    NEVER(pidfd_signal),
    NEVER(kcmp),
    MAKES(wait4, 'R', 'R'),
    MAKES(fork_to_save, 'A', 'A'),
    MAKES(pipe2_closed, 'A', 'A'),
    MAKES(close_range, 'A', 'A'),
    MAKES(create_allowed, 'T', 'A'),
    MAKES(create_read_only, 'T', 'R'),
    MAKES(rename_allowed, 'T', 'A'),
    MAKES(rename_other, 'T', 'R'),
    NEVER(setsid),
    NEVER(setpgid),
    NEVER(process_madvise),
    NEVER(socket_inet),
    NEVER(socket_inet_dgram),
    NEVER(socket_inet6),
    NEVER(socket_packet),
    NEVER(socket_raw),
    NEVER(socket_unix),
    CONNECTS(socket_unix_closed, 'T', 'A'),
    NEVER(socket_unix_dgram),
    NEVER(socket_netlink),
    NEVER(socket_vsock),
    NEVER(socket_alg),
    NEVER(socketpair),
    CONNECTS(connect, 'T', 'R'),
    NEVER(bind),
    COPIES(listen, 'T', 'R'),
    COPIES(getsockname, 'T', 'R'),
    NEVER(sendto_address),
    NEVER(sendmsg),
    NEVER(sendmmsg),
    ROW(recvmsg, 'T', 'R', 'T'),
    NEVER(open),
    CONNECTS(openat, 'R', 'R'),
    CONNECTS(openat_root, 'R', 'R'),
    CONNECTS(openat_kvm, 'R', 'R'),
    CONNECTS(openat_mem, 'R', 'R'),
    CONNECTS(openat_climbs, 'R', 'R'),
    MAKES(openat_create, 'T', 'R'),
    NEVER(openat_unnamed),
    CONNECTS(openat_allowed, 'A', 'R'),
    CONNECTS(openat_allowed_write, 'A', 'R'),
    CONNECTS(openat_read_only, 'A', 'R'),
    CONNECTS(openat_read_only_write, 'R', 'R'),
    NEVER(openat2),
    NEVER(creat),
    NEVER(handle_at),
    NEVER(open_by_handle),
    CONNECTS(unlinkat, 'R', 'R'),
    NEVER(unlink),
    NEVER(rename),
    NEVER(renameat2),
    NEVER(link),
    NEVER(symlink),
    NEVER(mkdir),
    NEVER(mknod),
    NEVER(chmod),
    NEVER(fchmod),
    NEVER(chown),
    NEVER(truncate),
    NEVER(setxattr),
    NEVER(inotify),
    NEVER(fanotify),
    NEVER(chdir),
    NEVER(getcwd),
    NEVER(memfd),
    NEVER(fcntl_owner),
    NEVER(fcntl_lease),
    COPIES(dup2, 'T', 'A'),
    NEVER(dup3),
    NEVER(splice),
    NEVER(sendfile),
    COPIES(copy_file_range, 'T', 'R'),
    COPIES(ftruncate, 'T', 'R'),
    COPIES(ficlone, 'T', 'R'),
    NEVER(pipe2),
    NEVER(mount),
    NEVER(umount),
    NEVER(move_mount),
    NEVER(fsopen),
    NEVER(pivot_root),
    NEVER(chroot),
    NEVER(unshare_user),
    NEVER(unshare_mounts),
    NEVER(setns),
    NEVER(keyctl),
    NEVER(add_key),
    NEVER(request_key),
    NEVER(bpf),
    NEVER(userfaultfd),
    NEVER(perf),
    NEVER(init_module),
    NEVER(finit_module),
    NEVER(delete_module),
    NEVER(kexec),
    NEVER(reboot),
    NEVER(swapon),
    NEVER(sethostname),
    NEVER(settimeofday),
    NEVER(clock_settime),
    NEVER(adjtimex),
    NEVER(syslog),
    NEVER(acct),
    NEVER(iopl),
    NEVER(ioperm),
    NEVER(modify_ldt),
    NEVER(arch_prctl),
    NEVER(personality),
    NEVER(setuid),
    NEVER(setgroups),
    NEVER(capset),
    NEVER(prctl_dumpable),
    NEVER(prctl_seccomp),
    NEVER(seccomp),
    COPIES(seccomp_filter, 'T', 'R'),
    NEVER(seccomp_listener),
    COPIES(prctl_name, 'T', 'A'),
    COPIES(uname, 'T', 'A'),
    COPIES(epoll_new, 'T', 'A'),
    COPIES(sigaction_hup, 'T', 'A'),
    NEVER(landlock),
    NEVER(setrlimit),
    NEVER(prlimit_set),
    NEVER(prlimit_other),
    NEVER(affinity),
    NEVER(scheduler),
    NEVER(setpriority),
    NEVER(sigaction_sys),
    NEVER(sigaltstack),
    COPIES(timer_create, 'T', 'A'),
    COPIES(timer_other, 'T', 'R'),
    COPIES(timer_set, 'T', 'R'),
    NEVER(mbind),
    NEVER(mlockall),
    NEVER(shmget),
    NEVER(msgget),
    NEVER(mq_open),
    NEVER(x32),
    NEVER(mmap_exec),
    NEVER(mprotect_exec),
    NEVER(pkey_mprotect),
    NEVER(remap_file_pages),
    NEVER(tiocsti),
    NEVER(tioclinux),
    COPIES(kvm_create_vm, 'T', 'R'),
    COPIES(kvm_create_vcpu, 'T', 'R'),
    COPIES(kvm_memory, 'T', 'R'),
    COPIES(kvm_ioeventfd, 'T', 'R'),
    NEVER(kvm_irqfd),
    NEVER(kvm_device),
    COPIES(kvm_run, 'R', 'R'),
    NEVER(tun),
    NEVER(fiemap),
    COPIES(ring_new, 'T', 'A'),
    NEVER(ring_register),
    ROW(ring_openat, 'R', 'R', '-'),
    ROW(ring_openat2, 'R', 'R', '-'),
    ROW(ring_unlinkat, 'R', 'R', '-'),
    ROW(ring_renameat, 'R', 'R', '-'),
    ROW(ring_linkat, 'R', 'R', '-'),
    ROW(ring_symlinkat, 'R', 'R', '-'),
    ROW(ring_mkdirat, 'R', 'R', '-'),
    ROW(ring_statx, 'R', 'R', '-'),
    ROW(ring_socket, 'R', 'R', '-'),
    ROW(ring_shutdown, 'R', 'R', '-'),
    ROW(ring_splice, 'R', 'R', '-'),
    ROW(ring_tee, 'R', 'R', '-'),
    ROW(ring_close, 'R', 'R', '-'),
    ROW(ring_epoll, 'R', 'R', '-'),
    ROW(ring_madvise, 'R', 'R', '-'),
    ROW(ring_files, 'R', 'R', '-'),
    ROW(ring_buffers, 'R', 'R', '-'),
    ROW(ring_msg, 'R', 'R', '-'),
    ROW(ring_xattr, 'R', 'R', '-'),
    ROW(ring_command, 'R', 'R', '-'),
    ROW(ok_mmap, 'A', 'A', 'A'),
    ROW(ok_mprotect, 'A', 'A', 'A'),
    ROW(ok_brk, 'A', 'A', 'A'),
    ROW(ok_madvise, 'A', 'A', 'A'),
    ROW(ok_futex, 'A', 'A', 'A'),
    ROW(ok_clock, 'A', 'A', 'A'),
    ROW(ok_getpid, 'A', 'A', 'A'),
    ROW(ok_tgkill, 'A', 'A', 'A'),
    ROW(ok_sigmask, 'A', 'A', 'A'),
    ROW(ok_abort, 'A', 'A', 'A'),
    ROW(ok_sysinfo, 'A', 'A', 'T'),
    ROW(ok_sleep, 'A', 'A', 'T'),
    ROW(ok_getrandom, 'A', 'A', 'T'),
    ROW(ok_rusage, 'A', 'A', 'T'),
    ROW(ok_limit, 'A', 'A', 'T'),
    ROW(ok_fstat, 'A', 'A', 'T'),
    ROW(ok_flags, 'A', 'A', 'T'),
    ROW(ok_poll, 'A', 'A', 'A'),
    ROW(ok_write, 'A', 'A', 'A'),
    ROW(write_other, 'A', 'A', 'T'),
    {0},
};
