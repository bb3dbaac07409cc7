#include "loop/mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>

#define MAILBOX_MESSAGES 128u /* a power of two; more than the registers of a device's set-up */

struct mailbox {
    struct loop *loop;
    mailbox_deliver *deliver;
    void *owner;
    int wake_fd;
    struct loop_op wake_op;
    bool delivering; /* loop thread */

    pthread_mutex_t lock; /* over everything below; held for the copy of a message, never over a delivery */
    pthread_cond_t room;
    struct message messages[MAILBOX_MESSAGES];
    uint32_t head, tail; /* taken so far, posted so far */
    bool wake_sent;      /* the loop has a wake-up coming that it has not answered yet */
};

static void watch_wake_ups(struct mailbox *mailbox)
{
    loop_watch(mailbox->loop, &mailbox->wake_op, mailbox->wake_fd, POLLIN);
}

static void woken(struct loop_op *op, int result, unsigned flags)
{
    struct mailbox *mailbox = container_of(op, struct mailbox, wake_op);
    if (result == -ECANCELED)
        return;
    /* The eventfd is never read: each write wakes the watch, and 2^64 of them do not come. */
    pthread_mutex_lock(&mailbox->lock);
    mailbox->wake_sent = false;
    pthread_mutex_unlock(&mailbox->lock);
    mailbox_drain(mailbox);
    if (!(flags & LOOP_MORE)) {
        /* Without multishot polls (before 5.13) the watch looks at the count again when it is armed. */
        uint64_t count;
        (void)!read(mailbox->wake_fd, &count, sizeof(count));
        mailbox_drain(mailbox);
        watch_wake_ups(mailbox);
    }
}

int mailbox_new(struct loop *loop, mailbox_deliver *deliver, void *owner, struct mailbox **ret_mailbox)
{
    struct mailbox *mailbox = calloc(1, sizeof(*mailbox));
    if (!mailbox)
        return fail(-ENOMEM, "no memory for the mailbox");
    mailbox->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (mailbox->wake_fd < 0) {
        int error = -errno;
        free(mailbox);
        return fail_errno(error, "eventfd");
    }
    mailbox->loop = loop;
    mailbox->deliver = deliver;
    mailbox->owner = owner;
    mailbox->wake_op.done = woken;
    pthread_mutex_init(&mailbox->lock, NULL);
    pthread_cond_init(&mailbox->room, NULL);
    watch_wake_ups(mailbox);
    *ret_mailbox = mailbox;
    return 0;
}

void mailbox_free(struct mailbox *mailbox)
{
    if (!mailbox)
        return;
    cleanup_fd(&mailbox->wake_fd);
    pthread_cond_destroy(&mailbox->room);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

void mailbox_post(struct mailbox *mailbox, const struct message *message)
{
    static const uint64_t one = 1;
    pthread_mutex_lock(&mailbox->lock);
    while (mailbox->tail - mailbox->head == MAILBOX_MESSAGES)
        pthread_cond_wait(&mailbox->room, &mailbox->lock);
    mailbox->messages[mailbox->tail++ % MAILBOX_MESSAGES] = *message;
    bool wake = !mailbox->wake_sent;
    mailbox->wake_sent = true;
    pthread_mutex_unlock(&mailbox->lock);
    /* After the unlock: on a single CPU the loop runs at once and would only find the lock taken. */
    if (wake)
        CHECK(write(mailbox->wake_fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
}

/* Takes one message out; false when there is none. */
static bool take(struct mailbox *mailbox, struct message *ret_message)
{
    pthread_mutex_lock(&mailbox->lock);
    uint32_t waiting = mailbox->tail - mailbox->head;
    if (waiting) {
        *ret_message = mailbox->messages[mailbox->head++ % MAILBOX_MESSAGES];
        if (waiting == MAILBOX_MESSAGES)
            pthread_cond_broadcast(&mailbox->room);
    }
    pthread_mutex_unlock(&mailbox->lock);
    return waiting > 0;
}

void mailbox_drain(struct mailbox *mailbox)
{
    struct message message;
    if (mailbox->delivering)
        return;
    mailbox->delivering = true;
    /* Bounded: a guest that posts without end gets its turn again with the next wake-up or kick. */
    unsigned budget = 2 * MAILBOX_MESSAGES;
    while (budget && take(mailbox, &message)) {
        mailbox->deliver(mailbox->owner, &message);
        budget--;
    }
    mailbox->delivering = false;
    if (!budget) {
        static const uint64_t one = 1;
        CHECK(write(mailbox->wake_fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN);
    }
}
