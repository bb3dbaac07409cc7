#include "store/ingest.h"
#include "store/assembly.h"
#include "store/private.h"

#include <liburing.h>
#include <string.h>
#include <sys/mman.h>

/* Regions in flight per thread: while one is hashed, others are read and written. Four saturate two cores
 * (bench). */
#define SLOTS 4u

/* How often and how long (us) to wait for a ring that takes no requests: ten seconds in all. */
#define REFUSALS_MAX  1000u
#define REFUSAL_PAUSE 10000u

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_WRITING };

struct slot {
    enum slot_state state;
    uint8_t *data; /* one region, page-aligned */
    uint64_t region;
    unsigned pages;
    struct region_map map;
    uint64_t from,
        left; /* of the read or write in flight: what is still to come, in `data` and the file alike */
    struct region_plan *plan;
    struct staged_file file;
};

struct ingest {
    struct store *store;
    struct store_writer *writer;
    const struct ingest_source *source;
    const struct ingest_options *options;
    struct assembly *assembly;
    struct page_index *index;
    struct ingest_report report; /* the threads' sums, under `mutex` */
    pthread_mutex_t mutex;
};

struct worker {
    struct ingest *ingest;
    pthread_t thread;
    struct io_uring ring;
    struct region_reader reader;
    struct slot slots[SLOTS];
    unsigned busy;      /* slots that are not free */
    unsigned in_flight; /* requests that the kernel has */
    unsigned refused;   /* times in a row that the ring took none */
};

int ingest_survey_holes(const struct ingest_source *source, uint64_t first_page, struct region_map *map)
{
    uint64_t end = MIN(source->bytes, (first_page + REGION_PAGES) * STORE_PAGE), data, hole;
    for (uint64_t at = first_page * STORE_PAGE; file_next_data(source->fd, at, end, &data, &hole); at = hole)
        for (uint64_t byte = align_down(data, STORE_PAGE); byte < hole; byte += STORE_PAGE)
            region_bit_set(map->read, (unsigned)(byte / STORE_PAGE - first_page));
    return 0;
}

/* Asks the ring for the rest of the slot's read or write. The queue has room: one request to a slot. */
static void slot_submit(struct worker *worker, struct slot *slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&worker->ring);
    CHECK(sqe);
    if (slot->state == SLOT_READING)
        io_uring_prep_read(sqe, worker->ingest->source->fd, slot->data + slot->from, (unsigned)slot->left,
                           slot->region * STORE_OBJECT_BYTES + slot->from);
    else
        io_uring_prep_write(sqe, slot->file.fd, slot->data + slot->from, (unsigned)slot->left, slot->from);
    io_uring_sqe_set_data(sqe, slot);
    worker->in_flight++;
}

static void slot_release(struct worker *worker, struct slot *slot)
{
    slot->state = SLOT_FREE;
    worker->busy--;
}

static int slot_put(struct worker *worker, struct slot *slot)
{
    struct region_plan *plan = ptr_steal(&slot->plan);
    uint64_t region = slot->region;
    slot_release(worker, slot);
    return assembly_put(worker->ingest->assembly, region, plan);
}

/* What has been read is sorted; an object of the region's own goes on to be written, unless the
 * store has it. */
static int slot_process(struct worker *worker, struct slot *slot)
{
    struct ingest *ingest = worker->ingest;
    struct region_plan *plan = slot->plan;
    int r =
        region_plan(&worker->reader, slot->data, slot->region * REGION_PAGES, slot->pages, &slot->map, plan);
    if (r < 0)
        return r;
    size_t length = (size_t)plan->new_pages * STORE_PAGE;
    if (!plan->own && length > 0) {
        plan->rest = malloc(length);
        if (!plan->rest)
            return fail(-ENOMEM, "%s: no memory to pack pages", ingest->source->name);
        memcpy(plan->rest, slot->data, length);
    }
    if (!plan->own)
        return slot_put(worker, slot);
    bool has;
    object_hash(slot->data, length, &plan->id);
    r = writer_has(ingest->writer, &plan->id, plan->new_pages, &has);
    if (r == 0 && has)
        return slot_put(worker, slot);
    if (r == 0)
        r = writer_create(ingest->writer, true, &slot->file);
    if (r < 0)
        return r;
    slot->state = SLOT_WRITING;
    slot->from = 0;
    slot->left = length;
    r = sys_fault("write", slot->file.fd);
    if (r < 0) {
        writer_drop(ingest->writer, &slot->file);
        return fail_errno(r, "cannot write an object to the store");
    }
    slot_submit(worker, slot);
    return 0;
}

static int slot_start(struct worker *worker, struct slot *slot, uint64_t region)
{
    struct ingest *ingest = worker->ingest;
    uint64_t begin = region * STORE_OBJECT_BYTES,
             bytes = MIN(ingest->source->bytes - begin, STORE_OBJECT_BYTES);
    worker->busy++;
    slot->state = SLOT_READING;
    slot->region = region;
    slot->pages = (unsigned)(align_up(bytes, STORE_PAGE) / STORE_PAGE);
    slot->map = (struct region_map){0};
    slot->plan = malloc(sizeof(*slot->plan));
    if (!slot->plan)
        return fail(-ENOMEM, "%s: no memory for a region", ingest->source->name);
    slot->plan->rest = NULL;
    int r = ingest->source->survey(ingest->source, region * REGION_PAGES, &slot->map);
    if (r < 0)
        return r;
    unsigned first = slot->pages, last = 0;
    for (unsigned page = 0; page < slot->pages; page++)
        if (slot->map.read[page / 64] >> (page % 64) & 1) {
            first = MIN(first, page);
            last = page + 1;
        }
    if (last == 0)
        return slot_process(worker, slot);
    slot->from = (uint64_t)first * STORE_PAGE;
    slot->left = MIN((uint64_t)last * STORE_PAGE, bytes) - slot->from;
    memset(slot->data + bytes, 0,
           (size_t)slot->pages * STORE_PAGE - bytes); /* the rest of the image's last page */
    worker->reader.report.bytes_read += slot->left;
    slot_submit(worker, slot);
    return 0;
}

static int slot_done(struct worker *worker, struct slot *slot, int result)
{
    struct ingest *ingest = worker->ingest;
    bool reading = slot->state == SLOT_READING;
    if (result <= 0 && result != -EINTR && result != -EAGAIN) {
        if (!reading)
            writer_drop(ingest->writer, &slot->file);
        if (reading && result == 0)
            return fail(-EPIPE, "%s: became shorter while it was read", ingest->source->name);
        return reading ? fail_errno(result, "%s: cannot be read at byte %llu", ingest->source->name,
                                    (unsigned long long)(slot->region * STORE_OBJECT_BYTES + slot->from))
                       : fail_errno(result ? result : -EIO, "cannot write an object to the store");
    }
    if (result > 0) {
        slot->from += (uint64_t)result;
        slot->left -= (uint64_t)result;
    }
    if (slot->left > 0) {
        slot_submit(worker, slot);
        return 0;
    }
    if (reading)
        return slot_process(worker, slot);
    struct staged_file file = slot->file; /* staging ends it, however that goes */
    slot->file.fd = -1;
    int r = writer_stage(ingest->writer, &slot->plan->id, &file);
    return r < 0 ? r : slot_put(worker, slot);
}

static struct slot *free_slot(struct worker *worker)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (worker->slots[i].state == SLOT_FREE)
            return &worker->slots[i];
    return NULL;
}

/* Starts as many regions as there is room for: 1, or 0 if there will be no more, or a negative errno. */
static int start_some(struct worker *worker)
{
    struct slot *slot;
    uint64_t region;
    while ((slot = free_slot(worker))) {
        int r = assembly_next(worker->ingest->assembly, worker->busy == 0, &region);
        if (r <= 0)
            return r == -EAGAIN ? 1 : r;
        r = slot_start(worker, slot, region);
        if (r < 0)
            return r;
    }
    return 1;
}

/* Submits and waits. EBUSY: completions must be taken first. EAGAIN: the kernel has no memory for requests
 * right now; what is under way gives some back, so the next round may do better. */
static int submit(struct worker *worker)
{
    int r = sys_fault("ring", worker->ring.ring_fd);
    if (r == 0)
        r = io_uring_submit_and_wait(&worker->ring, 1);
    if (r >= 0) {
        worker->refused = 0;
        return 0;
    }
    if (r != -EINTR && r != -EAGAIN && r != -EBUSY)
        return fail_errno(r, "io_uring");
    if (r != -EINTR && io_uring_cq_ready(&worker->ring) == 0) {
        if (++worker->refused > REFUSALS_MAX)
            return fail_errno(r, "io_uring takes no requests");
        usleep(REFUSAL_PAUSE);
    }
    return 0;
}

static int reap(struct worker *worker)
{
    struct io_uring_cqe *cqe;
    int r = submit(worker);
    if (r < 0)
        return r;
    while (io_uring_peek_cqe(&worker->ring, &cqe) == 0) {
        struct slot *slot = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&worker->ring, cqe);
        worker->in_flight--;
        r = slot_done(worker, slot, result);
        if (r < 0)
            return r;
    }
    return 0;
}

/* After a failure: nothing may be freed while the kernel still reads or writes it. */
static void drain(struct worker *worker)
{
    struct io_uring_cqe *cqe;
    io_uring_submit(&worker->ring);
    while (worker->in_flight > 0 && io_uring_wait_cqe(&worker->ring, &cqe) == 0) {
        io_uring_cqe_seen(&worker->ring, cqe);
        worker->in_flight--;
    }
}

static int work(struct worker *worker)
{
    int r = region_reader_init(&worker->reader, worker->ingest->store, worker->ingest->writer,
                               worker->ingest->options, worker->ingest->index);
    if (r < 0)
        return r;
    r = io_uring_queue_init(2 * SLOTS, &worker->ring, 0);
    if (r < 0) {
        region_reader_free(&worker->reader);
        return fail_errno(
            r, "io_uring is not to be had (does sysctl kernel.io_uring_disabled or a container forbid it?)");
    }
    int more;
    do {
        r = more = start_some(worker);
        if (r >= 0 && worker->busy > 0)
            r = reap(worker);
    } while (r >= 0 && (more == 1 || worker->busy > 0));
    r = MIN(r, 0);
    drain(worker);
    for (unsigned i = 0; i < SLOTS; i++)
        if (worker->slots[i].state == SLOT_WRITING && worker->slots[i].file.fd >= 0)
            writer_drop(worker->ingest->writer, &worker->slots[i].file);
    io_uring_queue_exit(&worker->ring);
    struct ingest_report *sum = &worker->ingest->report, *own = &worker->reader.report;
    pthread_mutex_lock(&worker->ingest->mutex);
    sum->bytes_read += own->bytes_read;
    sum->pages_zero += own->pages_zero;
    sum->pages_known += own->pages_known;
    sum->pages_new += own->pages_new;
    sum->regions_over_budget += own->regions_over_budget;
    pthread_mutex_unlock(&worker->ingest->mutex);
    region_reader_free(&worker->reader);
    return r;
}

static void *worker_main(void *opaque)
{
    struct worker *worker = opaque;
    int r = -ENOMEM;
    size_t bytes = SLOTS * (size_t)STORE_OBJECT_BYTES;
    uint8_t *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data != MAP_FAILED) {
        for (unsigned i = 0; i < SLOTS; i++)
            worker->slots[i].data = data + i * (size_t)STORE_OBJECT_BYTES;
        r = work(worker);
        munmap(data, bytes);
    } else {
        fail(r, "no memory to read with");
    }
    for (unsigned i = 0; i < SLOTS; i++)
        if (worker->slots[i].plan) {
            free(worker->slots[i].plan->rest);
            free(worker->slots[i].plan);
        }
    if (r < 0)
        assembly_fail(worker->ingest->assembly, r);
    return NULL;
}

/* Waits for the threads, telling the caller how far they are. */
static void watch(struct ingest *ingest, uint64_t regions)
{
    uint64_t total = ingest->source->bytes;
    while (ingest->options->progress && assembly_result(ingest->assembly) == 0) {
        uint64_t done = assembly_done(ingest->assembly);
        ingest->options->progress(ingest->options->opaque, MIN(done * STORE_OBJECT_BYTES, total), total);
        if (done >= regions)
            break;
        usleep(20000);
    }
}

static int run_workers(struct ingest *ingest)
{
    uint64_t regions = align_up(ingest->source->bytes, STORE_OBJECT_BYTES) / STORE_OBJECT_BYTES;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = ingest->options->threads ? ingest->options->threads : (unsigned)MAX(cores, 1L),
             started = 0;
    threads = (unsigned)MAX(MIN((uint64_t)threads, regions), UINT64_C(1));
    CLEANUP_FREE struct worker *workers = calloc(threads, sizeof(*workers));
    if (!workers)
        return fail(-ENOMEM, "%s: no memory for %u threads", ingest->source->name, threads);
    for (; started < threads; started++) {
        workers[started].ingest = ingest;
        int r = pthread_create(&workers[started].thread, NULL, worker_main, &workers[started]);
        if (r != 0) {
            assembly_fail(ingest->assembly, fail_errno(-r, "cannot start a thread"));
            break;
        }
    }
    watch(ingest, regions);
    for (unsigned i = 0; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    return assembly_result(ingest->assembly);
}

int ingest(struct store_writer *writer, struct store *store, const struct ingest_source *source,
           const struct ingest_options *options, struct manifest **ret_manifest,
           struct ingest_report *ret_report)
{
    struct ingest ingest = {.store = store, .writer = writer, .source = source, .options = options};
    pthread_mutex_init(&ingest.mutex, NULL);
    int r = assembly_new(writer, options, source->bytes, &ingest.assembly);
    if (r == 0)
        r = page_index_new(store, options->bases, options->base_count, &ingest.index);
    if (r == 0)
        r = run_workers(&ingest);
    if (r == 0)
        r = assembly_finish(ingest.assembly, ret_manifest);
    if (r == 0 && ret_report)
        *ret_report = ingest.report;
    page_index_free(ingest.index);
    assembly_free(ingest.assembly);
    pthread_mutex_destroy(&ingest.mutex);
    return r;
}
