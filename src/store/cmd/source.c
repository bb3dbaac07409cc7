#include "store/cmd/cmd.h"

#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

/* What makes a file system the same each time: its identities and every time that is not a file's own. */
#define FS_UUID "57e11a12-0000-4000-8000-000000000001"
#define FS_EXTENDED                                                                                          \
    "hash_seed=57e11a12-0000-4000-8000-000000000002,lazy_itable_init=0,nodiscard,root_owner=0:0"
#define FS_TIME "1"

/* Room beyond what the files take and a quarter of that: inode tables, bitmaps, directories' slack, and some
 * to work in. */
#define ROOM_BYTES       (32 * MIB)
#define INODE_TREE_BYTES 4608 /* an inode of 256 bytes, its directory entry, and rounding up to a block */

/* A file of the work directory, whose own name leaves room for it. */
static void work_path(char path[4096], const char *work, const char *name)
{
    CHECK(snprintf(path, 4096, "%s/%s", work, name) < 4096);
}

static _Thread_local uint64_t tree_bytes; /* nftw() has no argument of its own */

static int add_size(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)path, (void)type, (void)where;
    tree_bytes += (uint64_t)MAX(status->st_size, (off_t)0) + INODE_TREE_BYTES;
    return 0;
}

static int file_system_size(const char *directory, uint64_t *ret_bytes)
{
    tree_bytes = 0;
    if (nftw(directory, add_size, 64, FTW_PHYS) != 0)
        return fail_errno(errno ? -errno : -EIO, "%s: cannot be walked", directory);
    *ret_bytes = align_up(tree_bytes / 4 * 5 + ROOM_BYTES, STORE_OBJECT_BYTES);
    return 0;
}

/* mke2fs takes over the times of access and change of the files it copies, which are those of our unpacking.
 * Inodes are given out one after another, so those in use are the first ones. */
static int settle_times(const char *image, const char *script)
{
    const char *const superblock[] = {"dumpe2fs", "-h", image, NULL};
    CLEANUP_FREE char *text = NULL;
    unsigned long total = 0, unused = 0;
    int r = run_tool(superblock, "e2fsprogs", &text);
    if (r < 0)
        return r;
    const char *at = strstr(text, "Inode count:"), *free_at = strstr(text, "Free inodes:");
    if (!at || !free_at || sscanf(at, "Inode count: %lu", &total) != 1 ||
        sscanf(free_at, "Free inodes: %lu", &unused) != 1 || unused > total)
        return fail(-EIO, "dumpe2fs: its output is not understood");
    FILE *file = fopen(script, "we");
    if (!file)
        return fail_errno(-errno, "%s", script);
    for (unsigned long inode = 2; inode <= total - unused;
         inode += inode == 2 ? 9 : 1) /* 3 to 10 are reserved */
        fprintf(file,
                "sif <%lu> atime @" FS_TIME "\nsif <%lu> ctime @" FS_TIME
                "\nsif <%lu> atime_extra 0\nsif <%lu> ctime_extra 0\n",
                inode, inode, inode, inode);
    if (fclose(file) != 0)
        return fail_errno(-errno, "%s", script);
    const char *const settle[] = {"debugfs", "-w", "-f", script, image, NULL};
    CLEANUP_FREE char *output = NULL;
    return run_tool(settle, "e2fsprogs", &output);
}

static int make_file_system(const char *directory, uint64_t bytes, const char *work, int *ret_fd)
{
    char image[4096], script[4096], size[32];
    work_path(image, work, "image");
    work_path(script, work, "script");
    snprintf(size, sizeof(size), "%lluK", (unsigned long long)(bytes / KIB));
    CLEANUP_FD int fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return fail_errno(-errno, "%s", image);
    setenv("E2FSPROGS_FAKE_TIME", FS_TIME, 1);
    const char *const make[] = {
        "mke2fs",  "-q", "-F",    "-t", "ext4",      "-b", "4096",          "-m",  "0",  "-d",
        directory, "-U", FS_UUID, "-E", FS_EXTENDED, "-O", "^resize_inode", image, size, NULL};
    int r = run_tool(make, "e2fsprogs", NULL);
    if (r == 0)
        r = settle_times(image, script);
    if (r == 0)
        *ret_fd = fd_steal(&fd);
    return r;
}

static int unpack_tar(const char *archive, const char *root)
{
    /* bsdtar refuses names with .. and writing through symbolic links, whatever the archive says. */
    const char *const unpack[] = {"bsdtar", "-x", "-p", "--numeric-owner", "-f", archive, "-C", root, NULL};
    return run_tool(unpack, "libarchive-tools", NULL);
}

static bool is_oci_layout(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/index.json", directory);
    if (access(path, F_OK) == 0)
        return true;
    snprintf(path, sizeof(path), "%s/manifest.json", directory);
    return access(path, F_OK) == 0;
}

/* A work directory's tree for the file system, from an archive that was unpacked to `unpacked`. */
static int unpack_archive(const char *archive, const char *work, const char **ret_kind, char *tree,
                          size_t size)
{
    char root[4096];
    work_path(tree, work, "unpacked");
    if (mkdir(tree, 0755) < 0)
        return fail_errno(-errno, "%s", tree);
    int r = unpack_tar(archive, tree);
    if (r < 0 || !is_oci_layout(tree)) {
        *ret_kind = "tar";
        return r;
    }
    *ret_kind = "OCI archive";
    work_path(root, work, "root");
    r = oci_unpack(tree, root);
    snprintf(tree, size, "%s", root);
    return r;
}

static int check_owner(const char *path)
{
    if (geteuid() != 0 && !getenv("FAKEROOTKEY"))
        return fail(-EPERM, "%s: its files' owners can only be kept by root (or run this under fakeroot)",
                    path);
    return 0;
}

static int prepare_tree(const char *path, bool directory, uint64_t size, struct prepared *prepared)
{
    char work[4096], tree[4096], root[4096];
    const char *temporary = getenv("TMPDIR");
    snprintf(work, sizeof(work) - 32, "%s/stellarium.XXXXXX",
             temporary && *temporary ? temporary : "/var/tmp");
    if (!mkdtemp(work))
        return fail_errno(-errno, "%s", work);
    int r = 0;
    if (!directory) {
        r = check_owner(path);
        if (r == 0)
            r = unpack_archive(path, work, &prepared->kind, tree, sizeof(tree));
    } else if (is_oci_layout(path)) {
        prepared->kind = "OCI layout";
        work_path(root, work, "root");
        snprintf(tree, sizeof(tree), "%s", root);
        r = check_owner(path);
        if (r == 0)
            r = oci_unpack(path, root);
    } else {
        prepared->kind = "directory";
        snprintf(tree, sizeof(tree), "%s", path);
    }
    if (r == 0 && size == 0)
        r = file_system_size(tree, &size);
    if (r == 0)
        r = make_file_system(tree, size, work, &prepared->fd);
    prepared->bytes = size;
    char words[400];
    snprintf(words, sizeof(words), "%s", fail_text());
    int removed = remove_tree(AT_FDCWD, work);
    if (r < 0)
        return fail(r, "%s", words);
    return removed;
}

/* A tar has "ustar" at byte 257 of its first header; a compressed one begins as its compressor's files do. */
static bool is_archive(int fd)
{
    static const struct {
        unsigned at, length;
        const char *magic;
    } magics[] = {{257, 5, "ustar"},
                  {0, 2, "\x1f\x8b"},
                  {0, 6,
                   "\xfd"
                   "7zXZ\0"},
                  {0, 4, "\x28\xb5\x2f\xfd"},
                  {0, 3, "BZh"}};
    char head[512] = {0};
    if (pread(fd, head, sizeof(head), 0) <= 0)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(magics); i++)
        if (memcmp(head + magics[i].at, magics[i].magic, magics[i].length) == 0)
            return true;
    return false;
}

int source_prepare(const char *path, uint64_t size, struct prepared *ret_prepared)
{
    struct prepared prepared = {.fd = -1};
    struct stat status;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", path);
    bool archive = S_ISREG(status.st_mode) && is_archive(fd);
    if (S_ISDIR(status.st_mode) || archive) {
        int r = prepare_tree(path, !archive, size, &prepared);
        if (r == 0)
            *ret_prepared = prepared;
        return r;
    }
    if (size != 0)
        return fail(-EINVAL, "--size is for a tar, a directory or an OCI image; %s has its own", path);
    if (S_ISBLK(status.st_mode)) {
        prepared.kind = "block device";
        if (ioctl(fd, BLKGETSIZE64, &prepared.bytes) < 0)
            return fail_errno(-errno, "%s", path);
    } else if (S_ISREG(status.st_mode)) {
        prepared.kind = "raw image";
        prepared.file = true;
        prepared.bytes = (uint64_t)status.st_size;
    } else {
        return fail(-EINVAL, "%s: neither a file, a block device nor a directory", path);
    }
    if (prepared.bytes == 0 || prepared.bytes % 512 != 0)
        return fail(-EINVAL, "%s: %llu bytes are not a disk, which has a multiple of 512 (is it truncated?)",
                    path, (unsigned long long)prepared.bytes);
    prepared.fd = fd_steal(&fd);
    *ret_prepared = prepared;
    return 0;
}
