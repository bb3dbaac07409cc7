/* The queue walker: what drivers do, and everything that they must not do. */
#include "driver_rings.h"

#include <criterion/criterion.h>

#define MEM_BYTES (4 * MIB)
#define RINGS_AT  0x10000u
#define TABLE_AT  0x20000u /* an indirect table */
#define DATA_AT   0x100000u
#define SIZE      8
#define IOV_MAX_  6

static struct guest_mem mem;
static struct rings rings;
static struct virtqueue vq;
static struct iovec iov[SIZE + 8];
static struct virtq_chain chain;

static void start(bool event_idx, bool indirect)
{
    rings_init(&rings, &mem, RINGS_AT, SIZE);
    cr_assert(virtqueue_start(&vq, &mem, SIZE, rings.desc, rings.avail, rings.used, event_idx, indirect) == 0,
              "the queue does not start: %s", fail_text());
}

static void set_up(void)
{
    cr_assert(guest_mem_new(MEM_BYTES, GUEST_PAGES_THP_OFF, &mem) == 0, "no guest memory: %s", fail_text());
    start(false, true);
}

static void tear_down(void)
{
    guest_mem_free(&mem);
}

TestSuite(virtqueue, .timeout = 10, .init = set_up, .fini = tear_down);

static int pop(void)
{
    return virtqueue_pop(&vq, iov, IOV_MAX_, &chain);
}

/* What the driver offered is refused, in message that contain `message`, and nothing was taken. */
static void refused(const char *message)
{
    uint16_t before = vq.in_flight;
    chain.head = 0xdead;
    int r = pop();
    cr_assert(r == -EPROTO, "pop returned %d, not -EPROTO", r);
    cr_assert(strstr(fail_text(), message), "said '%s', not '%s'", fail_text(), message);
    cr_assert(vq.in_flight == before && chain.head == 0xdead, "something was taken all the same");
}

static void *host(uint64_t address)
{
    return guest_mem_at(&mem, gpa(address), 1);
}

static struct vring_desc *indirect_table(void)
{
    return host(TABLE_AT);
}

/* --- what drivers do --- */

Test(virtqueue, empty_has_nothing)
{
    cr_assert(pop() == 0, "a chain came out of an empty queue");
}

Test(virtqueue, chain_is_copied_out_readable_first)
{
    const struct part parts[] = {
        {DATA_AT, 16, false}, {DATA_AT + 0x1000, 512, false}, {DATA_AT + 0x2000, 1, true}};
    uint16_t head = rings_add(&rings, parts, 3);
    cr_assert(pop() == 1, "the chain is not taken: %s", fail_text());
    cr_assert(chain.head == head && chain.readable == 2 && chain.writable == 1, "counts are wrong");
    cr_assert(chain.readable_bytes == 528 && chain.writable_bytes == 1, "lengths are wrong");
    cr_assert(chain.iov[1].iov_base == host(DATA_AT + 0x1000) && chain.iov[1].iov_len == 512, "iov is wrong");
    cr_assert(pop() == 0, "it comes out twice");
}

Test(virtqueue, chain_may_fill_the_whole_queue)
{
    struct part parts[SIZE];
    for (unsigned i = 0; i < SIZE; i++)
        parts[i] = (struct part){DATA_AT, 1, true};
    rings_add(&rings, parts, SIZE);
    cr_assert(virtqueue_pop(&vq, iov, SIZE, &chain) == 1, "not taken: %s", fail_text());
    cr_assert(chain.writable == SIZE, "%u parts", chain.writable);
}

Test(virtqueue, indirect_table_after_a_direct_buffer)
{
    indirect_table()[0] = (struct vring_desc){DATA_AT, 16, VRING_DESC_F_NEXT, 2};
    indirect_table()[2] = (struct vring_desc){DATA_AT + 512, 8, VRING_DESC_F_WRITE, 0};
    rings_set_desc(&rings, 3, DATA_AT, 4, VRING_DESC_F_NEXT, 1);
    rings_set_desc(&rings, 1, TABLE_AT, 3 * 16, VRING_DESC_F_INDIRECT, 0);
    rings_offer(&rings, 3);
    cr_assert(pop() == 1, "not taken: %s", fail_text());
    cr_assert(chain.head == 3 && chain.readable == 2 && chain.writable == 1 && chain.readable_bytes == 20,
              "the table was read wrongly");
}

Test(virtqueue, indices_wrap)
{
    for (unsigned i = 0; i < 70000; i++) {
        uint16_t head = rings_add(&rings, &(struct part){DATA_AT, 1, true}, 1);
        cr_assert(pop() == 1 && chain.head == head, "round %u: %s", i, fail_text());
        virtqueue_push(&vq, chain.head, i);
        cr_assert(rings_used_idx(&rings) == (uint16_t)(i + 1), "round %u: used idx", i);
        struct vring_used_elem elem = rings_used_elem(&rings, (uint16_t)i);
        cr_assert(elem.id == head && elem.len == i, "round %u: used entry", i);
    }
}

Test(virtqueue, a_descriptor_is_read_once)
{
    /* The walker hands out addresses of data, never of descriptors: rewriting them after the pop changes
     * nothing. */
    rings_add(&rings, &(struct part){DATA_AT, 16, false}, 1);
    cr_assert(pop() == 1, "not taken");
    rings_set_desc(&rings, chain.head, UINT64_MAX, UINT32_MAX, 0xffff, 0xffff);
    cr_assert(chain.iov[0].iov_base == host(DATA_AT) && chain.iov[0].iov_len == 16, "the copy changed");
}

/* --- starting --- */

static void start_refused(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
    struct virtqueue other = {.size = 77};
    int r = virtqueue_start(&other, &mem, size, gpa(desc), gpa(avail), gpa(used), false, false);
    cr_assert(r == -EPROTO, "size %u at 0x%lx 0x%lx 0x%lx: %d, not -EPROTO", size, desc, avail, used, r);
    cr_assert(other.size == 77, "the queue was changed all the same");
}

Test(virtqueue, start_refuses_sizes)
{
    start_refused(0, 0x1000, 0x2000, 0x3000);
    start_refused(3, 0x1000, 0x2000, 0x3000);
    start_refused(512, 0x1000, 0x2000, 0x3000);
    start_refused(65535, 0x1000, 0x2000, 0x3000);
}

Test(virtqueue, start_refuses_misaligned_rings)
{
    start_refused(8, 0x1008, 0x2000, 0x3000);
    start_refused(8, 0x1000, 0x2001, 0x3000);
    start_refused(8, 0x1000, 0x2000, 0x3002);
}

Test(virtqueue, start_refuses_rings_outside_memory)
{
    start_refused(8, MEM_BYTES, 0x2000, 0x3000);
    start_refused(8, MEM_BYTES - 16, 0x2000, 0x3000);
    start_refused(8, 0x1000, MEM_BYTES - 4, 0x3000);
    start_refused(8, 0x1000, 0x2000, MEM_BYTES - 8);
    start_refused(8, UINT64_MAX - 15, 0x2000, 0x3000);
    start_refused(8, 0x1000, UINT64_MAX - 1, 0x3000);
    start_refused(8, 0x1000, 0x2000, UINT64_MAX - 3);
}

/* --- hostile rings: each is -EPROTO, and the process lives --- */

Test(virtqueue, hostile_more_available_than_the_queue_holds)
{
    rings_avail(&rings)[1] = SIZE + 1;
    refused("9 chains available in a queue of 8");
}

Test(virtqueue, hostile_available_goes_backwards)
{
    rings_avail(&rings)[1] = UINT16_MAX;
    refused("65535 chains available");
}

Test(virtqueue, hostile_head_out_of_range)
{
    rings_offer(&rings, SIZE);
    refused("descriptor 8 of 8");
}

Test(virtqueue, hostile_next_out_of_range)
{
    rings_set_desc(&rings, 0, DATA_AT, 1, VRING_DESC_F_NEXT, 0xffff);
    rings_offer(&rings, 0);
    refused("descriptor 65535 of 8");
}

Test(virtqueue, hostile_circle)
{
    for (uint16_t i = 0; i < 3; i++)
        rings_set_desc(&rings, i, DATA_AT, 1, VRING_DESC_F_NEXT, (uint16_t)((i + 1) % 3));
    rings_offer(&rings, 0);
    int r = virtqueue_pop(&vq, iov, ARRAY_SIZE(iov), &chain);
    cr_assert(r == -EPROTO && strstr(fail_text(), "circle"), "%d, %s", r, fail_text());
}

Test(virtqueue, hostile_circle_of_one)
{
    rings_set_desc(&rings, 5, DATA_AT, 1, VRING_DESC_F_NEXT, 5);
    rings_offer(&rings, 5);
    int r = virtqueue_pop(&vq, iov, ARRAY_SIZE(iov), &chain);
    cr_assert(r == -EPROTO && strstr(fail_text(), "circle"), "%d, %s", r, fail_text());
}

Test(virtqueue, hostile_more_parts_than_room)
{
    struct part parts[IOV_MAX_ + 1];
    for (unsigned i = 0; i < ARRAY_SIZE(parts); i++)
        parts[i] = (struct part){DATA_AT, 1, true};
    rings_add(&rings, parts, ARRAY_SIZE(parts));
    refused("more than 6 buffers");
}

Test(virtqueue, hostile_readable_after_writable)
{
    const struct part parts[] = {{DATA_AT, 16, true}, {DATA_AT, 16, false}};
    rings_add(&rings, parts, 2);
    refused("readable buffer after a writable one");
}

Test(virtqueue, hostile_zero_length)
{
    rings_add(&rings, &(struct part){DATA_AT, 0, false}, 1);
    refused("no length");
}

Test(virtqueue, hostile_buffer_outside_memory)
{
    rings_add(&rings, &(struct part){MEM_BYTES, 1, false}, 1);
    refused("outside RAM");
}

Test(virtqueue, hostile_buffer_across_the_end_of_memory)
{
    rings_add(&rings, &(struct part){MEM_BYTES - 1, 2, true}, 1);
    refused("outside RAM");
}

Test(virtqueue, hostile_address_wraps)
{
    rings_add(&rings, &(struct part){UINT64_MAX, 2, true}, 1);
    refused("outside RAM");
}

Test(virtqueue, hostile_longest_length)
{
    rings_add(&rings, &(struct part){DATA_AT, UINT32_MAX, true}, 1);
    refused("outside RAM");
}

Test(virtqueue, hostile_4_gib_in_all)
{
    guest_mem_free(&mem);
    cr_assert(guest_mem_new(2 * GIB, GUEST_PAGES_THP_OFF, &mem) == 0, "no memory: %s", fail_text());
    start(false, true);
    const struct part half = {DATA_AT, 0x70000000, true};
    const struct part parts[] = {half, half, half};
    rings_add(&rings, parts, 3);
    refused("4 GiB");
}

Test(virtqueue, hostile_more_in_flight_than_descriptors)
{
    rings_set_desc(&rings, 0, DATA_AT, 1, VRING_DESC_F_WRITE, 0);
    for (unsigned i = 0; i < SIZE; i++) {
        rings_offer(&rings, 0);
        cr_assert(pop() == 1, "chain %u: %s", i, fail_text());
    }
    cr_assert(pop() == 0, "an empty queue is not an error, however full");
    rings_offer(&rings, 0);
    refused("in flight");
    virtqueue_push(&vq, 0, 0);
    cr_assert(pop() == 1, "there is room again: %s", fail_text());
}

/* --- hostile indirect tables --- */

static void offer_indirect(uint64_t table, uint32_t bytes, uint16_t more_flags)
{
    rings_set_desc(&rings, 0, table, bytes, VRING_DESC_F_INDIRECT | more_flags, 1);
    rings_offer(&rings, 0);
}

Test(virtqueue, hostile_indirect_not_negotiated)
{
    start(false, false);
    offer_indirect(TABLE_AT, 16, 0);
    refused("not negotiated");
}

Test(virtqueue, hostile_indirect_in_indirect)
{
    indirect_table()[0] = (struct vring_desc){TABLE_AT, 16, VRING_DESC_F_INDIRECT, 0};
    offer_indirect(TABLE_AT, 16, 0);
    refused("indirect table in an indirect table");
}

Test(virtqueue, hostile_indirect_with_next)
{
    offer_indirect(TABLE_AT, 16, VRING_DESC_F_NEXT);
    refused("with a next one");
}

Test(virtqueue, hostile_indirect_empty)
{
    offer_indirect(TABLE_AT, 0, 0);
    refused("table of 0 bytes");
}

Test(virtqueue, hostile_indirect_odd_length)
{
    offer_indirect(TABLE_AT, 17, 0);
    refused("table of 17 bytes");
}

Test(virtqueue, hostile_indirect_outside_memory)
{
    offer_indirect(MEM_BYTES - 16, 32, 0);
    refused("outside RAM");
}

Test(virtqueue, hostile_indirect_address_wraps)
{
    offer_indirect(UINT64_MAX - 15, 32, 0);
    refused("outside RAM");
}

Test(virtqueue, hostile_indirect_next_out_of_range)
{
    indirect_table()[0] = (struct vring_desc){DATA_AT, 1, VRING_DESC_F_NEXT, 2};
    offer_indirect(TABLE_AT, 32, 0);
    refused("descriptor 2 of 2");
}

Test(virtqueue, hostile_indirect_circle)
{
    indirect_table()[0] = (struct vring_desc){DATA_AT, 1, VRING_DESC_F_NEXT, 1};
    indirect_table()[1] = (struct vring_desc){DATA_AT, 1, VRING_DESC_F_NEXT, 0};
    offer_indirect(TABLE_AT, 32, 0);
    refused("circle");
}

Test(virtqueue, hostile_indirect_huge_circle_ends_at_the_room)
{
    for (uint16_t i = 0; i < 4096; i++)
        indirect_table()[i] = (struct vring_desc){DATA_AT, 1, VRING_DESC_F_NEXT, (uint16_t)((i + 1) % 4096)};
    offer_indirect(TABLE_AT, 4096 * 16, 0);
    refused("more than 6 buffers");
}

/* --- notifications --- */

static void take_and_give(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        rings_add(&rings, &(struct part){DATA_AT, 1, true}, 1);
        cr_assert(pop() == 1, "not taken: %s", fail_text());
        virtqueue_push(&vq, chain.head, 1);
    }
}

Test(virtqueue, interrupt_by_flag)
{
    cr_assert(!virtqueue_wants_interrupt(&vq), "nothing was pushed");
    take_and_give(2);
    cr_assert(virtqueue_wants_interrupt(&vq), "the driver did not refuse");
    cr_assert(!virtqueue_wants_interrupt(&vq), "nothing new was pushed");
    rings_avail(&rings)[0] = VRING_AVAIL_F_NO_INTERRUPT;
    take_and_give(1);
    cr_assert(!virtqueue_wants_interrupt(&vq), "the driver refused");
}

Test(virtqueue, interrupt_by_event_index)
{
    start(true, true);
    rings_avail(&rings)[0] = VRING_AVAIL_F_NO_INTERRUPT; /* means nothing with event indices */
    *rings_used_event(&rings) = 2;                       /* when used idx goes from 2 to 3 */
    take_and_give(2);
    cr_assert(!virtqueue_wants_interrupt(&vq), "too early");
    take_and_give(1);
    cr_assert(virtqueue_wants_interrupt(&vq), "the event was crossed");
    take_and_give(1);
    cr_assert(!virtqueue_wants_interrupt(&vq), "the event was crossed before");
    *rings_used_event(&rings) = 5;
    take_and_give(3);
    cr_assert(virtqueue_wants_interrupt(&vq), "the event was crossed in a batch");
}

Test(virtqueue, kicks_by_flag)
{
    virtqueue_disable_kicks(&vq);
    cr_assert(rings_used(&rings)[0] == VRING_USED_F_NO_NOTIFY, "kicks are still wanted");
    rings_add(&rings, &(struct part){DATA_AT, 1, true}, 1);
    cr_assert(virtqueue_enable_kicks(&vq), "a chain that came meanwhile is missed");
    cr_assert(rings_used(&rings)[0] == 0, "kicks are not wanted again");
    cr_assert(pop() == 1 && !virtqueue_enable_kicks(&vq), "nothing more came");
}

Test(virtqueue, kicks_by_event_index)
{
    start(true, true);
    take_and_give(3);
    cr_assert(!virtqueue_enable_kicks(&vq), "nothing more came");
    cr_assert(rings_avail_event(&rings) == 3, "the next chain is to kick, not %u", rings_avail_event(&rings));
    rings_add(&rings, &(struct part){DATA_AT, 1, true}, 1);
    cr_assert(virtqueue_enable_kicks(&vq), "a chain that came meanwhile is missed");
}

/* --- chains given back to the queue, and used entries shown together --- */

Test(virtqueue, what_is_unpopped_is_popped_again_in_order)
{
    const struct part part = {DATA_AT, 8, true};
    /* Around the wrap of the free-running indices, too. */
    vq.next_avail = vq.next_used = vq.signalled = UINT16_MAX - 1;
    rings.avail_idx = UINT16_MAX - 1;
    for (unsigned round = 0; round < 4; round++) {
        uint16_t heads[5];
        for (unsigned i = 0; i < 5; i++)
            heads[i] = rings_add(&rings, &part, 1);
        for (unsigned i = 0; i < 5; i++)
            cr_assert(pop() == 1 && chain.head == heads[i], "chain %u: %s", i, fail_text());
        virtqueue_unpop(&vq, 3);
        cr_assert(vq.in_flight == 2, "%u in flight", vq.in_flight);
        for (unsigned i = 2; i < 5; i++)
            cr_assert(pop() == 1 && chain.head == heads[i], "chain %u, again: %s", i, fail_text());
        cr_assert(pop() == 0 && vq.in_flight == 5, "one too many");
        for (unsigned i = 0; i < 5; i++)
            virtqueue_push(&vq, heads[i], 8);
    }
    cr_assert(vq.in_flight == 0 && vq.next_avail == vq.next_used, "indices");
}

Test(virtqueue, unpopped_chains_make_enable_kicks_say_so)
{
    const struct part part = {DATA_AT, 8, true};
    rings_add(&rings, &part, 1);
    cr_assert(pop() == 1, "%s", fail_text());
    cr_assert(!virtqueue_enable_kicks(&vq), "nothing is available");
    virtqueue_unpop(&vq, 1);
    cr_assert(virtqueue_enable_kicks(&vq), "the chain is available again");
}

Test(virtqueue, used_entries_show_together)
{
    const struct part part = {DATA_AT, 8, true};
    uint16_t heads[3];
    for (unsigned i = 0; i < 3; i++) {
        heads[i] = rings_add(&rings, &part, 1);
        cr_assert(pop() == 1, "%s", fail_text());
    }
    for (uint16_t i = 0; i < 3; i++)
        virtqueue_fill(&vq, heads[i], i + 1u);
    cr_assert(rings_used_idx(&rings) == 0, "seen before they are published");
    virtqueue_publish(&vq);
    cr_assert(rings_used_idx(&rings) == 3, "%u entries", rings_used_idx(&rings));
    for (uint16_t i = 0; i < 3; i++)
        cr_assert(rings_used_elem(&rings, i).id == heads[i] && rings_used_elem(&rings, i).len == i + 1u,
                  "entry %u", i);
    cr_assert(virtqueue_wants_interrupt(&vq) && !virtqueue_wants_interrupt(&vq), "one interrupt");
}
