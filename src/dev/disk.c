/* What every kind of disk uses. */
#include "dev/disk.h"

void disk_attach(struct disk *disk, struct loop *loop)
{
    CHECK(!disk->loop);
    disk->loop = loop;
    if (disk->ops->attach)
        disk->ops->attach(disk);
}

int disk_copy(struct disk *disk, int fd)
{
    return disk->ops->copy(disk, fd);
}

void disk_copied(struct disk *disk, int fd)
{
    disk->loop = NULL;
    if (disk->ops->copied)
        disk->ops->copied(disk, fd);
}

int disk_choose_sector(const char *name, const struct disk_options *options, uint64_t size,
                       uint32_t *ret_sector)
{
    uint32_t sector = options->sector ? options->sector : DISK_SECTOR;
    if (size % sector != 0)
        return fail(-EINVAL, "%s: not a multiple of %u bytes (%s)", name, sector,
                    sector == DISK_SECTOR ? "is it truncated?" : "leave sector=4096 out");
    *ret_sector = sector;
    return 0;
}

void disk_io_advance(struct disk_io *io, uint64_t bytes)
{
    io->progress += bytes;
    while (bytes > 0 && bytes >= io->iov->iov_len) {
        bytes -= io->iov->iov_len;
        io->iov++;
        io->iov_count--;
    }
    if (bytes > 0) {
        io->iov->iov_base = (char *)io->iov->iov_base + bytes;
        io->iov->iov_len -= bytes;
    }
}

int disk_queue_add(struct disk_queue *queue, struct disk_io *io)
{
    if (queue->count == queue->capacity) {
        unsigned capacity = queue->capacity ? 2 * queue->capacity : 8;
        struct disk_io **items = realloc(queue->items, capacity * sizeof(struct disk_io *));
        if (!items)
            return fail(-ENOMEM, "no memory to queue a disk request");
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->count++] = io;
    return 0;
}

void disk_queue_start(struct disk_queue *queue, void (*start)(struct disk_io *io))
{
    struct disk_queue waiting = *queue;
    *queue = (struct disk_queue){0};
    for (unsigned i = 0; i < waiting.count; i++)
        start(waiting.items[i]);
    free(waiting.items);
}
