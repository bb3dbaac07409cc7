/*
 * vCPU threads that post and wait, against a loop that parks them, saves them and lets them run: every access
 * arrives once. The guest is a few instructions on this host's KVM.
 */
#include "base/state.h"
#include "loop/mailbox.h"
#include "vcpu/vcpu.h"

#include <linux/futex.h>
#include <stdio.h>
#include <sys/syscall.h>

#define CPUS   4u
#define PAUSES 300u

/* The start-up IPI of vCPU 0 sends the others to page 0x10: 16-bit code there, 32-bit code at 0x11000. */
#define AP_CODE_AT 0x10000u
#define CODE_AT    0x11000u
#define PORT       0x500u /* of vCPU 0; the others have the one at + 4 */

/*   mov edx, 0x504 ; again: inc eax ; out dx, eax ; in eax, dx ; jmp again */
static const uint8_t ap_code[] = {0x31, 0xc0, 0x66, 0xba, 0x04, 0x05, 0x00, 0x00,
                                  0x66, 0x40, 0x66, 0xef, 0x66, 0xed, 0xeb, 0xf8};
/*   mov esi, 0xfee00300 ; mov dword [esi], INIT, all but self ; then start-up ; and as above */
static const uint8_t code[] = {0xbe, 0x00, 0x03, 0xe0, 0xfe, 0xc7, 0x06, 0x00, 0x45, 0x0c,
                               0x00, 0xc7, 0x06, 0x10, 0x46, 0x0c, 0x00, 0x31, 0xc0, 0xba,
                               0x00, 0x05, 0x00, 0x00, 0x40, 0xef, 0xed, 0xeb, 0xfb};

enum kind { WRITE, READ, PARKED, ENDED };

static struct loop *loop;
static struct mailbox *mailbox;
static struct vm vm;
static struct loop_timer timer;
static unsigned parked, pauses;
static uint64_t writes, reads, reads_of_others;

static void on_access(void *context, struct vcpu_access *access)
{
    (void)context;
    struct message message = {
        .address = access->address, .value = access->value, .kind = access->is_write ? WRITE : READ};
    message.payload = access;
    mailbox_post(mailbox, &message);
    while (!access->is_write && !atomic_load(&access->answered))
        syscall(SYS_futex, &access->answered, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void on_parked(void *context, unsigned index)
{
    (void)context;
    mailbox_post(mailbox, &(struct message){.address = index, .kind = PARKED});
}

static void on_ended(void *context, unsigned index, enum vcpu_end why, const char *text)
{
    (void)context;
    fprintf(stderr, "vCPU %u ended: %d %s\n", index, why, text ? text : "");
    mailbox_post(mailbox, &(struct message){.address = index, .kind = ENDED});
}

static void all_parked(void)
{
    struct state_writer state = {0};
    CHECK(vm_save(&vm, &state) == 0);
    state_writer_free(&state);
    if (++pauses == PAUSES) {
        loop_stop(loop, 0);
        return;
    }
    vm_resume(&vm);
    loop_timer_start(loop, &timer, pauses % 50 * 10000);
}

static void deliver(void *owner, const struct message *message)
{
    (void)owner;
    struct vcpu_access *access = message->payload;
    switch ((enum kind)message->kind) {
    case WRITE: writes++; break;
    case READ:
        reads++;
        reads_of_others += message->address != PORT;
        access->value = reads;
        atomic_store(&access->answered, 1);
        syscall(SYS_futex, &access->answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        break;
    case PARKED:
        if (++parked % CPUS == 0)
            all_parked();
        break;
    case ENDED: loop_stop(loop, 1); break;
    }
}

static void on_timer(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    vm_pause(&vm);
}

int main(void)
{
    const struct vm_reg_pages none = {.stride = GUEST_PAGE};
    const struct vcpu_callbacks callbacks = {.access = on_access, .parked = on_parked, .ended = on_ended};
    struct guest_mem mem;
    CLEANUP_FD int kvm_fd = -1;
    if (access("/dev/kvm", R_OK | W_OK) < 0) {
        printf("/dev/kvm cannot be opened on this machine: nothing was tried\n");
        return 0;
    }
    timer.op.done = on_timer;
    int r = guest_mem_new(2 * MIB, GUEST_PAGES_THP_OFF, &mem);
    if (r == 0)
        r = guest_mem_write(&mem, gpa(AP_CODE_AT), ap_code, sizeof(ap_code));
    if (r == 0)
        r = guest_mem_write(&mem, gpa(CODE_AT), code, sizeof(code));
    if (r == 0)
        r = kvm_open(&kvm_fd);
    if (r == 0)
        r = vm_new(kvm_fd, &mem, &none, CPUS, &vm);
    if (r == 0)
        r = vm_set_pvh_entry(&vm, gpa(CODE_AT), gpa(0));
    if (r == 0)
        r = loop_new(16, &loop);
    if (r == 0)
        r = mailbox_new(loop, deliver, NULL, &mailbox);
    if (r == 0)
        r = vm_start(&vm, &callbacks);
    if (r < 0) {
        fprintf(stderr, "set-up: %s\n", fail_text());
        return 1;
    }
    vm_resume(&vm);
    loop_timer_start(loop, &timer, 1000000);
    r = loop_run(loop);
    printf("%u pauses, %llu writes, %llu reads, %llu of them not by vCPU 0\n", pauses,
           (unsigned long long)writes, (unsigned long long)reads, (unsigned long long)reads_of_others);
    /* Each vCPU writes, then reads. */
    bool lost = reads > writes || writes - reads > CPUS;
    bool all_ran = reads_of_others > 0 && reads > reads_of_others;
    if (r == 0) {
        vm_free(&vm);
        mailbox_free(mailbox);
        loop_free(loop);
        guest_mem_free(&mem);
    }
    return r == 0 && !lost && all_ran ? 0 : 1;
}
