/* vCPUs that are paused and resumed under load, on this host's KVM: no access is lost, none comes twice, and
 * the registers of a parked vCPU are those after its last access. */
#include "loop/mailbox.h"
#include "vcpu/internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>

TestSuite(vcpu, .timeout = 60);

#define CPUS_MAX 4u
#define CODE_AT  0x10000u
#define DATA_AT  0x20000u /* a page a vCPU */
#define MMIO_AT  0xd0000000u

/*
 * The guest: counts in its page at esi and says the count by each kind of access. edi is its MMIO address,
 * edx its port. A wrong answer is an undefined instruction, and so, without an IDT, the end.
 */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        "guest_load:\n"
        "1:  incl (%esi)\n"
        "    movl (%esi), %eax\n"
        "guest_out: outl %eax, %dx\n"
        "guest_in: inl %dx, %eax\n"
        "    notl %eax\n"
        "    cmpl (%esi), %eax\n"
        "    jne guest_dies\n"
        "guest_store: movl %eax, (%edi)\n"
        "guest_fetch: movl 4(%edi), %eax\n"
        "    notl %eax\n"
        "    cmpl (%esi), %eax\n"
        "    jne guest_dies\n"
        "    addl $64, %esi\n"
        "    movl $3, %ecx\n"
        "guest_string: rep outsl\n"
        "    subl $76, %esi\n"
        "    jmp 1b\n"
        "guest_dies: ud2\n"
        "guest_spins: incl (%esi)\n"
        "    jmp guest_spins\n"
        /* Time never goes back: the last is in ebx:ebp. */
        "guest_clock: incl (%esi)\n"
        "    rdtsc\n"
        "    cmpl %ebx, %edx\n"
        "    jb guest_dies\n"
        "    ja 2f\n"
        "    cmpl %ebp, %eax\n"
        "    jb guest_dies\n"
        "2:  movl %edx, %ebx\n"
        "    movl %eax, %ebp\n"
        "    jmp guest_clock\n"
        "guest_end:\n"
        ".code64\n"
        ".popsection\n");
extern const uint8_t guest_load[], guest_out[], guest_in[], guest_store[], guest_fetch[], guest_string[],
    guest_dies[], guest_spins[], guest_clock[], guest_end[];

/* The accesses of one round, in order; the string instruction makes three. */
enum step { STEP_OUT, STEP_IN, STEP_STORE, STEP_FETCH, STEP_STRING, STEPS = STEP_STRING + 3 };

struct rig {
    struct loop *loop;
    struct mailbox *mailbox;
    struct guest_mem mem;
    int kvm_fd;
    struct vm vm;
    struct vcpu_callbacks callbacks;
    struct loop_timer timer;
    unsigned step[CPUS_MAX]; /* loop thread, as all below: the access that is due */
    uint32_t count[CPUS_MAX];
    unsigned parked, ended, pauses, wanted;
    uint64_t accesses;
    bool pause_before_answer;
};
static struct rig rig;

enum message_kind { ACCESS, PARKED, ENDED };

static void answer(struct vcpu_access *access)
{
    atomic_store(&access->answered, 1);
    syscall(SYS_futex, &access->answered, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* vCPU thread. Writes are posted, reads wait, as on the machine's bus. */
static void on_access(void *context, struct vcpu_access *access)
{
    (void)context;
    uint64_t index = (access->space == VCPU_PORT ? access->address - 0x500 : access->address - MMIO_AT) / 16;
    struct message message = {.address = index, .value = access->value, .kind = ACCESS};
    if (!access->is_write)
        message.payload = access;
    message.length = (uint32_t)access->space;
    mailbox_post(rig.mailbox, &message);
    while (!access->is_write && !atomic_load(&access->answered))
        syscall(SYS_futex, &access->answered, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static void on_parked(void *context, unsigned index)
{
    (void)context;
    const struct message message = {.address = index, .kind = PARKED};
    mailbox_post(rig.mailbox, &message);
}

static void on_ended(void *context, unsigned index, enum vcpu_end why, const char *text)
{
    (void)context, (void)text;
    const struct message message = {.address = index, .kind = ENDED, .value = why};
    mailbox_post(rig.mailbox, &message);
}

static void deliver_access(const struct message *message)
{
    static const struct {
        enum vcpu_space space;
        bool is_read;
    } expected[STEPS] = {
        [STEP_OUT] = {VCPU_PORT, false},        [STEP_IN] = {VCPU_PORT, true},
        [STEP_STORE] = {VCPU_MMIO, false},      [STEP_FETCH] = {VCPU_MMIO, true},
        [STEP_STRING] = {VCPU_PORT, false},     [STEP_STRING + 1] = {VCPU_PORT, false},
        [STEP_STRING + 2] = {VCPU_PORT, false},
    };
    uint64_t cpu = message->address;
    unsigned step = rig.step[cpu];
    cr_assert(message->length == expected[step].space && !!message->payload == expected[step].is_read,
              "vCPU %lu: step %u of round %u is another access", cpu, step, rig.count[cpu]);
    if (step == STEP_OUT)
        rig.count[cpu]++;
    if (step == STEP_OUT || step == STEP_STORE)
        cr_assert_eq(message->value, rig.count[cpu], "vCPU %lu: %lu is not count %u", cpu, message->value,
                     rig.count[cpu]);
    if (step >= STEP_STRING)
        cr_assert_eq(message->value, step, "vCPU %lu: word %lu of a string", cpu, message->value);
    rig.step[cpu] = (step + 1) % STEPS;
    rig.accesses++;
    if (message->payload) {
        struct vcpu_access *access = message->payload;
        access->value = (uint32_t)~rig.count[cpu];
        if (rig.pause_before_answer && step == STEP_IN) {
            rig.pause_before_answer = false;
            vm_pause(&rig.vm);
        }
        answer(access);
    }
}

/* That the registers are those after the last access that was seen, and before the next. */
static void check_registers(unsigned index)
{
    const uint8_t *const at[] = {guest_out, guest_in, guest_store, guest_fetch, guest_string};
    struct kvm_regs regs;
    unsigned step = rig.step[index];
    cr_assert_eq(kvm_ioctl(rig.vm.cpus[index].fd, KVM_GET_REGS, &regs), 0, "KVM_GET_REGS");
    if (step == STEP_OUT || step > STEP_STRING)
        return;
    uint64_t after = CODE_AT + (uint64_t)(at[step - 1] - guest_load);
    uint64_t next = CODE_AT + (uint64_t)(at[step] - guest_load);
    cr_assert(regs.rip > after && regs.rip <= next, "vCPU %u parked at 0x%llx, step %u is due at 0x%lx",
              index, regs.rip, step, next);
    if (step == STEP_STORE && regs.rip == CODE_AT + (uint64_t)(guest_in + 1 - guest_load))
        cr_assert_eq((uint32_t)regs.rax, (uint32_t)~rig.count[index], "the answer is in eax");
}

static void deliver(void *owner, const struct message *message)
{
    (void)owner;
    switch ((enum message_kind)message->kind) {
    case ACCESS: deliver_access(message); return;
    case ENDED:
        rig.ended++;
        loop_stop(rig.loop, 2);
        return;
    case PARKED: break;
    }
    if (++rig.parked % rig.vm.cpu_count)
        return;
    for (unsigned i = 0; i < rig.vm.cpu_count; i++)
        check_registers(i);
    if (++rig.pauses == rig.wanted) {
        loop_stop(rig.loop, 0);
        return;
    }
    vm_resume(&rig.vm);
    /* Up to 63 us: any place of the round. */
    loop_timer_start(rig.loop, &rig.timer, (rig.pauses * 7919u % 64u) * 1000u);
}

static void on_timer(struct loop_op *op, int result, unsigned flags)
{
    (void)op, (void)result, (void)flags;
    vm_pause(&rig.vm);
}

static void make_vm(unsigned cpus)
{
    const struct vm_reg_pages none = {.stride = GUEST_PAGE};
    cr_assert_eq(guest_mem_new(2 * MIB, GUEST_PAGES_THP_OFF, &rig.mem), 0, "memory: %s", fail_text());
    cr_assert_eq(kvm_open(&rig.kvm_fd), 0, "kvm_open: %s", fail_text());
    cr_assert_eq(vm_new(rig.kvm_fd, &rig.mem, &none, cpus, &rig.vm), 0, "vm_new: %s", fail_text());
    guest_mem_write(&rig.mem, gpa(CODE_AT), guest_load, (uint64_t)(guest_end - guest_load));
}

/* All vCPUs start in the code at once, each with its own data, port and MMIO address. */
static void set_registers(const uint8_t *code)
{
    struct kvm_sregs sregs;
    uint64_t entry = CODE_AT + (uint64_t)(code - guest_load);
    cr_assert_eq(vm_set_pvh_entry(&rig.vm, gpa(entry), gpa(0)), 0, "entry: %s", fail_text());
    cr_assert_eq(kvm_ioctl(rig.vm.cpus[0].fd, KVM_GET_SREGS, &sregs), 0, "KVM_GET_SREGS");
    for (unsigned i = 0; i < rig.vm.cpu_count; i++) {
        static const uint32_t string[] = {STEP_STRING, STEP_STRING + 1, STEP_STRING + 2};
        uint32_t data = DATA_AT + i * (uint32_t)GUEST_PAGE;
        struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};
        struct kvm_regs regs = {
            .rip = entry, .rflags = 2, .rsi = data, .rdi = MMIO_AT + 16 * i, .rdx = 0x500 + 16 * i};
        int fd = rig.vm.cpus[i].fd;
        guest_mem_write(&rig.mem, gpa(data + 64), string, sizeof(string));
        if (i > 0) {
            sregs.apic_base &= ~UINT64_C(0x100); /* of the boot processor */
            cr_assert_eq(kvm_ioctl(fd, KVM_SET_SREGS, &sregs), 0, "KVM_SET_SREGS");
        }
        cr_assert_eq(kvm_ioctl(fd, KVM_SET_REGS, &regs), 0, "KVM_SET_REGS");
        cr_assert_eq(kvm_ioctl(fd, KVM_SET_MP_STATE, &runnable), 0, "KVM_SET_MP_STATE");
    }
}

static void rig_new(unsigned cpus)
{
    if (access("/dev/kvm", R_OK | W_OK) < 0)
        cr_skip_test("/dev/kvm cannot be opened on this machine");
    rig = (struct rig){.callbacks = {.access = on_access, .parked = on_parked, .ended = on_ended}};
    rig.timer.op.done = on_timer;
    cr_assert_eq(loop_new(16, &rig.loop), 0, "loop: %s", fail_text());
    cr_assert_eq(mailbox_new(rig.loop, deliver, NULL, &rig.mailbox), 0, "mailbox: %s", fail_text());
    make_vm(cpus);
}

static void rig_free(void)
{
    vm_free(&rig.vm);
    cleanup_fd(&rig.kvm_fd);
    guest_mem_free(&rig.mem);
    mailbox_free(rig.mailbox);
    loop_free(rig.loop);
}

static void pause_many_times(unsigned cpus, unsigned times, bool by_timer)
{
    rig_new(cpus);
    rig.callbacks.kicks_by_timer = by_timer;
    set_registers(guest_load);
    rig.wanted = times;
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    vm_resume(&rig.vm);
    loop_timer_start(rig.loop, &rig.timer, 1000);
    cr_assert_eq(loop_run(rig.loop), 0, "an answer was lost or a pause came at no safe point: a vCPU ended");
    cr_assert_eq(rig.parked, times * cpus, "each parks once a pause, not %u times", rig.parked);
    for (unsigned i = 0; i < cpus; i++)
        cr_assert_gt(rig.count[i], 0, "vCPU %u has run", i);
    cr_log_info("%u CPUs: %lu accesses", cpus, rig.accesses);
    rig_free();
}

Test(vcpu, paused_and_resumed_nothing_is_lost)
{
    pause_many_times(1, 3000, false);
}

Test(vcpu, four_paused_and_resumed_nothing_is_lost)
{
    pause_many_times(4, 1500, false);
}

Test(vcpu, a_read_that_waits_for_the_loop_is_completed_before_it_parks)
{
    rig_new(1);
    set_registers(guest_load);
    rig.wanted = 1;
    rig.pause_before_answer = true;
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    vm_resume(&rig.vm);
    cr_assert_eq(loop_run(rig.loop), 0, "parked");
    cr_assert_eq(rig.step[0], STEP_STORE, "the read was the last access");
    rig_free();
}

Test(vcpu, one_that_has_ended_parks_and_runs_again_from_new_state)
{
    rig_new(1);
    set_registers(guest_dies);
    rig.wanted = 1;
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    for (unsigned life = 1; life <= 3; life++, rig.wanted++) {
        vm_resume(&rig.vm);
        cr_assert_eq(loop_run(rig.loop), 2, "it ends");
        cr_assert_eq(rig.ended, life, "once a life");
        vm_pause(&rig.vm);
        cr_assert_eq(loop_run(rig.loop), 0, "it parks");
        set_registers(guest_dies);
    }
    rig_free();
}

Test(vcpu, kicks_by_timer_lose_nothing)
{
    pause_many_times(2, 1500, true);
}

/* vCPU 0 never exits by itself; vCPU 1 waits in KVM for its start-up IPI. */
static void kick_often(bool by_timer)
{
    rig_new(2);
    rig.callbacks.kicks_by_timer = by_timer;
    set_registers(guest_spins);
    struct kvm_mp_state waits = {.mp_state = KVM_MP_STATE_UNINITIALIZED};
    cr_assert_eq(kvm_ioctl(rig.vm.cpus[1].fd, KVM_SET_MP_STATE, &waits), 0, "KVM_SET_MP_STATE");
    rig.wanted = 1000;
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    vm_resume(&rig.vm);
    loop_timer_start(rig.loop, &rig.timer, 1000);
    cr_assert_eq(loop_run(rig.loop), 0, "every pause was seen");
    uint32_t count = 0;
    guest_mem_read(&rig.mem, gpa(DATA_AT), &count, sizeof(count));
    cr_assert_gt(count, 0, "the guest has run");
    rig_free();
}

Test(vcpu, guests_that_never_exit_are_kicked)
{
    kick_often(false);
}

Test(vcpu, guests_that_never_exit_are_kicked_by_timer)
{
    kick_often(true);
}

Test(vcpu, a_vm_that_cannot_be_made_leaves_nothing)
{
    const struct vm_reg_pages none = {.stride = GUEST_PAGE};
    rig_new(1);
    struct vm other;
    cr_assert_eq(vm_new(rig.kvm_fd, &rig.mem, &none, 0, &other), -EINVAL, "none at all");
    cr_assert_eq(vm_new(rig.kvm_fd, &rig.mem, &none, VM_CPUS_MAX + 1, &other), -EINVAL, "too many");
    cr_assert_lt(vm_new(-1, &rig.mem, &none, 1, &other), 0, "no /dev/kvm");
    vm_free(&other); /* does nothing */
    rig_free();
}

static unsigned entries(const char *folder)
{
    unsigned count = 0;
    DIR *dir = opendir(folder);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

Test(vcpu, a_vm_that_is_freed_leaves_nothing)
{
    rig_new(4);
    rig_free();
    unsigned files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    for (unsigned i = 0; i < 20; i++) {
        rig_new(4);
        set_registers(guest_load);
        rig.wanted = 1;
        cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
        if (i % 2) { /* otherwise freed before it ran */
            vm_resume(&rig.vm);
            vm_pause(&rig.vm);
            cr_assert_eq(loop_run(rig.loop), 0, "parked");
        }
        rig_free();
    }
    cr_assert_eq(entries("/proc/self/fd"), files, "descriptors are left");
    cr_assert_eq(entries("/proc/self/task"), threads, "threads are left");
}

/* ---- State out and in ---- */

static void run_and_pause(void)
{
    rig.wanted = rig.pauses + 1;
    vm_resume(&rig.vm);
    loop_timer_start(rig.loop, &rig.timer, 500 * 1000 + rig.pauses * 7919u % 64u * 1000u);
    cr_assert_eq(loop_run(rig.loop), 0, "it runs on until it is paused");
}

/* Saves the VM, ends it, makes another and loads that. Memory stays. */
static void replace_vm(void)
{
    struct state_writer writer = {0};
    unsigned cpus = rig.vm.cpu_count;
    cr_assert_eq(vm_save(&rig.vm, &writer), 0, "vm_save: %s", fail_text());
    vm_free(&rig.vm);
    const struct vm_reg_pages none = {.stride = GUEST_PAGE};
    cr_assert_eq(vm_new(rig.kvm_fd, &rig.mem, &none, cpus, &rig.vm), 0, "vm_new: %s", fail_text());
    struct state_reader reader = {writer.bytes, writer.length};
    cr_assert_eq(vm_load(&rig.vm, &reader, VM_CLOCK_GOES_ON), 0, "vm_load: %s", fail_text());
    cr_assert_eq(reader.length, 0, "all was read");
    state_writer_free(&writer);
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
}

static void replace_many_times(unsigned cpus, const uint8_t *code)
{
    rig_new(cpus);
    set_registers(code);
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    uint32_t before = 0, count = 0;
    for (unsigned i = 0; i < 20; i++) {
        run_and_pause();
        guest_mem_read(&rig.mem, gpa(DATA_AT), &count, sizeof(count));
        cr_assert_geq(count, before, "it counts on");
        before = count;
        replace_vm();
    }
    cr_assert_gt(count, 0, "it has run");
    rig_free();
}

Test(vcpu, state_of_one_goes_to_another_vm)
{
    replace_many_times(1, guest_load);
}

Test(vcpu, state_of_four_goes_to_another_vm)
{
    replace_many_times(4, guest_load);
}

Test(vcpu, time_does_not_go_back_in_another_vm)
{
    replace_many_times(2, guest_clock);
}

static void set_msr(int fd, uint32_t index, uint64_t value)
{
    struct {
        struct kvm_msrs header;
        struct kvm_msr_entry entry;
    } msr = {.header.nmsrs = 1, .entry = {.index = index, .data = value}};
    cr_assert_eq(kvm_ioctl(fd, KVM_SET_MSRS, &msr), 1, "KVM_SET_MSRS of 0x%x", index);
}

static void set_odd_state(int fd)
{
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2, .r8 = 8, .r15 = UINT64_MAX, .rsp = 77};
    struct kvm_debugregs debug = {.db = {0x1000, 0x2000}, .dr6 = 0xffff0ff0, .dr7 = 0x400};
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80, .xmm[3] = {1, 2, 3}, .fpr[1] = {4}};
    struct kvm_lapic_state apic;
    cr_assert_eq(kvm_ioctl(fd, KVM_SET_REGS, &regs), 0, "KVM_SET_REGS");
    cr_assert_eq(kvm_ioctl(fd, KVM_SET_DEBUGREGS, &debug), 0, "KVM_SET_DEBUGREGS");
    cr_assert_eq(kvm_ioctl(fd, KVM_SET_FPU, &fpu), 0, "KVM_SET_FPU");
    cr_assert_eq(kvm_ioctl(fd, KVM_GET_LAPIC, &apic), 0, "KVM_GET_LAPIC");
    apic.regs[0x80] = 0x20; /* task priority */
    cr_assert_eq(kvm_ioctl(fd, KVM_SET_LAPIC, &apic), 0, "KVM_SET_LAPIC");
    set_msr(fd, 0x174, 0x10); /* SYSENTER_CS */
    set_msr(fd, 0x277, 0x0007040600070406);
    set_msr(fd, 0xc0000102, 0x1234567890); /* KERNEL_GS_BASE */
}

/* That two saved states are the same but for what time changes. */
static void compare_vcpus(struct state_reader a, struct state_reader b)
{
    struct state_section in_a, in_b;
    unsigned sections = 0;
    for (; state_next(&a, &in_a) > 0; sections++) {
        cr_assert_eq(state_next(&b, &in_b), 1, "a section '%s'", in_a.tag);
        cr_assert_str_eq(in_a.tag, in_b.tag, "the same sections");
        cr_assert_eq(in_a.body.length, in_b.body.length, "'%s' is as long", in_a.tag);
        if (strcmp(in_a.tag, "MSRS") != 0) {
            cr_assert_arr_eq(in_a.body.bytes, in_b.body.bytes, in_a.body.length, "'%s' is the same",
                             in_a.tag);
            continue;
        }
        while (in_a.body.length > 0) {
            struct kvm_msr_entry before = {0}, after = {0};
            state_get(&in_a.body, &before, sizeof(before));
            state_get(&in_b.body, &after, sizeof(after));
            cr_assert(before.index == after.index && (before.data == after.data || before.index == 0x10),
                      "register 0x%x: 0x%llx became 0x%llx", before.index, before.data, after.data);
        }
    }
    cr_assert_eq(sections, 11, "a vCPU has %u sections", sections);
}

/* Of the VM's section, the interrupt controllers. */
static void compare_irqchips(struct state_reader a, struct state_reader b)
{
    struct state_section in_a, in_b;
    cr_assert(state_next(&a, &in_a) == 1 && state_next(&b, &in_b) == 1, "a section");
    cr_assert_str_eq(in_a.tag, "IRQC", "interrupt controllers first");
    cr_assert_eq(in_a.body.length, 3 * sizeof(struct kvm_irqchip), "three of them");
    cr_assert_arr_eq(in_a.body.bytes, in_b.body.bytes, in_a.body.length, "as they were");
    struct kvm_irqchip chips[3] = {0};
    state_get(&in_b.body, chips, sizeof(chips));
    cr_assert_eq(chips[2].chip.ioapic.redirtbl[5].fields.vector, 0x41, "with a line that a guest has set up");
}

Test(vcpu, state_comes_back_whole)
{
    struct state_writer before = {0}, after = {0};
    rig_new(2);
    set_odd_state(rig.vm.cpus[1].fd);
    struct kvm_irqchip ioapic = {.chip_id = KVM_IRQCHIP_IOAPIC};
    cr_assert_eq(kvm_ioctl(rig.vm.fd, KVM_GET_IRQCHIP, &ioapic), 0, "KVM_GET_IRQCHIP");
    ioapic.chip.ioapic.redirtbl[5].fields.vector = 0x41;
    cr_assert_eq(kvm_ioctl(rig.vm.fd, KVM_SET_IRQCHIP, &ioapic), 0, "KVM_SET_IRQCHIP");
    cr_assert_eq(vm_save(&rig.vm, &before), 0, "vm_save: %s", fail_text());
    cr_assert_eq(vm_start(&rig.vm, &rig.callbacks), 0, "vm_start: %s", fail_text());
    replace_vm();
    cr_assert_eq(vm_save(&rig.vm, &after), 0, "vm_save: %s", fail_text());
    struct state_reader a = {before.bytes, before.length}, b = {after.bytes, after.length};
    struct state_section in_a, in_b;
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(state_next(&a, &in_a) == 1 && state_next(&b, &in_b) == 1, "vCPU %u", i);
        compare_vcpus(in_a.body, in_b.body);
    }
    cr_assert(state_next(&a, &in_a) == 1 && state_next(&b, &in_b) == 1, "the VM's own");
    compare_irqchips(in_a.body, in_b.body);
    state_writer_free(&before);
    state_writer_free(&after);
    rig_free();
}

Test(vcpu, bytes_that_are_no_state_are_refused)
{
    struct state_writer writer = {0};
    rig_new(1);
    cr_assert_eq(vm_save(&rig.vm, &writer), 0, "vm_save: %s", fail_text());
    for (size_t cut = 0; cut < writer.length; cut += 97) {
        struct state_reader reader = {writer.bytes, cut};
        cr_assert_eq(vm_load(&rig.vm, &reader, VM_CLOCK_GOES_ON), -EBADMSG, "cut to %zu", cut);
    }
    unsigned random = 12345;
    for (unsigned i = 0; i < 300; i++) { /* any answer will do, but one */
        random = random * 1103515245 + 12345;
        uint8_t *byte = &writer.bytes[random / 8 % writer.length], kept = *byte;
        *byte = (uint8_t)(random >> 24);
        struct state_reader reader = {writer.bytes, writer.length};
        (void)vm_load(&rig.vm, &reader, VM_CLOCK_GOES_ON);
        *byte = kept;
    }
    vm_free(&rig.vm);
    guest_mem_free(&rig.mem);
    cleanup_fd(&rig.kvm_fd);
    make_vm(2);
    struct state_reader reader = {writer.bytes, writer.length};
    cr_assert_eq(vm_load(&rig.vm, &reader, VM_CLOCK_GOES_ON), -EBADMSG, "one vCPU for two");
    state_writer_free(&writer);
    rig_free();
}
