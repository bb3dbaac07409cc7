/*
 * A layer: a tar in any compression, put onto the tree of the layers below it as containerd does (its
 * archive/tar.go). What the layer removes or replaces is taken away first, by the names as they stand in the
 * tar, whatever bytes they have; then bsdtar unpacks it.
 */
#include "store/cmd/cmd.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define NAME_SIZE 4096

int open_in_root(int root, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .resolve = (uint64_t)(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

int tar_open(const char *path, struct archive **ret_tar)
{
    struct archive *tar = archive_read_new();
    if (!tar)
        return fail(-ENOMEM, "%s: no memory to read it", path);
    archive_read_support_filter_gzip(tar);
    archive_read_support_filter_bzip2(tar);
    archive_read_support_filter_xz(tar);
    archive_read_support_filter_zstd(tar);
    archive_read_support_filter_lz4(tar);
    archive_read_support_format_tar(tar);
    archive_read_support_format_raw(tar); /* of a compressed file that is no tar */
    if (archive_read_open_filename(tar, path, MIB) == ARCHIVE_OK) {
        *ret_tar = tar;
        return 0;
    }
    int r = fail(-EBADMSG, "%s: %s", path, archive_error_string(tar));
    archive_read_free(tar);
    return r;
}

/* `name` relative to the root, without slashes at its end; "" is the root. */
static int clean_name(const char *archive, const char *name, char cleaned[NAME_SIZE])
{
    size_t length = 0;
    for (const char *at = name ? name : ""; *at;) {
        at += strspn(at, "/");
        size_t part = strcspn(at, "/");
        if (part == 2 && memcmp(at, "..", 2) == 0)
            return fail(-EINVAL, "%s: '%s' leads out of it", archive, name);
        bool counts = part > 0 && !(part == 1 && *at == '.');
        if (counts && length + part + 2 > NAME_SIZE)
            return fail(-ENAMETOOLONG, "%s: a name is longer than %d bytes", archive, NAME_SIZE - 1);
        if (counts) {
            if (length)
                cleaned[length++] = '/';
            memcpy(cleaned + length, at, part);
            length += part;
        }
        at += part;
    }
    cleaned[length] = '\0';
    return 0;
}

/* The folder of `path` below `root`, and the last part of its name. -errno without a message. */
static int open_folder(int root, const char *path, const char **ret_last)
{
    char folder[NAME_SIZE];
    const char *slash = strrchr(path, '/');
    *ret_last = slash ? slash + 1 : path;
    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return open_in_root(root, folder, O_RDONLY | O_DIRECTORY);
}

static int remove_below(int root, const char *path)
{
    const char *last = NULL;
    CLEANUP_FD int folder = open_folder(root, path, &last);
    if (folder < 0)
        return folder == -ENOENT || folder == -ENOTDIR ? 0 : fail_errno(folder, "%s", path);
    struct stat status;
    return fstatat(folder, last, &status, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : remove_tree(folder, last);
}

/* .wh.NAME removes NAME of the layers below, .wh..wh..opq all that they have in its folder. */
static int apply_whiteout(const char *archive, int root, const char *path)
{
    const char *last = NULL;
    CLEANUP_FD int folder = open_folder(root, path, &last);
    if (folder < 0)
        return folder == -ENOENT || folder == -ENOTDIR ? 0
                                                       : fail_errno(folder, "%s: whiteout %s", archive, path);
    if (strcmp(last, ".wh..wh..opq") == 0)
        return remove_contents(folder, path);
    if (strncmp(last, ".wh.", 4) != 0)
        return 0;
    const char *victim = last + 4;
    struct stat status;
    if (strncmp(victim, ".wh.", 4) == 0) /* aufs' own files, which remove nothing */
        return 0;
    if (!*victim || strcmp(victim, ".") == 0 || strcmp(victim, "..") == 0)
        return fail(-EBADMSG, "%s: '%s' is not a whiteout", archive, path);
    return fstatat(folder, victim, &status, AT_SYMLINK_NOFOLLOW) < 0 ? 0 : remove_tree(folder, victim);
}

/* Takes away what stands where `path` comes: a file where a folder is needed, and all but a folder that meets
 * a folder. */
static int make_way(int root, const char *path, bool folder)
{
    char prefix[NAME_SIZE];
    const char *last = NULL;
    struct stat status;
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(prefix, sizeof(prefix), "%.*s", (int)(slash - path), path);
        CLEANUP_FD int fd = open_in_root(root, prefix, O_PATH | O_DIRECTORY);
        if (fd == -ENOTDIR)
            return remove_below(root, prefix);
        if (fd < 0)
            return 0; /* it comes with the layer */
    }
    CLEANUP_FD int parent = open_folder(root, path, &last);
    if (parent < 0 || fstatat(parent, last, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    return S_ISDIR(status.st_mode) && folder ? 0 : remove_tree(parent, last);
}

/* Of the layer that comes: what it removes, before anything of it is there, wherever that stands in the
 * tar. */
static int prepare_entry(const char *archive, int root, struct archive_entry *entry, bool whiteouts,
                         json_t *folder_times)
{
    char path[NAME_SIZE] = "";
    int r = clean_name(archive, archive_entry_pathname(entry), path);
    if (r < 0)
        return r;
    bool folder = archive_entry_filetype(entry) == AE_IFDIR && !archive_entry_hardlink(entry);
    const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
    if (folder &&
        json_object_set_new_nocheck(folder_times, path, json_integer(archive_entry_mtime(entry))) < 0)
        return fail(-ENOMEM, "%s: no memory for its names", archive);
    if (whiteouts && strncmp(last, ".wh.", 4) == 0)
        return apply_whiteout(archive, root, path);
    return path[0] ? make_way(root, path, folder) : 0;
}

static int prepare(const char *archive, int root, bool whiteouts, json_t *folder_times)
{
    struct archive *tar = NULL;
    struct archive_entry *entry;
    int r = tar_open(archive, &tar), next = ARCHIVE_OK;
    if (r < 0)
        return r;
    /* A warning is of a name that is not in this locale: it comes as it stands. */
    while (r == 0 && ((next = archive_read_next_header(tar, &entry)) == ARCHIVE_OK || next == ARCHIVE_WARN))
        r = archive_format(tar) == ARCHIVE_FORMAT_RAW
                ? fail(-EBADMSG, "%s: not a tar (is it damaged?)", archive)
                : prepare_entry(archive, root, entry, whiteouts, folder_times);
    if (r == 0 && next != ARCHIVE_EOF)
        r = fail(-EBADMSG, "%s: %s (is it damaged?)", archive, archive_error_string(tar));
    archive_read_free(tar);
    return r;
}

int layer_apply(const char *archive, const char *root_path, bool whiteouts, json_t *folder_times)
{
    CLEANUP_FD int root = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail_errno(-errno, "%s", root_path);
    int r = prepare(archive, root, whiteouts, folder_times);
    if (r < 0)
        return r;
    setenv("LC_ALL", "C.UTF-8", 1); /* bsdtar refuses names that are not in its locale */
    /* Root unpacks in a root of its own: links of the layers below lead on inside of it. Under fakeroot
     * bsdtar writes through no link. */
    const char *const inside = geteuid() == 0 && !getenv("FAKEROOTKEY") ? "--chroot" : "--numeric-owner";
    const char *const through = inside[2] == 'c' ? "-P" : "-p";
    const char *const layer[] = {"bsdtar",
                                 "-x",
                                 "-p",
                                 "--numeric-owner",
                                 inside,
                                 through,
                                 "-C",
                                 root_path,
                                 "-f",
                                 archive,
                                 whiteouts ? "--exclude" : NULL,
                                 ".wh.*",
                                 NULL};
    return run_tool(layer, "libarchive-tools", NULL);
}

/* ---- The times of folders, which each layer's files change ---- */

static _Thread_local json_t *settled_times; /* nftw() has no argument of its own */
static _Thread_local size_t settled_root;

static int settle(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)where;
    if (type != FTW_D && type != FTW_DP && type != FTW_DNR)
        return 0;
    const char *name = path[settled_root] ? path + settled_root + 1 : "";
    const json_t *known = json_object_get(settled_times, name);
    const struct timespec time = {.tv_sec = known ? (time_t)json_integer_value(known) : 0};
    const struct timespec times[2] = {time, time};
    return utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

int layer_settle_times(const char *root, json_t *folder_times)
{
    settled_times = folder_times;
    settled_root = strlen(root);
    return nftw(root, settle, 64, FTW_PHYS | FTW_DEPTH) == 0 ? 0 : fail_errno(-errno, "%s", root);
}
