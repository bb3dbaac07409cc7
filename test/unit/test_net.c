/* virtio-net with a backend of the test's own: frames both ways in every shape, and every shape that they
 * must not have. */
#include "net_rig.h"

#include <criterion/criterion.h>

#define BASE     (FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_RING_F_INDIRECT_DESC))
#define MERGE    (BASE | FEATURE(VIRTIO_NET_F_MRG_RXBUF))
#define OFFLOADS (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
#define ALL                                                                                                  \
    (MERGE | FEATURE(VIRTIO_NET_F_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_CSUM) |                                 \
     FEATURE(VIRTIO_NET_F_HOST_TSO4) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) | FEATURE(VIRTIO_NET_F_CTRL_VQ) |    \
     FEATURE(VIRTIO_NET_F_STATUS) | FEATURE(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))

#define FRAME_AT  (RIG_DATA_AT)
#define BUFFER_AT (RIG_DATA_AT + 0x100000)

static struct virtio_device *device;

static void set_up(void)
{
    device = net_rig_new(OFFLOADS, 1);
}

static void tear_down(void)
{
    fake.keep_sends = false;
    while (fake.kept_count) {
        struct net_io *io = fake.kept[--fake.kept_count];
        io->done(io, 0);
    }
    rig_free();
    cr_assert(fake.closed == 1, "the backend was closed %u times", fake.closed);
}

TestSuite(net, .timeout = 20, .init = set_up, .fini = tear_down);

static struct virtio_net_counters counters(void)
{
    struct virtio_net_counters now;
    virtio_net_counters(device, &now);
    return now;
}

static uint16_t used(unsigned q)
{
    return rings_used_idx(&net_rings[q]);
}

static bool broken(void)
{
    return rig_status() & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void kick(unsigned q)
{
    rig_kick(q);
    rig_run(300);
}

/* Sends `length` bytes behind `header`, in one part and a second from `split` on. */
static void send(const struct virtio_net_hdr_v1 *header, uint32_t length, uint32_t split)
{
    memcpy(net_at(FRAME_AT), header, sizeof(*header));
    for (uint32_t i = 0; i < length; i++)
        *net_at(FRAME_AT + NET_HEADER + i) = (uint8_t)(i * 3);
    uint32_t total = NET_HEADER + length;
    const struct part parts[] = {{FRAME_AT, split ? split : total, false},
                                 {FRAME_AT + split, total - split, false}};
    rings_add(&net_rings[NET_TX], parts, split ? 2 : 1);
    kick(NET_TX);
}

/* Offers `count` buffers of `length` bytes to receive into. */
static void offer(unsigned count, uint32_t length)
{
    static uint64_t at;
    if (net_rings[NET_RX].avail_idx == 0)
        at = BUFFER_AT;
    for (unsigned i = 0; i < count; i++) {
        rings_add(&net_rings[NET_RX], &(struct part){at, length, true}, 1);
        at += length;
        if (at > BUFFER_AT + 4 * MIB)
            at = BUFFER_AT;
    }
    kick(NET_RX);
}

/* Whether the frame of `length` bytes lies in the `count` chains from used index `first` on, and is whole. */
static bool arrived(uint16_t first, unsigned count, size_t length)
{
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        struct vring_used_elem elem = rings_used_elem(&net_rings[NET_RX], (uint16_t)(first + i));
        const uint8_t *bytes = net_at(rings_desc(&net_rings[NET_RX], elem.id)->addr);
        if (i == 0 && ((const struct virtio_net_hdr_v1 *)(const void *)bytes)->num_buffers != count)
            return false;
        for (uint32_t k = 0; k < elem.len; k++, at++)
            if (at >= NET_HEADER && bytes[k] != (uint8_t)(at - NET_HEADER))
                return false;
    }
    return at == length + NET_HEADER;
}

/* --- configuration --- */

Test(net, configuration)
{
    struct virtio_net_config config;
    for (unsigned i = 0; i < 12; i++)
        ((uint8_t *)&config)[i] = (uint8_t)rig_read_bytes(VIRTIO_MMIO_CONFIG + i, 1);
    cr_assert(memcmp(config.mac, "\x52\1\2\3\4\5", 6) == 0, "another address");
    cr_assert(config.status == VIRTIO_NET_S_LINK_UP && config.mtu == 1500 && config.max_virtqueue_pairs == 1,
              "status %u, MTU %u", config.status, config.mtu);
    const uint64_t must = ALL & ~FEATURE(VIRTIO_NET_F_MQ);
    cr_assert((rig_offered() & must) == must, "offered: 0x%llx", (unsigned long long)rig_offered());
    cr_assert(!(rig_offered() & FEATURE(56)), "a segmentation that the backend has not");
}

Test(net, the_backend_is_told_what_the_guest_takes)
{
    net_rig_start(BASE, 16);
    cr_assert_eq(fake.offloads, 0, "0x%x", fake.offloads);
    net_rig_start(ALL, 16);
    cr_assert_eq(fake.offloads, TUN_F_CSUM | TUN_F_TSO4, "0x%x", fake.offloads);
}

Test(net, link_down_and_up)
{
    net_rig_start(ALL, 16);
    offer(4, 2048);
    unsigned before = rig.interrupts;
    virtio_net_set_link(device, false);
    cr_assert(rig.interrupts > before, "no interrupt");
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 0, "still up");
    virtio_net_set_link(device, true);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 1, "still down");
    cr_assert(fake_frame(100) && used(NET_RX) == 1, "nothing is received");
}

/* --- transmitting --- */

Test(net, sends)
{
    static const struct virtio_net_hdr_v1 plain = {0};
    net_rig_start(ALL, 16);
    send(&plain, 60, 0);
    send(&plain, 1514, NET_HEADER);
    send(&plain, 200, 5); /* a header in two parts */
    cr_assert(used(NET_TX) == 3 && fake.sent_count == 3, "%u used, %u sent", used(NET_TX), fake.sent_count);
    cr_assert(fake.sent_length[0] == 72 && fake.sent_length[1] == 1526 && fake.sent_length[2] == 212,
              "lengths");
    for (unsigned i = 0; i < 3; i++)
        for (unsigned k = 0; k < 60; k++)
            cr_assert_eq(fake.sent[i][NET_HEADER + k], (uint8_t)(k * 3), "byte %u of frame %u", k, i);
    cr_assert(counters().tx_frames == 3 && counters().tx_bytes == 1774, "counters");
}

Test(net, a_segmented_frame)
{
    const struct virtio_net_hdr_v1 header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                             .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
                                             .hdr_len = 54,
                                             .gso_size = 1448,
                                             .csum_start = 34,
                                             .csum_offset = 16};
    net_rig_start(ALL, 16);
    send(&header, 30000, 0);
    cr_assert(fake.sent_count == 1 && memcmp(fake.sent[0], &header, sizeof(header)) == 0,
              "not sent as it is");
}

Test(net, hostile_headers)
{
    enum { CSUM = VIRTIO_NET_HDR_F_NEEDS_CSUM, TSO = VIRTIO_NET_HDR_GSO_TCPV4 };
    static const struct {
        struct virtio_net_hdr_v1 header;
        uint32_t length;
    } rows[] = {
        {{.flags = 0x80}, 100},
        {{.flags = VIRTIO_NET_HDR_F_DATA_VALID}, 100},
        {{.flags = CSUM, .csum_start = 99, .csum_offset = 0}, 100},
        {{.flags = CSUM, .csum_start = 0xffff, .csum_offset = 0xffff}, 100},
        {{.flags = CSUM, .gso_type = 77, .gso_size = 100, .hdr_len = 54}, 1000},
        {{.flags = CSUM, .gso_type = VIRTIO_NET_HDR_GSO_UDP, .gso_size = 100, .hdr_len = 54}, 1000},
        {{.flags = CSUM, .gso_type = NET_CONTROL + 3, .gso_size = 100, .hdr_len = 54}, 1000},
        {{.flags = CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV6, .gso_size = 100, .hdr_len = 54},
         1000}, /* not agreed on */
        {{.flags = CSUM, .gso_type = TSO | VIRTIO_NET_HDR_GSO_ECN, .gso_size = 100, .hdr_len = 54}, 1000},
        {{.flags = 0, .gso_type = TSO, .gso_size = 100, .hdr_len = 54}, 1000},
        {{.flags = CSUM, .gso_type = TSO, .gso_size = 0, .hdr_len = 54}, 1000},
        {{.flags = CSUM, .gso_type = TSO, .gso_size = 100, .hdr_len = 1001}, 1000},
        {{.flags = 0}, 13},
        {{.flags = 0}, 0},
        {{.flags = 0}, 65554},
    };
    net_rig_start(ALL, 64);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        send(&rows[i].header, rows[i].length, 0);
        cr_assert(used(NET_TX) == i + 1, "row %zu does not come back", i);
        cr_assert(fake.sent_count == 0, "row %zu was sent", i);
    }
    cr_assert(counters().tx_malformed == ARRAY_SIZE(rows) && !broken(), "%llu counted",
              (unsigned long long)counters().tx_malformed);
}

Test(net, hostile_chain_to_send)
{
    net_rig_start(ALL, 16);
    rings_add(&net_rings[NET_TX], &(struct part){FRAME_AT, 11, false}, 1);
    kick(NET_TX);
    cr_assert(broken(), "a chain without a header was taken");
    net_rig_start(ALL, 16);
    const struct part parts[] = {{FRAME_AT, 100, false}, {FRAME_AT, 100, true}};
    rings_add(&net_rings[NET_TX], parts, 2);
    kick(NET_TX);
    cr_assert(broken(), "a writable part was taken");
}

Test(net, the_backend_takes_it_not)
{
    static const struct virtio_net_hdr_v1 plain = {0};
    net_rig_start(ALL, 16);
    fake.send_result = -EIO;
    send(&plain, 60, 0);
    cr_assert(used(NET_TX) == 1 && counters().tx_failed == 1 && !broken(), "not given back");
    fake.send_result = -EBADFD;
    send(&plain, 60, 0);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 0, "its link is gone and the carrier is not");
}

/* --- receiving --- */

Test(net, receives)
{
    net_rig_start(ALL, 64);
    offer(64, 2048);
    for (uint16_t i = 0; i < 40; i++) {
        cr_assert(fake_frame(14u + i * 50u), "frame %u: nobody receives", i);
        cr_assert(used(NET_RX) == i + 1 && arrived(i, 1, 14u + i * 50u), "frame %u", i);
    }
    cr_assert_eq(counters().rx_frames, 40, "counted");
}

Test(net, a_frame_in_many_buffers)
{
    net_rig_start(ALL, 64);
    offer(60, 1536);
    cr_assert(fake_frame(65535), "nobody receives");
    cr_assert(used(NET_RX) == 43 && arrived(0, 43, 65535), "%u chains", used(NET_RX));
    cr_assert(fake_frame(2000) && used(NET_RX) == 45 && arrived(43, 2, 2000), "and one behind it");
}

Test(net, a_frame_longer_than_what_is_offered_waits_for_the_rest)
{
    net_rig_start(ALL, 64);
    offer(10, 1000);
    cr_assert(fake_frame(50000) && used(NET_RX) == 0, "it does not wait");
    cr_assert(!fake.waiting, "another one is received before it");
    offer(10, 1000);
    offer(20, 1000);
    cr_assert(used(NET_RX) == 0, "it does not wait long enough");
    offer(15, 1000);
    cr_assert(used(NET_RX) == 51 && arrived(0, 51, 50000), "%u chains", used(NET_RX));
    cr_assert(fake_frame(100) && arrived(51, 1, 100), "and one behind it");
}

Test(net, a_frame_longer_than_the_queue_is_dropped)
{
    net_rig_start(ALL, 16);
    offer(16, 1000);
    cr_assert(fake_frame(50000) && used(NET_RX) == 0 && counters().rx_dropped == 1, "not dropped");
    cr_assert(fake_frame(1200) && used(NET_RX) == 2 && arrived(0, 2, 1200), "the next one is lost");
}

Test(net, without_merged_buffers_a_frame_is_in_one)
{
    net_rig_start(BASE, 16);
    offer(3, 1526);
    cr_assert(fake_frame(1514) && arrived(0, 1, 1514), "not received");
    cr_assert(fake_frame(1515) && used(NET_RX) == 1 && counters().rx_dropped == 1, "cut");
    cr_assert(fake_frame(1000) && arrived(1, 1, 1000), "the next one");
}

Test(net, frames_of_no_length)
{
    net_rig_start(ALL, 16);
    offer(4, 2048);
    for (int length = 0; length < (int)NET_HEADER + 14; length++)
        fake_complete(length);
    cr_assert(used(NET_RX) == 0 && counters().rx_dropped == 26, "%llu dropped",
              (unsigned long long)counters().rx_dropped);
    cr_assert(fake_frame(60) && arrived(0, 1, 60), "the next one");
}

Test(net, hostile_buffers_to_receive_into)
{
    static const struct part rows[] = {
        {BUFFER_AT, 11, true}, {BUFFER_AT, 100, false}, {UINT64_MAX - 50, 100, true}};
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        net_rig_start(ALL, 16);
        rings_add(&net_rings[NET_RX], &rows[i], 1);
        kick(NET_RX);
        cr_assert(broken() && !fake.waiting, "row %zu was taken", i);
    }
}

Test(net, kicks_are_off_while_there_is_enough)
{
    net_rig_start(ALL | FEATURE(VIRTIO_RING_F_EVENT_IDX), 256);
    offer(1, 1536);
    cr_assert_eq(rings_avail_event(&net_rings[NET_RX]), 1, "a driver with too little need not kick");
    offer(100, 1536);
    uint16_t event = rings_avail_event(&net_rings[NET_RX]);
    offer(100, 1536);
    cr_assert_eq(rings_avail_event(&net_rings[NET_RX]), event, "kicks are on");
}

/* --- quiet --- */

static void hold(void)
{
    bool quiet = false;
    cr_assert(virtio_quiesce(device, rig_closed, &quiet) == 0, "%s", fail_text());
    for (unsigned i = 0; i < 100 && !quiet; i++)
        rig_run(200);
    cr_assert(quiet, "it is never quiet");
}

Test(net, at_rest_all_buffers_are_back_in_the_queue)
{
    net_rig_start(ALL, 64);
    offer(50, 1536);
    fake_frame(3000);
    hold();
    const struct virtqueue *vq = &device->queues[NET_RX].vq;
    cr_assert(!fake.waiting && vq->in_flight == 0 && vq->next_avail == 2, "in flight %u, next %u",
              vq->in_flight, vq->next_avail);
    virtio_resume(device);
    rig_run(300);
    cr_assert(fake_frame(4000) && arrived(2, 3, 4000), "and it goes on");
}

Test(net, state_is_saved_and_loaded)
{
    struct state_writer state = {0};
    net_rig_start(ALL | FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE), 64);
    offer(50, 1536);
    fake_frame(3000);
    hold();
    cr_assert(virtio_save(device, &state) == 0, "%s", fail_text());

    /* Another device takes its place: the same guest memory, and a driver that notices nothing. */
    const struct virtio_net_options options = {.mac = {0x52, 9, 9, 9, 9, 9}};
    bool closed = false;
    virtio_close(device, rig_closed, &closed);
    for (unsigned i = 0; i < 100 && !closed; i++)
        rig_run(200);
    cr_assert(closed && fake.closed == 1, "not closed");
    fake.closed = 0;
    cr_assert(virtio_net_new(rig.loop, &fake.backend, &options, "net 1", &device) == 0, "%s", fail_text());
    rig_attach(device);
    cr_assert(virtio_load(device, (struct state_reader){state.bytes, state.length}) == 0, "%s", fail_text());
    state_writer_free(&state);
    virtio_resume(device);
    rig_run(300);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG, 4), 0x03020152, "the address that the guest has");
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 3, "no announcement is asked for");
    cr_assert(fake_frame(4000) && arrived(2, 3, 4000), "nothing is received");
}

/* --- the control queue --- */

/* Sends a command of `length` bytes; the answer. */
static uint8_t command(const void *bytes, uint32_t length)
{
    uint16_t before = used(NET_CONTROL);
    memcpy(net_at(FRAME_AT), bytes, length);
    *net_at(FRAME_AT + 0x8000) = 0xee;
    const struct part parts[] = {{FRAME_AT, length, false}, {FRAME_AT + 0x8000, 1, true}};
    rings_add(&net_rings[NET_CONTROL], parts, 2);
    kick(NET_CONTROL);
    cr_assert_eq(used(NET_CONTROL), before + 1, "no answer");
    return *net_at(FRAME_AT + 0x8000);
}
#define COMMAND(bytes) command((bytes), sizeof(bytes) - 1)

Test(net, commands)
{
    net_rig_start(ALL, 16);
    cr_assert(fake.filter.all, "filtered before the driver has said what it wants");
    cr_assert_eq(COMMAND("\0\0\1"), VIRTIO_NET_OK, "promiscuous");
    cr_assert(fake.filter.all, "not promiscuous");
    cr_assert_eq(COMMAND("\0\0\0"), VIRTIO_NET_OK, "not promiscuous");
    cr_assert_eq(COMMAND("\0\1\1"), VIRTIO_NET_OK, "all multicast");
    cr_assert(!fake.filter.all && fake.filter.all_multicast, "filter");
    cr_assert_eq(COMMAND("\1\0\1\0\0\0\2\0\0\0\0\7\2\0\0\0\x33\x33\0\0\0\1\x33\x33\0\0\0\2"), VIRTIO_NET_OK,
                 "tables");
    cr_assert(fake.filter.count == 3 && fake.filter.addresses[0][5] == 7 && fake.filter.addresses[2][5] == 2,
              "tables");
    cr_assert_eq(COMMAND("\1\1\2\3\4\5\6\7"), VIRTIO_NET_OK, "an address");
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG, 4), 0x05040302, "another address");
    cr_assert_eq(COMMAND("\5\0\0\0\0\0\0\0\0\0"), VIRTIO_NET_OK, "no offloads");
    cr_assert_eq(fake.offloads, 0, "no offloads");
    net_rig_start(ALL, 16);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG, 4), 0x03020152,
                 "a reset does not bring the address back");
    cr_assert(fake.filter.all && fake.offloads, "nor the filter and the offloads");
}

Test(net, announces)
{
    net_rig_start(ALL | FEATURE(VIRTIO_NET_F_GUEST_ANNOUNCE), 16);
    virtio_net_announce(device);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 3, "not asked for");
    cr_assert_eq(COMMAND("\3\0"), VIRTIO_NET_OK, "acknowledged");
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG + 6, 2), 1, "still asked for");
}

Test(net, hostile_commands)
{
    static const struct {
        const char *bytes;
        uint32_t length;
    } rows[] = {
        {"\0\0", 2},   /* no mode */
        {"\0\2\1", 3}, /* a mode that there is not */
        {"\0\x09\1", 3},
        {"\1\0", 2}, /* no tables */
        {"\1\0\xff\xff\xff\xff", 6},
        {"\1\0\2\0\0\0\2\0\0\0\0\7", 12},
        {"\1\0\0\0\0\0", 6},     /* one of two tables */
        {"\1\1\1\2\3\4\5\6", 8}, /* a multicast address of its own */
        {"\1\1\2\3", 4},
        {"\4\0\1\0", 4},              /* pairs, which were not agreed on */
        {"\5\0\0\1\0\0\0\0\0\0", 10}, /* an offload likewise */
        {"\5\0\1", 3},
        {"\x99\0\1", 3},
        {"\3\1", 2},
    };
    net_rig_start(ALL, 64);
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        cr_assert_eq(command(rows[i].bytes, rows[i].length), VIRTIO_NET_ERR, "row %zu was taken", i);
    cr_assert_eq(rig_read_bytes(VIRTIO_MMIO_CONFIG, 4), 0x03020152, "the address");
    static const char long_one[6000] = {1};
    cr_assert_eq(command(long_one, sizeof(long_one)), VIRTIO_NET_ERR, "a command of 6,000 bytes");
    cr_assert(!broken(), "that was enough for the device");
    rings_add(&net_rings[NET_CONTROL], &(struct part){FRAME_AT, 3, false}, 1);
    kick(NET_CONTROL);
    cr_assert(broken(), "a command without room for an answer");
}

/* --- limits --- */

Test(net, limits_hold_back_both_ways)
{
    static const struct virtio_net_hdr_v1 plain = {0};
    const struct rate_limiter_config three = {.ops = {3, 0, 3600000}}, none = {0};
    net_rig_start(ALL, 64);
    virtio_net_limit(device, &three, &three);
    offer(40, 1536);
    for (unsigned i = 0; i < 10; i++)
        send(&plain, 60, 0);
    cr_assert_eq(used(NET_TX), 3, "sent: %u", used(NET_TX));
    for (unsigned i = 0; i < 4; i++)
        cr_assert(fake_frame(100), "not received");
    cr_assert(!fake.waiting, "more is received than the limit allows");
    hold();
    virtio_resume(device);
    rig_run(300);
    cr_assert(!fake.waiting && used(NET_TX) == 3, "the limit is gone");
    virtio_net_limit(device, &none, &none);
    rig_run(1000);
    cr_assert(used(NET_TX) == 10 && fake.waiting, "it does not go on");
}
