/* A device made quiet and set going again, closed, and what a device does with its chains: with a device that
 * answers by echoing and finishes when the test says so. */
#include "device_rig.h"

#include <criterion/criterion.h>
#include <linux/virtio_ring.h>

#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)
#define EVENT_IDX (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

static struct virtio_device *device;
static struct virtio_ops ops;
static unsigned starts, quiesces, taken, destroyed;
static uint16_t heads[64]; /* taken and not given back */
static unsigned held;
static bool at_once; /* chains are given back in take() */
static bool keep;    /* quiesce() gives chains back to the queue, as a receiver does */
static int refuse;   /* what take() returns, if not 0 */
static bool close_in_take;
static unsigned done_calls;

static void dev_start(struct virtio_device *d)
{
    (void)d;
    starts++;
}

static void count_done(void *context)
{
    (void)context;
    done_calls++;
}

static int dev_take(struct virtio_device *d, unsigned q, struct virtq_chain *chain)
{
    if (refuse)
        return refuse == -EPROTO ? fail(refuse, "a chain that is not liked") : refuse;
    taken++;
    if (close_in_take)
        virtio_close(d, count_done, NULL);
    if (at_once)
        virtio_push(d, q, chain->head, (uint32_t)chain->writable_bytes);
    else
        heads[held++] = chain->head;
    return 0;
}

/* The device finishes one. */
static void finish_one(void)
{
    virtio_push(device, 0, heads[--held], 1);
    if (held == 0 && device->state == VIRTIO_QUIESCING)
        virtio_quiesced(device);
}

static void dev_quiesce(struct virtio_device *d)
{
    quiesces++;
    if (keep) {
        virtqueue_unpop(&d->queues[0].vq, (uint16_t)held);
        held = 0;
    }
    if (held == 0)
        virtio_quiesced(d);
}

static void dev_destroy(struct virtio_device *d)
{
    destroyed++;
    free(d);
    device = NULL;
}

static void set_up(void)
{
    ops = (struct virtio_ops){
        .name = "test",
        .device_id = 42,
        .queue_count = 3,
        .iov_max = 4,
        .batch = 16,
        .start = dev_start,
        .take = dev_take,
        .quiesce = dev_quiesce,
        .destroy = dev_destroy,
    };
    rig_new(4 * MIB);
    device = calloc(1, sizeof(*device));
    cr_assert(virtio_init(device, &ops, rig.loop, "device under test", 0) == 0, "%s", fail_text());
    virtio_set_config(device, "0123456789ab", 12);
    rig_attach(device);
}

static void tear_down(void)
{
    while (held && device)
        finish_one();
    rig_free();
    cr_assert(destroyed == 1, "destroyed %u times", destroyed);
}

TestSuite(quiesce, .timeout = 10, .init = set_up, .fini = tear_down);

static void offer(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        rings_add(&rig.rings, &(struct part){RIG_DATA_AT, 16, true}, 1);
}

static void start_and_take(unsigned count)
{
    rig_start(VERSION_1, 32);
    offer(count);
    rig_kick(0);
    rig_run(1000);
}

static void hold(void)
{
    cr_assert(virtio_quiesce(device, count_done, NULL) == 0, "%s", fail_text());
}

static void used_is(uint16_t count)
{
    cr_assert(rings_used_idx(&rig.rings) == count, "%u chains used, not %u", rings_used_idx(&rig.rings),
              count);
}

/* --- the batch --- */

Test(quiesce, a_batch_is_cut_and_goes_on)
{
    at_once = true;
    rig_start(VERSION_1, 32);
    offer(32);
    virtio_take_chains(device, 0);
    used_is(16);
    rig_run(1000);
    used_is(32);
    cr_assert(rig.interrupts > 0 && !(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET),
              "no interrupt, or a fault");
}

Test(quiesce, a_chain_that_is_not_taken_stays_in_the_queue)
{
    at_once = true;
    refuse = -EAGAIN;
    start_and_take(3);
    cr_assert(taken == 0 && device->queues[0].vq.next_avail == 0 && device->queues[0].vq.in_flight == 0,
              "it was taken");
    refuse = 0;
    virtio_kick_again(device, 0);
    rig_run(1000);
    used_is(3);
}

Test(quiesce, a_chain_that_breaks_the_protocol_fails_the_device)
{
    refuse = -EPROTO;
    start_and_take(3);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "status 0x%x", rig_status());
    cr_assert(device->state == VIRTIO_IDLE && quiesces == 1, "not stopped");
    refuse = 0;
    at_once = true;
    start_and_take(3);
    used_is(3);
}

Test(quiesce, what_is_filled_shows_when_it_is_published)
{
    start_and_take(4);
    for (unsigned i = 0; i < 4; i++)
        virtio_fill(device, 0, heads[i], 16);
    held = 0;
    rig_run(1000);
    used_is(0);
    cr_assert(rig.interrupts == 0, "interrupted for nothing");
    virtio_publish(device, 0);
    rig_run(1000);
    used_is(4);
    for (uint16_t i = 0; i < 4; i++)
        cr_assert(rings_used_elem(&rig.rings, i).id == heads[i], "entry %u", i);
    cr_assert(rig.interrupts == 1, "%u interrupts", rig.interrupts);
}

/* --- quiet, and on again --- */

Test(quiesce, results_of_what_was_in_flight_are_pushed)
{
    start_and_take(3);
    hold();
    cr_assert(done_calls == 0 && quiesces == 1, "quiet with three in flight");
    finish_one();
    finish_one();
    cr_assert(done_calls == 0, "quiet with one in flight");
    unsigned before = rig.interrupts;
    finish_one();
    cr_assert(done_calls == 1 && device->state == VIRTIO_QUIET, "not quiet");
    used_is(3);
    cr_assert(rig.interrupts == before + 1, "not interrupted by the time it is quiet");
}

Test(quiesce, chains_given_back_are_taken_again_in_order)
{
    keep = true;
    start_and_take(5);
    hold();
    cr_assert(done_calls == 1, "not quiet");
    used_is(0);
    cr_assert(device->queues[0].vq.next_avail == 0, "not given back");
    virtio_resume(device);
    rig_run(1000);
    cr_assert(held == 5 && taken == 10, "%u held, %u taken", held, taken);
    for (uint16_t i = 0; i < 5; i++)
        cr_assert(heads[i] == i, "chain %u is %u", i, heads[i]);
}

Test(quiesce, kicks_while_quiet_are_not_lost_and_not_answered)
{
    at_once = true;
    start_and_take(1);
    hold();
    offer(2);
    rig_kick(0);
    rig_run(1000);
    used_is(1);
    cr_assert(device->faults == 0, "a kick of a quiet device is no fault");
    virtio_resume(device);
    rig_run(1000);
    used_is(3);
    cr_assert(starts == 2, "%u starts", starts);
}

Test(quiesce, a_kick_that_comes_without_a_signal_is_found_on_resume)
{
    at_once = true;
    start_and_take(1);
    hold();
    offer(2); /* its kick was eaten by the watch before the hold, say */
    virtio_resume(device);
    rig_run(1000);
    used_is(3);
}

Test(quiesce, only_one_may_hold)
{
    start_and_take(0);
    hold();
    cr_assert(virtio_quiesce(device, count_done, NULL) == -EBUSY, "held twice");
    virtio_resume(device);
    hold();
    cr_assert(done_calls == 2, "%u", done_calls);
}

Test(quiesce, a_device_without_a_driver_is_quiet_at_once)
{
    hold();
    cr_assert(done_calls == 1 && quiesces == 0, "it was asked");
    at_once = true;
    start_and_take(2); /* the driver comes meanwhile */
    cr_assert(device->state == VIRTIO_QUIET && starts == 0 && taken == 0, "it works while it is held");
    virtio_resume(device);
    rig_run(1000);
    used_is(2);
}

Test(quiesce, a_reset_while_quiet_takes_effect)
{
    at_once = true;
    start_and_take(2);
    hold();
    rig_write(VIRTIO_MMIO_STATUS, 0);
    cr_assert(rig_status() == 0 && device->state == VIRTIO_IDLE && !device->queues[0].vq.ready, "not reset");
    virtio_resume(device);
    start_and_take(2);
    used_is(2);
}

Test(quiesce, a_reset_while_it_becomes_quiet_serves_both)
{
    start_and_take(3);
    hold();
    finish_one();
    bool answered = false;
    rig_write_status_later(0, &answered);
    finish_one();
    cr_assert(!answered && done_calls == 0, "too early");
    finish_one();
    cr_assert(answered && done_calls == 1 && device->state == VIRTIO_IDLE, "not both");
    used_is(1); /* what ended before the reset was asked for */
}

Test(quiesce, a_fault_while_it_becomes_quiet_ends_idle)
{
    start_and_take(1);
    hold();
    fail_message("something the driver did");
    virtio_fail_device(device);
    cr_assert(rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET, "no reset asked for");
    finish_one();
    cr_assert(done_calls == 1 && device->state == VIRTIO_IDLE && quiesces == 1, "state %d", device->state);
}

/* --- closing --- */

static void closed_is(unsigned calls)
{
    cr_assert(done_calls == calls && destroyed == calls, "%u told, %u destroyed", done_calls, destroyed);
}

static void run_until_closed(void)
{
    for (unsigned i = 0; i < 100 && !destroyed; i++)
        rig_run(100);
    closed_is(1);
    rig.device = NULL;
}

Test(quiesce, close_waits_for_what_is_in_flight)
{
    start_and_take(2);
    virtio_close(device, count_done, NULL);
    rig_run(2000);
    closed_is(0);
    finish_one();
    finish_one();
    closed_is(0); /* not from inside the device's own completion */
    run_until_closed();
}

Test(quiesce, close_from_inside_a_handler)
{
    close_in_take = at_once = true;
    rig_start(VERSION_1, 32);
    offer(3);
    virtio_take_chains(device, 0);
    closed_is(0);
    cr_assert(taken == 1, "it went on taking");
    run_until_closed();
}

static void close_now(void *context)
{
    (void)context;
    virtio_close(device, count_done, NULL);
}

Test(quiesce, close_from_inside_the_quiet_handler)
{
    start_and_take(2);
    cr_assert(virtio_quiesce(device, close_now, NULL) == 0, "%s", fail_text());
    finish_one();
    finish_one();
    closed_is(0);
    run_until_closed();
}

Test(quiesce, close_of_an_idle_and_of_a_quiet_device)
{
    at_once = true;
    start_and_take(2);
    hold();
    done_calls = 0;
    virtio_close(device, count_done, NULL);
    closed_is(0);
    run_until_closed();
}

/* --- configuration space --- */

Test(quiesce, a_config_word_changes_while_the_guest_runs)
{
    uint32_t generation = rig_read(VIRTIO_MMIO_CONFIG_GENERATION);
    virtio_set_config_word(device, 4, 0x11223344);
    cr_assert(rig.interrupts == 0, "interrupted without a driver");
    start_and_take(0);
    virtio_set_config_word(device, 8, 0x55667788);
    cr_assert(rig_read(0x104) == 0x11223344 && rig_read(0x108) == 0x55667788, "the words");
    cr_assert(rig_read_bytes(0x100, 4) == 0x33323130, "the others stay");
    cr_assert(rig_read(VIRTIO_MMIO_CONFIG_GENERATION) == generation + 4, "the generation");
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_CONFIG && rig.interrupts == 1,
              "no interrupt");
}

/* --- a device whose queues the kernel serves --- */

Test(quiesce, in_kernel_devices_keep_their_kicks_and_their_line)
{
    cr_assert(!rig.exclusive, "others share their line");
    rig_free();
    ops.in_kernel = true;
    destroyed = 0;

    rig_new(4 * MIB);
    device = calloc(1, sizeof(*device));
    cr_assert(virtio_init(device, &ops, rig.loop, "device under test", 0) == 0, "%s", fail_text());
    rig_attach(device);
    cr_assert(rig.exclusive, "the line is shared");
    start_and_take(2);
    cr_assert(taken == 0 && device->faults == 0, "the loop watches kicks that are the kernel's");
    uint64_t count = 0;
    cr_assert(read(virtio_kick_fd(device, 0), &count, sizeof(count)) == sizeof(count) && count == 1,
              "the kick is not left to the kernel");
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_VRING, "no used buffer shows");
    rig_write(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_VRING, "acknowledged for ever");
    rig_write(VIRTIO_MMIO_STATUS, 0);
    cr_assert(rig_read(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_VRING, "gone after a reset");
}
