#include "store/cmd/cmd.h"
#include "store/disk_format.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

/* What makes a file system the same each time: its identities and every time that is not a file's own. */
#define FS_UUID     "57e11a12-0000-4000-8000-000000000001"
#define FS_EXTENDED "hash_seed=57e11a12-0000-4000-8000-000000000002,lazy_itable_init=0,nodiscard"
#define FS_TIME     "1"

/* Room beyond what the files take and a quarter of that: inode tables, bitmaps, directories' slack, and some
 * to work in. */
#define ROOM_BYTES       (32 * MIB)
#define INODE_TREE_BYTES 4608 /* an inode of 256 bytes, its directory entry, and rounding up to a block */

/* A file of the work directory, whose own name leaves room for it. */
static void work_path(char path[4096], const char *work, const char *name)
{
    CHECK(snprintf(path, 4096, "%s/%s", work, name) < 4096);
}

static _Thread_local uint64_t tree_bytes, tree_files; /* nftw() has no argument of its own */

static int add_size(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)path, (void)type, (void)where;
    tree_bytes += (uint64_t)MAX(status->st_size, (off_t)0) + INODE_TREE_BYTES;
    tree_files++;
    return 0;
}

static int measure_tree(const char *directory, uint64_t *ret_bytes, uint64_t *ret_files)
{
    tree_bytes = tree_files = 0;
    if (nftw(directory, add_size, 64, FTW_PHYS) != 0)
        return fail_errno(errno ? -errno : -EIO, "%s: cannot be walked", directory);
    *ret_bytes = align_up(tree_bytes / 4 * 5 + ROOM_BYTES, STORE_OBJECT_BYTES);
    *ret_files = tree_files;
    return 0;
}

/* mke2fs takes over the times of access and change of the files it copies, which are those of our unpacking.
 * Inodes are given out one after another, so those in use are the first ones. */
static int settle_times(const char *image, const char *script, const struct stat *top)
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
    fprintf(file, "sif <2> mode 0%o\n", (unsigned)top->st_mode);
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

/* mke2fs gives an inode to each 16 KiB, or as many as are asked for: a quarter more than there are files. */
static int make_file_system(const char *directory, uint64_t bytes, uint64_t files, const char *work,
                            int *ret_fd)
{
    char image[4096], script[4096], size[32], inodes[32], extended[200];
    struct stat top;
    if (stat(directory, &top) < 0)
        return fail_errno(-errno, "%s", directory);
    work_path(image, work, "image");
    work_path(script, work, "script");
    snprintf(size, sizeof(size), "%lluK", (unsigned long long)(bytes / KIB));
    snprintf(inodes, sizeof(inodes), "%llu",
             (unsigned long long)MAX(files / 4 * 5 + 1024, bytes / (16 * KIB)));
    snprintf(extended, sizeof(extended), FS_EXTENDED ",root_owner=%u:%u", top.st_uid, top.st_gid);
    CLEANUP_FD int fd = open(image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
        return fail_errno(-errno, "%s", image);
    setenv("E2FSPROGS_FAKE_TIME", FS_TIME, 1);
    const char *const make[] = {
        "mke2fs", "-q", "-F",     "-t", "ext4", "-b", "4096",          "-m",  "0",  "-d", directory, "-U",
        FS_UUID,  "-E", extended, "-N", inodes, "-O", "^resize_inode", image, size, NULL};
    int r = run_tool(make, "e2fsprogs", NULL);
    if (r == 0)
        r = settle_times(image, script, &top);
    if (r == 0)
        *ret_fd = fd_steal(&fd);
    return r;
}

/* A work directory's tree for the file system, from an archive that was unpacked to `unpacked`. */
static int unpack_archive(const char *archive, const char *work, const struct oci_choice *choice,
                          json_t *folder_times, const char **ret_kind, char tree[4096])
{
    char root[4096];
    work_path(tree, work, "unpacked");
    if (mkdir(tree, 0755) < 0)
        return fail_errno(-errno, "%s", tree);
    int r = layer_apply(archive, tree, false, folder_times);
    if (r < 0 || !oci_is_image(tree)) {
        *ret_kind = "tar";
        return r;
    }
    *ret_kind = "OCI archive";
    work_path(root, work, "root");
    json_object_clear(folder_times);
    r = oci_unpack(tree, root, choice, folder_times);
    snprintf(tree, 4096, "%s", root);
    return r;
}

static int check_owner(const char *path)
{
    if (geteuid() != 0 && !getenv("FAKEROOTKEY"))
        return fail(-EPERM, "%s: its files' owners can only be kept by root (or run this under fakeroot)",
                    path);
    return 0;
}

/* The folder that becomes a file system: made of an archive or an OCI image, or `path` itself. */
static int make_tree(const char *path, bool directory, const char *work, const struct oci_choice *choice,
                     const char **ret_kind, char tree[4096])
{
    if (directory && !oci_is_image(path)) {
        *ret_kind = "directory";
        snprintf(tree, 4096, "%s", path);
        return 0;
    }
    json_t *folder_times = json_object();
    int r = folder_times ? check_owner(path) : fail(-ENOMEM, "%s: no memory for its names", path);
    if (r == 0 && directory) {
        *ret_kind = "OCI layout";
        work_path(tree, work, "root");
        r = oci_unpack(path, tree, choice, folder_times);
    } else if (r == 0) {
        r = unpack_archive(path, work, choice, folder_times, ret_kind, tree);
    }
    if (r == 0)
        r = layer_settle_times(tree, folder_times);
    json_decref(folder_times);
    return r;
}

/* A raw disk of one in another format, in the work folder. */
static int open_made_raw(const char *raw, const char *kind, struct prepared *prepared)
{
    struct stat status;
    CLEANUP_FD int fd = open(raw, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", raw);
    prepared->kind = kind;
    prepared->bytes = (uint64_t)status.st_size;
    prepared->fd = fd_steal(&fd);
    return 0;
}

enum source_kind { SOURCE_FOLDER, SOURCE_ARCHIVE, SOURCE_FORMAT };

static int prepare_in(const char *work, enum source_kind kind, const char *format, const struct call *call,
                      struct prepared *prepared)
{
    const char *path = call->arguments[0];
    const struct oci_choice choice = {.image = call->image, .platform = call->platform};
    char raw[4096], tree[4096];
    bool is_tar = true;
    work_path(raw, work, "raw");
    int r = 0;
    if (kind == SOURCE_FORMAT) {
        r = disk_convert(path, format, raw);
        return r < 0 ? r : open_made_raw(raw, format, prepared);
    }
    if (kind == SOURCE_ARCHIVE)
        r = disk_uncompress(path, raw, &is_tar);
    if (r == 0 && !is_tar)
        return open_made_raw(raw, "compressed image", prepared);
    uint64_t bytes = 0, files = 0;
    if (r == 0)
        r = make_tree(path, kind == SOURCE_FOLDER, work, &choice, &prepared->kind, tree);
    if (r == 0)
        r = measure_tree(tree, &bytes, &files);
    prepared->bytes = call->size ? call->size : bytes;
    return r < 0 ? r : make_file_system(tree, prepared->bytes, files, work, &prepared->fd);
}

/* ---- The work folder ---- */

#define WORK_NAME        "stellarium.XXXXXX"
#define WORK_MIN_SECONDS 10 /* between making a folder and locking it */

/* Removes what imports that were killed have left: folders of ours that no process holds. */
static void sweep_work(const char *temporary)
{
    DIR *folder = opendir(temporary);
    struct stat status;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (strlen(entry->d_name) != strlen(WORK_NAME) || strncmp(entry->d_name, WORK_NAME, 11) != 0)
            continue;
        CLEANUP_FD int fd =
            openat(dirfd(folder), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
            status.st_mtime + WORK_MIN_SECONDS < time(NULL) && flock(fd, LOCK_EX | LOCK_NB) == 0)
            remove_tree(dirfd(folder), entry->d_name);
    }
    if (folder)
        closedir(folder);
}

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    interrupted = number;
}

/* Ends the work by the first signal, and the process by the second. One that is ignored stays so. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND}, was;
        if (sigaction(numbers[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
            sigaction(numbers[i], &action, NULL);
    }
}

static int prepare_by_work(enum source_kind kind, const char *format, const struct call *call,
                           struct prepared *prepared)
{
    char work[4096], words[400];
    const char *temporary = getenv("TMPDIR");
    if (!temporary || !*temporary)
        temporary = "/var/tmp";
    sweep_work(temporary);
    catch_signals();
    snprintf(work, sizeof(work) - 32, "%s/" WORK_NAME, temporary);
    if (!mkdtemp(work))
        return fail_errno(-errno, "%s", work);
    CLEANUP_FD int lock = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = lock < 0 || flock(lock, LOCK_EX) < 0 ? fail_errno(-errno, "%s", work) : 0;
    if (r == 0)
        r = prepare_in(work, kind, format, call, prepared);
    snprintf(words, sizeof(words), "%s", fail_text());
    int removed = remove_tree(AT_FDCWD, work);
    if (interrupted)
        raise(interrupted);
    return r < 0 ? fail(r, "%s", words) : removed;
}

/* A tar as Unix version 7 wrote it has no magic: the sum of its header's bytes stands in it. */
static bool has_tar_sum(const unsigned char head[512])
{
    unsigned sum = 8 * ' ';
    for (unsigned i = 0; i < 512; i++)
        sum += i >= 148 && i < 156 ? 0 : head[i];
    char text[9] = {0};
    memcpy(text, head + 148, 8);
    return head[0] != '\0' && strspn(text, " 01234567") >= 6 && strtoul(text, NULL, 8) == sum;
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
    unsigned char head[512] = {0};
    if (pread(fd, head, sizeof(head), 0) <= 0)
        return false;
    for (unsigned i = 0; i < ARRAY_SIZE(magics); i++)
        if (memcmp(head + magics[i].at, magics[i].magic, magics[i].length) == 0)
            return true;
    return has_tar_sum(head);
}

static int check_disk(const char *path, const struct prepared *prepared)
{
    if (prepared->bytes == 0 || prepared->bytes % 512 != 0)
        return fail(-EINVAL, "%s: %llu bytes are not a disk, which has a multiple of 512 (is it truncated?)",
                    path, (unsigned long long)prepared->bytes);
    return 0;
}

int source_prepare(const struct call *call, struct prepared *ret_prepared)
{
    const char *path = call->arguments[0];
    struct prepared prepared = {.fd = -1};
    struct stat status;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        return fail_errno(-errno, "%s", path);
    const char *format = S_ISREG(status.st_mode) ? disk_format(fd) : NULL;
    bool archive = S_ISREG(status.st_mode) && !format && is_archive(fd);
    if (S_ISDIR(status.st_mode) || archive || format) {
        enum source_kind kind = archive ? SOURCE_ARCHIVE : format ? SOURCE_FORMAT : SOURCE_FOLDER;
        int r = prepare_by_work(kind, format, call, &prepared);
        if (r == 0)
            r = check_disk(path, &prepared);
        if (r == 0)
            *ret_prepared = prepared;
        else
            cleanup_fd(&prepared.fd);
        return r;
    }
    if (call->size != 0)
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
    int r = check_disk(path, &prepared);
    if (r < 0)
        return r;
    prepared.fd = fd_steal(&fd);
    *ret_prepared = prepared;
    return 0;
}
