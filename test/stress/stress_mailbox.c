/*
 * Senders against the loop: every message arrives once, each sender's in its order, while a turn-taking pair
 * proves that order holds between senders as well (one posts only after it saw the other's post done).
 */
#include "loop/mailbox.h"

#include <pthread.h>
#include <stdio.h>

#define SENDERS 4u
#define LETTERS 50000u

struct sender {
    struct mailbox *mailbox;
    unsigned index;
};

static struct loop *loop;
static uint64_t next_of[SENDERS];
static uint64_t arrived, last_turn;
static _Atomic uint64_t turn;
static _Atomic int broken;

/* Letters of kind 1 carry a turn that all senders share. */
static void deliver(void *owner, const struct message *message)
{
    (void)owner;
    if (message->kind == 1 && message->value != last_turn++)
        atomic_store(&broken, 1);
    if (message->kind == 0 && message->value != next_of[message->address]++)
        atomic_store(&broken, 2);
    if (++arrived == SENDERS * LETTERS)
        loop_stop(loop, 0);
}

static void *send_all(void *argument)
{
    struct sender *sender = argument;
    for (uint64_t i = 0, own = 0; i < LETTERS; i++) {
        struct message message = {.address = sender->index, .value = own};
        if (atomic_load(&turn) % SENDERS == sender->index) {
            message.kind = 1;
            message.value = atomic_load(&turn);
            mailbox_post(sender->mailbox, &message);
            atomic_fetch_add(&turn, 1);
        } else {
            own++;
            mailbox_post(sender->mailbox, &message);
        }
    }
    return NULL;
}

int main(void)
{
    struct mailbox *mailbox = NULL;
    if (loop_new(8, &loop) < 0 || mailbox_new(loop, deliver, NULL, &mailbox) < 0) {
        fprintf(stderr, "set-up: %s\n", fail_text());
        return 1;
    }
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){mailbox, i};
        CHECK(pthread_create(&threads[i], NULL, send_all, &senders[i]) == 0);
    }
    int r = loop_run(loop);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    printf("%llu messages, %llu turns\n", (unsigned long long)arrived, (unsigned long long)last_turn);
    if (r != 0 || broken) {
        fprintf(stderr, "order broken (%d), loop %d\n", broken, r);
        return 1;
    }
    mailbox_free(mailbox);
    loop_free(loop);
    return 0;
}
