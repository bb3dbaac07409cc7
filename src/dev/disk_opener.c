#include "dev/disk_opener.h"

#include "dev/disk_cas.h"
#include "loop/mailbox.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

/* One disk to open. It goes from the loop to the thread, and back with the result. */
struct opening {
    struct opening *next;
    char *store, *name; /* store may be NULL */
    struct disk_options options;
    disk_opened *done;
    void *context;
    int result;
    char *message;
    struct disk *disk;
};

struct disk_opener {
    struct mailbox *results;
    void (*started)(void);
    pthread_t thread;
    pthread_mutex_t lock; /* over what follows; not held while a disk is opened */
    pthread_cond_t more;
    struct opening *first, **last;
    bool end;
};

int disk_open(const char *store, const char *name, const struct disk_options *options, struct disk **ret_disk)
{
    if (disk_cas_is(name))
        return disk_cas_open(store, name, options, ret_disk);
    return disk_file_open(name, options, ret_disk);
}

static void opening_free(struct opening *opening)
{
    if (!opening)
        return;
    if (opening->disk)
        opening->disk->ops->close(opening->disk);
    free(opening->store);
    free(opening->name);
    free(opening->message);
    free(opening);
}

/* The next one, or NULL at the end. */
static struct opening *wait_for_one(struct disk_opener *opener)
{
    pthread_mutex_lock(&opener->lock);
    while (!opener->first && !opener->end)
        pthread_cond_wait(&opener->more, &opener->lock);
    struct opening *opening = opener->end ? NULL : opener->first;
    if (opening) {
        opener->first = opening->next;
        if (!opener->first)
            opener->last = &opener->first;
    }
    pthread_mutex_unlock(&opener->lock);
    return opening;
}

static void *open_disks(void *context)
{
    struct disk_opener *opener = context;
    if (opener->started)
        opener->started();
    for (struct opening *opening; (opening = wait_for_one(opener));) {
        opening->result = disk_open(opening->store, opening->name, &opening->options, &opening->disk);
        if (opening->result < 0)
            opening->message = strdup(fail_text());
        const struct message message = {.payload = opening};
        mailbox_post(opener->results, &message);
    }
    return NULL;
}

static void deliver(void *owner, const struct message *message)
{
    const struct disk_opener *opener = owner;
    struct opening *opening = message->payload;
    if (!opener->end)
        opening->done(opening->context, opening->result, opening->message ? opening->message : "no memory",
                      ptr_steal(&opening->disk));
    opening_free(opening);
}

/* Signals are the loop thread's. */
static int start_thread(struct disk_opener *opener)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&opener->thread, NULL, open_disks, opener);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r ? fail_errno(-r, "cannot start a thread that opens disks") : 0;
}

int disk_opener_new(struct loop *loop, void (*started)(void), struct disk_opener **ret_opener)
{
    struct disk_opener *opener = calloc(1, sizeof(*opener));
    if (!opener)
        return fail(-ENOMEM, "no memory to open disks");
    opener->started = started;
    opener->last = &opener->first;
    pthread_mutex_init(&opener->lock, NULL);
    pthread_cond_init(&opener->more, NULL);
    int r = start_thread(opener);
    if (r < 0) {
        free(opener);
        return r;
    }
    r = mailbox_new(loop, deliver, opener, &opener->results);
    if (r < 0) {
        disk_opener_free(opener);
        return r;
    }
    *ret_opener = opener;
    return 0;
}

int disk_opener_open(struct disk_opener *opener, const char *store, const char *name,
                     const struct disk_options *options, disk_opened *done, void *context)
{
    struct opening *opening = calloc(1, sizeof(*opening));
    if (opening) {
        opening->name = strdup(name);
        opening->store = store ? strdup(store) : NULL;
    }
    if (!opening || !opening->name || (store && !opening->store)) {
        opening_free(opening);
        return fail(-ENOMEM, "%s: no memory to open it", name);
    }
    opening->options = *options;
    opening->done = done;
    opening->context = context;
    pthread_mutex_lock(&opener->lock);
    *opener->last = opening;
    opener->last = &opening->next;
    pthread_mutex_unlock(&opener->lock);
    pthread_cond_signal(&opener->more);
    return 0;
}

void disk_opener_free(struct disk_opener *opener)
{
    if (!opener)
        return;
    pthread_mutex_lock(&opener->lock);
    opener->end = true;
    pthread_mutex_unlock(&opener->lock);
    pthread_cond_signal(&opener->more);
    pthread_join(opener->thread, NULL);
    while (opener->first) {
        struct opening *next = opener->first->next;
        opening_free(opener->first);
        opener->first = next;
    }
    if (opener->results)
        mailbox_drain(opener->results);
    mailbox_free(opener->results);
    pthread_cond_destroy(&opener->more);
    pthread_mutex_destroy(&opener->lock);
    free(opener);
}
