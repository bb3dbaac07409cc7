/*
 * The vsock device as a guest and programs of the host can reach it: the input is a program of packets,
 * buffers, writes to the rings, connections, bytes and ends on the host's side, pauses, and turns of the
 * loop. Nothing may be reported by the sanitizers, and at the end, after a reset, a well-behaved driver gets
 * its connection.
 */
#include "../unit/vsock_rig.h"

#define HOST_FDS 8u
#define PORTS    4u

struct program {
    const uint8_t *at, *end;
};

static int listeners[PORTS];
static int host_fds[HOST_FDS];
static uint32_t last_port; /* of the host, in what the guest was last asked */

static uint64_t take(struct program *program, size_t bytes)
{
    uint64_t value = 0;
    bytes = MIN(bytes, (size_t)(program->end - program->at));
    memcpy(&value, program->at, bytes);
    program->at += bytes;
    return value;
}

static void write_rings(struct program *program)
{
    uint64_t at = RIG_RINGS_AT + take(program, 2) % (QUEUES * RINGS_BYTES / 2) * 2;
    size_t length = take(program, 1) % 33;
    length = MIN(length, (size_t)(program->end - program->at));
    guest_mem_write(&rig.mem, gpa(at), program->at, length);
    program->at += length;
}

/* A packet as drivers make them, of which the program says one thing or another. */
static void send_packet(struct program *program)
{
    struct virtio_vsock_hdr header = vs_header(
        (uint16_t)(take(program, 1) % 9), (uint32_t)take(program, 1) % 4, (uint32_t)take(program, 1) % 6);
    uint8_t strange = (uint8_t)take(program, 1);
    uint32_t bytes = (uint32_t)take(program, 2);
    if (header.dst_port == 5)
        header.dst_port = last_port;
    header.len = bytes;
    header.flags = strange & 3;
    header.fwd_cnt = strange & 4 ? (uint32_t)take(program, 4) : 0;
    header.buf_alloc = strange & 8 ? (uint32_t)take(program, 4) : 65536;
    if (strange & 16)
        header.len = (uint32_t)take(program, 4);
    if (strange & 32)
        header.src_cid = take(program, 1);
    if (strange & 64)
        header.type = (uint16_t)take(program, 1);
    guest_mem_write(&rig.mem, gpa(TX_AT), &header, sizeof(header));
    const struct part parts[] = {{TX_AT, 20, false}, {TX_AT + 20, 24 + bytes, strange & 128 && (bytes & 1)}};
    if (vs.queues[TX].size)
        rings_add(&vs.queues[TX], parts, 2);
    rig_kick(TX);
}

static void add_buffers(struct program *program)
{
    uint8_t how = (uint8_t)take(program, 1);
    unsigned q = how & 64 ? EVENTS : RX;
    if (vs.queues[q].size)
        vs_add_buffers(q, RX_AT, how & 128 ? (uint32_t)take(program, 2) : 0x1000, how % 8);
}

static void note_port(void)
{
    const struct virtio_vsock_hdr *header = guest_mem_at(&rig.mem, gpa(RX_AT), sizeof(*header));
    if (header->op == VIRTIO_VSOCK_OP_REQUEST)
        last_port = header->src_port;
}

/* A program of the host connects, says something, ends. */
static void act_on_host(struct program *program)
{
    static const char *const lines[] = {"CONNECT 1\n", "CONNECT 2\n", "CONN", "CONNECT 3\nand more"};
    static uint8_t bytes[8192];
    uint8_t how = (uint8_t)take(program, 1);
    int *fd = &host_fds[how % HOST_FDS];
    switch (how >> 3 & 7) {
    case 0: /* a new one */
    case 1:
        cleanup_fd(fd);
        *fd = vs_host_connect(lines[how >> 6]);
        break;
    case 2: /* one that the guest began */
        cleanup_fd(fd);
        *fd = accept4(listeners[how >> 6], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        break;
    case 3:
        if (*fd >= 0)
            (void)!send(*fd, bytes, take(program, 2) % sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    case 4:
        if (*fd >= 0)
            (void)!recv(*fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        break;
    case 5:
        if (*fd >= 0)
            shutdown(*fd, how & 64 ? SHUT_WR : SHUT_RD);
        break;
    default: cleanup_fd(fd); break;
    }
}

static void set_flag(void *flag)
{
    *(bool *)flag = true;
}

/* A pause, with a save and a load in it or not. */
static void pause_device(bool restores)
{
    struct state_writer saved = {0};
    bool quiet = false;
    if (virtio_quiesce(rig.device, set_flag, &quiet) < 0)
        return;
    while (!quiet)
        rig_run(50);
    if (restores && virtio_save(rig.device, &saved) == 0) {
        virtio_forget(rig.device);
        (void)virtio_load(rig.device, (struct state_reader){saved.bytes, saved.length});
    }
    state_writer_free(&saved);
    virtio_resume(rig.device);
}

static void step(struct program *program)
{
    switch (take(program, 1) % 10) {
    case 0:
    case 1: send_packet(program); break;
    case 2: add_buffers(program); break;
    case 3: write_rings(program); break;
    case 4: rig_kick((unsigned)take(program, 1) % QUEUES); break;
    case 5: rig_run(50); break;
    case 6:
    case 7: act_on_host(program); break;
    case 8: pause_device(take(program, 1) & 1); break;
    case 9: note_port(); break;
    }
}

static void sane_connection(void)
{
    struct vs_packet packet;
    vs_start(8);
    int fd = vs_host_connect("CONNECT 52\n");
    do
        CHECK(vs_receive(&packet));
    while (packet.header.op != VIRTIO_VSOCK_OP_REQUEST || packet.header.dst_port != 52);
    vs_send(VIRTIO_VSOCK_OP_RESPONSE, 52, packet.header.src_port, 0);
    char said[3];
    CHECK(vs_host_read(fd, said, 3) == 3 && memcmp(said, "OK ", 3) == 0);
    close(fd);
}

/* One device for all inputs: each begins and ends with a reset. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const ports[PORTS] = {"_0", "_1", "_2", "_3"};
    (void)argc, (void)argv;
    vs_new();
    for (unsigned i = 0; i < PORTS; i++)
        listeners[i] = vs_host_listen(ports[i]);
    for (unsigned i = 0; i < HOST_FDS; i++)
        host_fds[i] = -1;
    atexit(vs_free);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct program program = {.at = data, .end = data + size};
    vs_start(4);
    while (program.at < program.end)
        step(&program);
    for (unsigned i = 0; i < HOST_FDS; i++)
        cleanup_fd(&host_fds[i]);
    for (unsigned i = 0; i < PORTS; i++)
        for (int fd; (fd = accept4(listeners[i], NULL, NULL, SOCK_CLOEXEC)) >= 0;)
            close(fd);
    sane_connection();
    return 0;
}
