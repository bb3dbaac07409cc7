/* The bus: who answers, on which thread, and in which order. The test's thread is the loop; another plays a
 * vCPU. */
#include "dev/bus.h"

#include <criterion/criterion.h>
#include <pthread.h>

TestSuite(bus, .timeout = 20);

#define BASE 0x1000u

struct fake_device {
    struct loop *loop;
    pthread_t loop_thread;
    uint64_t written[8];
    unsigned writes;
    bool wrong_thread;
    struct bus *bus;
    struct bus_call call;
    struct bus_waiter *waiter;
    uint64_t read_result;
    bool alone; /* there is no vCPU thread: the test's own plays it */
};

/* Offset 0x20 is a register that the vCPU's thread answers, and 0x30 one that it writes; other writes are
 * posted, 0x40 is waited for, and so are other reads. */
static void on_the_loop(void *device, uint64_t offset, unsigned length, uint64_t value,
                        struct bus_waiter *waiter)
{
    struct fake_device *fake = device;
    (void)length;
    fake->wrong_thread |= !pthread_equal(pthread_self(), fake->loop_thread);
    if (offset == 0x40) {
        fake->waiter = waiter;
        loop_stop(fake->loop, 1);
    } else if (waiter) {
        fake->read_result = 0x100 + offset + fake->writes;
        bus_done(waiter);
    } else {
        fake->written[fake->writes++ % ARRAY_SIZE(fake->written)] = value;
    }
}

static uint64_t fake_read(void *device, uint64_t offset, unsigned length)
{
    struct fake_device *fake = device;
    fake->wrong_thread |= pthread_equal(pthread_self(), fake->loop_thread) && !fake->alone;
    if (offset == 0x20)
        return 0xfa57;
    bus_call(fake->bus, &fake->call, offset, length, 0);
    return fake->read_result;
}

static void fake_write(void *device, uint64_t offset, unsigned length, uint64_t value)
{
    struct fake_device *fake = device;
    fake->wrong_thread |= pthread_equal(pthread_self(), fake->loop_thread) && !fake->alone;
    if (offset == 0x40)
        bus_call(fake->bus, &fake->call, offset, length, value);
    else if (offset != 0x30)
        bus_post(fake->bus, &fake->call, offset, length, value);
}

static const struct bus_ops ops = {.read = fake_read, .write = fake_write};

struct scene {
    struct loop *loop;
    struct bus *bus;
    struct fake_device device;
    pthread_t vcpu;
    uint64_t (*script)(struct scene *scene); /* runs on the vCPU's thread */
    uint64_t answer;
};

static uint64_t do_access(struct scene *scene, bool is_write, uint64_t address, uint64_t value)
{
    struct vcpu_access access = {
        .space = VCPU_MMIO, .is_write = is_write, .length = 4, .address = address, .value = value};
    bus_access(scene->bus, &access);
    return access.value;
}

static void set_up(struct scene *scene)
{
    *scene = (struct scene){0};
    cr_assert_eq(loop_new(8, &scene->loop), 0, "loop: %s", fail_text());
    cr_assert_eq(bus_new(scene->loop, NULL, &scene->bus), 0, "bus: %s", fail_text());
    scene->device.loop = scene->loop;
    scene->device.loop_thread = pthread_self();
    scene->device.bus = scene->bus;
    scene->device.call = (struct bus_call){.run = on_the_loop, .device = &scene->device};
    cr_assert_eq(bus_add(scene->bus, VCPU_MMIO, BASE, 0x100, &ops, &scene->device), 0, "device");
}

static void *vcpu_main(void *argument)
{
    struct scene *scene = argument;
    scene->answer = scene->script(scene);
    return NULL;
}

static void start(struct scene *scene, uint64_t (*script)(struct scene *))
{
    scene->script = script;
    cr_assert_eq(pthread_create(&scene->vcpu, NULL, vcpu_main, scene), 0, "thread");
}

static void tear_down(struct scene *scene)
{
    bus_free(scene->bus);
    loop_free(scene->loop);
}

/* A last access, waited for, that ends the loop when all before it are done. */
static void finish(struct scene *scene)
{
    loop_run(scene->loop);
    bus_done(scene->device.waiter);
    pthread_join(scene->vcpu, NULL);
    cr_assert_not(scene->device.wrong_thread, "registers on the vCPU's thread, calls on the loop's");
}

static uint64_t writes_then_read(struct scene *scene)
{
    for (uint64_t i = 0; i < 5; i++)
        do_access(scene, true, BASE, i);
    uint64_t answer = do_access(scene, false, BASE + 4, 0);
    do_access(scene, true, BASE + 0x40, 0);
    return answer;
}

Test(bus, posted_writes_keep_their_order_and_reads_come_after_them)
{
    struct scene scene;
    set_up(&scene);
    start(&scene, writes_then_read);
    finish(&scene);
    cr_assert_eq(scene.device.writes, 5, "all writes arrived");
    for (uint64_t i = 0; i < 5; i++)
        cr_assert_eq(scene.device.written[i], i, "write %llu in its place", (unsigned long long)i);
    cr_assert_eq(scene.answer, 0x100 + 4 + 5, "the read saw all five");
    tear_down(&scene);
}

static uint64_t many_writes(struct scene *scene)
{
    for (uint64_t i = 0; i < 1000; i++) /* more than the mailbox holds */
        do_access(scene, true, BASE, i);
    do_access(scene, true, BASE + 0x40, 0);
    return 0;
}

Test(bus, a_full_mailbox_makes_the_sender_wait_and_loses_nothing)
{
    struct scene scene;
    set_up(&scene);
    start(&scene, many_writes);
    finish(&scene);
    cr_assert_eq(scene.device.writes, 1000, "all writes arrived");
    tear_down(&scene);
}

Test(bus, registers_answered_by_the_vcpu_never_reach_the_loop)
{
    struct scene scene;
    set_up(&scene); /* the loop does not run: an access that needed it would hang */
    scene.device.alone = true;
    cr_assert_eq(do_access(&scene, false, BASE + 0x20, 0), 0xfa57, "a published register");
    do_access(&scene, true, BASE + 0x30, 1);
    cr_assert_eq(scene.device.writes, 0, "the loop was not asked");
    tear_down(&scene);
}

Test(bus, what_nobody_claims_reads_as_ones)
{
    struct scene scene;
    set_up(&scene);
    cr_assert_eq(do_access(&scene, false, BASE - 4, 0), UINT64_MAX, "before the device");
    cr_assert_eq(do_access(&scene, false, BASE + 0x100, 0), UINT64_MAX, "after it");
    cr_assert_eq(do_access(&scene, false, BASE + 0xfe, 0), UINT64_MAX, "across its end");
    cr_assert_eq(do_access(&scene, false, UINT64_MAX - 1, 0), UINT64_MAX, "at the end of all addresses");
    do_access(&scene, true, 0, 1);
    tear_down(&scene);
}

Test(bus, overlapping_devices_are_refused)
{
    struct scene scene;
    set_up(&scene);
    cr_assert_eq(bus_add(scene.bus, VCPU_MMIO, BASE + 0xff, 1, &ops, NULL), -EEXIST, "its last byte");
    cr_assert_eq(bus_add(scene.bus, VCPU_MMIO, BASE - 1, 2, &ops, NULL), -EEXIST, "its first byte");
    cr_assert_eq(bus_add(scene.bus, VCPU_MMIO, BASE, 0x100, &ops, NULL), -EEXIST, "the same place");
    cr_assert_eq(bus_add(scene.bus, VCPU_PORT, BASE, 0x100, &ops, NULL), 0, "the other space is another");
    cr_assert_eq(bus_add(scene.bus, VCPU_MMIO, BASE + 0x100, 1, &ops, NULL), 0, "right after it");
    unsigned added = 0;
    while (bus_add(scene.bus, VCPU_MMIO, 0x10000 + 0x100 * added, 0x100, &ops, NULL) == 0)
        added++;
    cr_assert_gt(added, 60, "room for a slot each");
    cr_assert_eq(bus_add(scene.bus, VCPU_MMIO, 0x900000, 1, &ops, NULL), -ENOSPC, "and then it is full");
    tear_down(&scene);
}
