/* Between the virtio_vsock*.c files only. */
#pragma once

#include "dev/virtio_vsock.h"

#include <linux/virtio_vsock.h>
#include <sys/queue.h>

#define VSOCK_HOST_CID UINT64_C(2)

/*
 * How many bytes of a connection the guest may have sent and the host program not yet read. All connections
 * together, each with a reader that sleeps, cost 256 * 256 KiB + 3840 * 16 KiB = 124 MiB.
 */
#define VSOCK_CREDIT_LARGE (uint32_t)(256 * KIB)
#define VSOCK_CREDIT_SMALL (uint32_t)(16 * KIB)
#define VSOCK_LARGE_MAX    256u

/* For the guest's answer to a request, and to the end of a connection: as Firecracker has it. */
#define VSOCK_WAIT_NS UINT64_C(2000000000)

/* Answers to packets of no connection that wait for a buffer of the guest's. More are dropped: a driver that
 * gives no buffers has not long to wait for them either. */
#define VSOCK_RESETS_MAX 1024u

#define VSOCK_BUCKETS 1024u /* power of two */

/* "CONNECT 4294967295\r\n" and some spaces. */
#define VSOCK_LINE_MAX 40u

enum vsock_queue { VSOCK_RX, VSOCK_TX, VSOCK_EVENT, VSOCK_QUEUES };

enum vsock_state {
    VSOCK_GREETING,  /* a host program is connected to PATH: its line is awaited; the guest knows nothing */
    VSOCK_REQUESTED, /* the guest is or was asked */
    VSOCK_OPEN,
    VSOCK_FLUSHING, /* the guest knows no more of it; what it sent last goes out */
    VSOCK_DEAD,     /* until its ops have ended */
};

/* Packets that the guest is to get of a connection, in the order in which they go. */
enum {
    OWES_REQUEST = 1 << 0,
    OWES_RESPONSE = 1 << 1,
    OWES_SHUTDOWN = 1 << 2, /* after all data */
    OWES_CREDIT_UPDATE = 1 << 3,
    OWES_CREDIT_REQUEST = 1 << 4,
};

struct virtio_vsock;

struct vsock_conn {
    struct virtio_vsock *vsock;
    TAILQ_ENTRY(vsock_conn) all, ready, waiting;
    struct vsock_conn *next; /* of the same bucket */
    struct loop_op watch;    /* of the socket, while it is there */
    struct loop_op room;     /* for what waits to be sent to the host program */
    int fd;
    enum vsock_state state;
    uint32_t guest_port, host_port;
    unsigned owes;
    bool listed, is_ready, is_waiting; /* in the table; in the lists */
    bool held;                         /* a handler looks at it: it is not freed yet */
    uint64_t deadline;                 /* of one that is waiting */

    /* From the guest to the host program. Free-running counts, as in the packets. */
    uint32_t credit, received, forwarded, forwarded_told;
    uint8_t *buffer; /* `credit` bytes; NULL: nothing waits */
    uint32_t buffer_first, buffered;
    unsigned guest_ends; /* VIRTIO_VSOCK_SHUTDOWN_* that the guest said */

    /* From the host program to the guest. */
    uint32_t peer_credit, peer_forwarded, sent;
    unsigned host_ends; /* VIRTIO_VSOCK_SHUTDOWN_* that the guest is told */
    unsigned burst;     /* buffers of the guest that one read may fill */
    bool readable;      /* as far as is known */
    bool end_seen;      /* the host program sends no more; there may be bytes before that */
    bool hung_up;       /* it has closed its socket; the same */
    bool credit_asked;  /* for, since the last bytes went */
    bool stalled;       /* there is room, but too little to be worth a packet; it waits */
    bool forced;        /* it has waited long enough */

    char line[VSOCK_LINE_MAX];
    uint32_t line_length;
};

TAILQ_HEAD(vsock_list, vsock_conn);

/* A reset that is owed for a packet. */
struct vsock_reset {
    uint64_t cid; /* that the guest spoke to */
    uint32_t host_port, guest_port;
    uint16_t type;
};

struct vsock_counters {
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
    uint64_t opened, closed, killed, refused;
    uint64_t malformed, resets_sent, resets_lost, credit_exceeded;
    uint64_t accept_failures, connections, buffered_bytes;
};

struct virtio_vsock {
    struct virtio_device device; /* first */
    uint64_t cid;
    char *path;
    struct unix_listener listener;
    struct loop_op accept_op;
    struct loop_timer timer;
    unsigned in_flight; /* ops */
    bool accept_stalled;

    struct vsock_list all, ready, waiting;
    struct vsock_conn *buckets[VSOCK_BUCKETS];
    unsigned large;     /* connections with the large credit */
    uint32_t next_port; /* of the host, for host programs' connections */

    struct vsock_reset resets[VSOCK_RESETS_MAX];
    unsigned resets_first, resets_count;

    /* After a restore the guest is told that its connections are gone, and hears nothing else until it has
     * given the event's buffer back. */
    enum { EVENT_NONE, EVENT_DUE, EVENT_SENT } event;
    uint16_t event_buffers; /* that were left when it was sent */

    struct vsock_counters counters;
};

static inline struct virtio_vsock *vsock_of(struct virtio_device *device)
{
    return container_of(device, struct virtio_vsock, device);
}

static inline bool vsock_runs(const struct virtio_vsock *vsock)
{
    return vsock->device.state == VIRTIO_RUNNING;
}

/* ---- virtio_vsock_conn.c: connections, whoever began them ---- */

/* Takes `fd` over, which is non-blocking. NULL without memory. */
struct vsock_conn *vsock_conn_new(struct virtio_vsock *vsock, int fd, enum vsock_state state);

/* The connection of the two ports, or NULL. */
struct vsock_conn *vsock_conn_find(const struct virtio_vsock *vsock, uint32_t guest_port, uint32_t host_port);

/* Puts it into the table by its ports. */
void vsock_conn_list(struct vsock_conn *conn);

/* Ends it: its socket is closed, and it is freed when its ops have ended. The guest is told nothing. */
void vsock_conn_end(struct vsock_conn *conn);

/* The same, and the guest gets a reset. */
void vsock_conn_kill(struct vsock_conn *conn);

/* Frees all. No op of the device is in flight. */
void vsock_conn_free_all(struct virtio_vsock *vsock);

/* It may have something for the guest. */
void vsock_conn_ready(struct vsock_conn *conn);
void vsock_conn_not_ready(struct vsock_conn *conn);

/* Ends it in VSOCK_WAIT_NS, unless it goes on (vsock_conn_go_on). */
void vsock_conn_wait(struct vsock_conn *conn);
void vsock_conn_go_on(struct vsock_conn *conn);

/* Watches the socket, and what else is waited for: after vsock_conn_new() and after each start. */
void vsock_conn_watch(struct vsock_conn *conn);

/* Bytes from the guest, in its own buffers. */
void vsock_conn_forward(struct vsock_conn *conn, const struct iovec *iov, unsigned count, uint32_t bytes);

/* The guest ends its side: VIRTIO_VSOCK_SHUTDOWN_*. */
void vsock_conn_guest_ends(struct vsock_conn *conn, unsigned flags);

/* The host program's side has ended: the guest is told. */
void vsock_conn_host_ends(struct vsock_conn *conn, unsigned flags);

/* The next deadline has its timer, if there is one. */
void vsock_arm_timer(struct virtio_vsock *vsock);
loop_done vsock_timer_due;

/* An op of the device has completed for the last time; true if nothing more is to be done about it, since the
 * device is not running. */
bool vsock_op_ended(struct virtio_vsock *vsock);

/* ---- virtio_vsock_rx.c: packets to the guest ---- */

/* Sends what there is for it, as far as it has buffers. */
void vsock_pump(struct virtio_vsock *vsock);

/* Owes a reset. */
void vsock_owe_reset(struct virtio_vsock *vsock, const struct vsock_reset *reset);

/* ---- virtio_vsock_unix.c: the host's side ---- */

void vsock_accept(struct virtio_vsock *vsock);

/* Reads the line of one that is VSOCK_GREETING. */
void vsock_greet(struct vsock_conn *conn);

/* The answer to it. */
void vsock_tell_open(struct vsock_conn *conn);

/* A socket connected to PATH_port: 0, or a negative errno without a message. */
int vsock_connect(const struct virtio_vsock *vsock, uint32_t port, int *ret_fd);
