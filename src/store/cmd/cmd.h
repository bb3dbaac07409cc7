/* What the files of the stellarium command share. */
#pragma once

#include "base/tool.h"
#include "store/image.h"
#include "store/ingest.h"
#include "store/volume.h"

#include <jansson.h>

/* Exit statuses, as the man page has them. */
enum exit_status {
    EXIT_DONE = 0,
    EXIT_NO = 1,      /* verify found something, diff found a difference */
    EXIT_USAGE = 2,   /* the command line is wrong */
    EXIT_FAILED = 3,  /* anything else went wrong */
    EXIT_DAMAGED = 4, /* something in the store is missing or corrupt */
    EXIT_BUSY = 5,    /* another process uses it */
};

/* One run of the command: what the command line says. */
struct call {
    struct store *store; /* open, but for init */
    const char *store_path;
    bool json;
    unsigned argument_count;
    char *const *arguments;
    const char *const *bases; /* --base */
    unsigned base_count;
    uint64_t size;                /* --size; 0: not given */
    const char *image, *platform; /* --image, --platform; NULL: not given */
    unsigned budget;
    bool reread, dry_run, full; /* --reread, --dry-run, --no-sparse */
};

/* The subcommands: 0, EXIT_NO, or a negative errno with a message. */
int command_init(const struct call *call);
int command_import(const struct call *call);
int command_export(const struct call *call);
int command_ls(const struct call *call);
int command_info(const struct call *call);
int command_clone(const struct call *call);
int command_commit(const struct call *call);
int command_adopt(const struct call *call);
int command_rm(const struct call *call);
int command_gc(const struct call *call);
int command_verify(const struct call *call);
int command_stat(const struct call *call);
int command_diff(const struct call *call);

/* A line that is redrawn on a terminal's standard error: what, how much, how fast, how long still. Silent
 * elsewhere. */
struct progress {
    const char *what;
    uint64_t total;
    int64_t started, drawn; /* nanoseconds */
    bool terminal;
};
void progress_begin(struct progress *progress, const char *what, uint64_t total);
void progress_update(void *progress, uint64_t done, uint64_t total);
void progress_bytes(void *progress, uint64_t done); /* with the total given at the beginning */
void progress_end(struct progress *progress);
double seconds_since(int64_t nanoseconds);
int64_t now_nanoseconds(void);

/* Pages as bytes for jansson and printf. */
static inline json_int_t page_bytes(uint64_t pages)
{
    uint64_t bytes = pages * STORE_PAGE;
    return (json_int_t)bytes;
}

/* A string for JSON of any bytes, as paths are: those that are not UTF-8 are written as \\xNN. */
json_t *json_bytes(const char *text);

/* Prints and releases a JSON value, with a newline. */
int print_json(json_t *value);

/*
 * Makes a raw image of what import was given: a raw image or device is opened as it is; a tar, a directory,
 * an OCI layout or archive becomes an ext4 file system in a temporary file, the same for the same input.
 * `size` 0: as large as it needs.
 */
struct prepared {
    int fd;
    uint64_t bytes;
    const char *kind; /* for people: "raw image", "directory", ... */
    bool file;        /* fd is the source itself, a regular file */
};
int source_prepare(const struct call *call, struct prepared *ret_prepared);

/* Which image of several: by name, and by "os/architecture". NULL: the only one, for this machine. */
struct oci_choice {
    const char *image, *platform;
};

/* Whether a folder is an OCI layout or what docker save wrote, by the content of its files. */
bool oci_is_image(const char *folder);

/* Unpacks it into the folder `root`, which it makes, layer by layer. `folder_times` as for layer_apply(). */
int oci_unpack(const char *layout, const char *root, const struct oci_choice *choice, json_t *folder_times);

/* Puts a tar onto what is in `root`. With `whiteouts`, names that begin with .wh. remove. What the tar says
 * of the times of folders is added to `folder_times`, an object by path, for layer_settle_times() at the end:
 * folders that no tar names get the epoch. */
int layer_apply(const char *archive, const char *root, bool whiteouts, json_t *folder_times);
int layer_settle_times(const char *root, json_t *folder_times);

/* A tar in any compression; what is compressed and no tar is ARCHIVE_FORMAT_RAW. archive_read_free() ends
 * it. */
struct archive;
int tar_open(const char *path, struct archive **ret_tar);

/* openat2(2): absolute names and links stay below `root`. A descriptor or -errno, without a message. */
int open_in_root(int root, const char *path, int flags);

/* Makes the file `raw` of a disk in `format` (disk_format()). */
int disk_convert(const char *path, const char *format, const char *raw);

/* Makes the file `raw` of a compressed disk, unless it is a tar. */
int disk_uncompress(const char *path, const char *raw, bool *ret_is_tar);

/* Removes a directory tree, not following symbolic links. */
int remove_tree(int directory, const char *path);

/* The same for everything in an open directory, which stays; `name` is for messages. A descriptor of -1 fails
 * with errno. */
int remove_contents(int directory, const char *name);
