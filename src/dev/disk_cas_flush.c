/* A flush, in the steps of store/volume.h: the delta, the descriptors of its name, the map's blocks, the map.
 * A round serves all flushes that came before it began. */
#include "base/log.h"
#include "dev/disk_cas_internal.h"

static void flush_begin(struct disk_cas *cas);

static void flush_end(struct disk_cas *cas, int result)
{
    struct cas_flush *flush = &cas->flush;
    struct disk_queue served = flush->served;
    volume_checkpoint_end(cas->volume, &flush->checkpoint, result == 0);
    flush->step = FLUSH_NONE;
    flush->served = flush->waiting;
    flush->waiting = (struct disk_queue){0};
    if (flush->served.count > 0)
        flush_begin(cas);
    for (unsigned i = 0; i < served.count; i++)
        served.items[i]->done(served.items[i], result);
    free(served.items);
}

/* Starts the step that follows on `flush->step`, which is done. */
static void flush_next(struct disk_cas *cas)
{
    struct cas_flush *flush = &cas->flush;
    const struct volume_checkpoint *checkpoint = &flush->checkpoint;
    switch (flush->step) {
    case FLUSH_NONE:
        flush->step = FLUSH_DELTA;
        loop_fdatasync(cas->disk.loop, &flush->op, volume_delta(cas->volume));
        return;
    case FLUSH_DELTA:
        flush->step = FLUSH_NAME;
        flush->next = 0;
        __attribute__((fallthrough));
    case FLUSH_NAME:
        if (flush->next < checkpoint->name_fd_count) {
            loop_fdatasync(cas->disk.loop, &flush->op, checkpoint->name_fds[flush->next++]);
            return;
        }
        flush->step = FLUSH_BLOCKS;
        flush->next = 0;
        __attribute__((fallthrough));
    case FLUSH_BLOCKS:
        if (flush->next < checkpoint->count) {
            const struct volume_block *block = &checkpoint->blocks[flush->next++];
            loop_write(cas->disk.loop, &flush->op, volume_map(cas->volume), block->bytes, STORE_PAGE,
                       block->offset);
            return;
        }
        if (checkpoint->count > 0) {
            flush->step = FLUSH_MAP;
            loop_fdatasync(cas->disk.loop, &flush->op, volume_map(cas->volume));
            return;
        }
        __attribute__((fallthrough));
    case FLUSH_MAP: flush_end(cas, 0); return;
    }
}

static void flush_step_done(struct loop_op *op, int result, unsigned flags)
{
    struct disk_cas *cas = container_of(op, struct disk_cas, flush.op);
    (void)flags;
    if (cas->flush.step == FLUSH_BLOCKS && result >= 0 && result < (int)STORE_PAGE)
        result = -EIO; /* a part of a block: the disk is full */
    if (result < 0)
        flush_end(cas, result);
    else
        flush_next(cas);
}

static void flush_begin(struct disk_cas *cas)
{
    cas->flush.op = (struct loop_op){.done = flush_step_done};
    int r = volume_checkpoint_begin(cas->volume, &cas->flush.checkpoint);
    if (r < 0)
        flush_end(cas, r);
    else
        flush_next(cas);
}

void disk_cas_flush(struct disk *disk, struct disk_io *io)
{
    struct disk_cas *cas = cas_of(disk);
    struct cas_flush *flush = &cas->flush;
    io->disk = disk;
    if (volume_map(cas->volume) < 0) { /* scratch: nothing of it is to last */
        io->done(io, 0);
        return;
    }
    bool idle = flush->step == FLUSH_NONE;
    if (disk_queue_add(idle ? &flush->served : &flush->waiting, io) < 0)
        io->done(io, -ENOMEM);
    else if (idle)
        flush_begin(cas);
}

/* A flush, so that no power cut afterwards finds a page marked in the map that is not in the delta. After the
 * guest's own last flush there is nothing to do. */
void disk_cas_write_back(struct disk *disk)
{
    struct disk_cas *cas = cas_of(disk);
    if (volume_unsaved(cas->volume) && volume_flush(cas->volume) < 0)
        log_warn("volume %s: what its guest wrote and did not flush is lost: %s", volume_id(cas->volume),
                 fail_text());
}
