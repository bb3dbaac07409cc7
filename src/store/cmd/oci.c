/*
 * OCI images: https://github.com/opencontainers/image-spec, image-layout.md and layer.md. index.json names
 * manifests (or indexes of them, for several machines), a manifest names layers, a layer is a tar. In a
 * layer, an empty file .wh.NAME removes NAME of the layers below, and .wh..wh..opq everything of them in its
 * directory.
 */
#include "store/cmd/cmd.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DEPTH_MAX 4 /* of indexes in indexes */

/* Reads a blob by its digest, having compared it; only files below the layout are opened. */
static int open_below(int directory, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
                           .resolve =
                               (uint64_t)(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)};
    long fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

static int check_digest(int fd, const char *hexadecimal, const char *path)
{
    struct object_hasher *hasher = NULL;
    struct object_id digest;
    char text[OBJECT_ID_TEXT];
    CLEANUP_FREE char *buffer = malloc(MIB);
    int r = buffer ? object_hasher_begin(&hasher) : fail(-ENOMEM, "%s: no memory to read it", path);
    if (r < 0)
        return r;
    ssize_t n;
    off_t at = 0;
    while ((n = pread(fd, buffer, MIB, at)) > 0) {
        object_hasher_update(hasher, buffer, (size_t)n);
        at += n;
    }
    r = n < 0 ? fail_errno(-errno, "%s", path) : 0;
    object_hasher_end(hasher, &digest);
    if (r == 0 && strcmp(object_id_text(&digest, text), hexadecimal) != 0)
        r = fail(-EBADMSG, "%s: does not match its digest", path);
    return r;
}

/* The path of a blob in the layout, checked. */
static int find_blob(int layout, const char *digest, char path[128])
{
    if (!digest || strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != 7 + 64 ||
        strspn(digest + 7, "0123456789abcdef") != 64)
        return fail(-EBADMSG, "OCI image: '%.80s' is not a sha256 digest", digest ? digest : "");
    snprintf(path, 128, "blobs/sha256/%s", digest + 7);
    CLEANUP_FD int fd = open_below(layout, path, O_RDONLY);
    if (fd < 0)
        return fail_errno(fd, "OCI image: %s", path);
    return check_digest(fd, digest + 7, path);
}

static int load_json(int layout, const char *path, json_t **ret_json)
{
    json_error_t error;
    CLEANUP_FD int fd = open_below(layout, path, O_RDONLY);
    if (fd < 0)
        return fail_errno(fd, "OCI image: %s", path);
    json_t *json = json_loadfd(fd, 0, &error);
    if (!json)
        return fail(-EBADMSG, "OCI image: %s: line %d: %s", path, error.line, error.text);
    *ret_json = json;
    return 0;
}

/* Of an index's manifests: the one for this machine, else the first. Borrowed. */
static const char *choose(json_t *manifests)
{
    size_t i;
    json_t *entry;
    json_array_foreach(manifests, i, entry)
    {
        const char *architecture = NULL, *system = NULL, *digest = NULL;
        if (json_unpack(entry, "{s:s, s:{s:s, s:s}}", "digest", &digest, "platform", "architecture",
                        &architecture, "os", &system) == 0 &&
            strcmp(architecture, "amd64") == 0 && strcmp(system, "linux") == 0)
            return digest;
    }
    return json_string_value(json_object_get(json_array_get(manifests, 0), "digest"));
}

static int apply_whiteout(int root, const char *name)
{
    char directory[4096];
    const char *slash = strrchr(name, '/'), *last = slash ? slash + 1 : name;
    if (strncmp(last, ".wh.", 4) != 0)
        return 0;
    snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - name) : 1, slash ? name : ".");
    CLEANUP_FD int fd = open_below(root, directory, O_RDONLY | O_DIRECTORY);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return fail_errno(fd, "OCI image: whiteout %s", name);
    if (strcmp(last, ".wh..wh..opq") != 0) {
        const char *victim = last + 4;
        if (!*victim || strcmp(victim, ".") == 0 || strcmp(victim, "..") == 0)
            return fail(-EBADMSG, "OCI image: '%s' is not a whiteout", name);
        return remove_tree(fd, victim);
    }
    return remove_contents(fd, name);
}

/* Whiteouts first: they are about the layers below only, wherever in the tar they stand. */
static int apply_layer(const char *path, const char *root_path)
{
    const char *const list[] = {"bsdtar", "-t", "-f", path, NULL};
    const char *const unpack[] = {"bsdtar", "-x", "-p", "--numeric-owner", "--exclude", ".wh.*",
                                  "-f",     path, "-C", root_path,         NULL};
    CLEANUP_FREE char *names = NULL;
    CLEANUP_FD int root = open(root_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail_errno(-errno, "%s", root_path);
    int r = run_tool(list, "libarchive-tools", &names);
    char *rest = names;
    for (char *name; r == 0 && (name = strsep(&rest, "\n"));) {
        size_t length = strlen(name);
        while (length > 0 && name[length - 1] == '/')
            name[--length] = '\0';
        while (name[0] == '/' || (name[0] == '.' && name[1] == '/'))
            name++;
        r = apply_whiteout(root, name);
    }
    return r < 0 ? r : run_tool(unpack, "libarchive-tools", NULL);
}

/* From a manifest's digest, through indexes, to layers. */
static int unpack_manifest(int layout, const char *layout_path, const char *digest, const char *root,
                           unsigned depth)
{
    char path[128], full[4096];
    json_t *json = NULL;
    int r = find_blob(layout, digest, path);
    if (r == 0)
        r = load_json(layout, path, &json);
    if (r < 0)
        return r;
    json_t *nested = json_object_get(json, "manifests"), *layers = json_object_get(json, "layers"), *layer;
    size_t i;
    if (json_is_array(nested))
        r = depth < DEPTH_MAX ? unpack_manifest(layout, layout_path, choose(nested), root, depth + 1)
                              : fail(-EBADMSG, "OCI image: indexes in indexes, more than %d deep", DEPTH_MAX);
    else if (!json_is_array(layers))
        r = fail(-EBADMSG, "OCI image: %s has no layers", path);
    else
        json_array_foreach(layers, i, layer)
        {
            r = find_blob(layout, json_string_value(json_object_get(layer, "digest")), path);
            if (r < 0)
                break;
            snprintf(full, sizeof(full), "%s/%s", layout_path, path);
            r = apply_layer(full, root);
            if (r < 0)
                break;
        }
    json_decref(json);
    return r;
}

/* docker save before version 25: manifest.json with paths of layers, and no digests. */
static int unpack_docker(int layout, const char *layout_path, const char *root)
{
    json_t *json = NULL, *layer;
    char full[4096];
    size_t i;
    int r = load_json(layout, "manifest.json", &json);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(json_array_get(json, 0), "Layers"), i, layer)
    {
        const char *path = json_string_value(layer);
        CLEANUP_FD int fd = path ? open_below(layout, path, O_RDONLY) : -EBADMSG;
        if (fd < 0) {
            r = fail_errno(fd, "manifest.json: layer '%s'", path ? path : "");
            break;
        }
        snprintf(full, sizeof(full), "%s/%s", layout_path, path);
        r = apply_layer(full, root);
        if (r < 0)
            break;
    }
    json_decref(json);
    return r;
}

int oci_unpack(const char *layout_path, const char *root)
{
    CLEANUP_FD int layout = open(layout_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    json_t *index = NULL;
    if (layout < 0 || mkdir(root, 0755) < 0)
        return fail_errno(-errno, "%s", layout < 0 ? layout_path : root);
    if (faccessat(layout, "index.json", F_OK, 0) != 0)
        return unpack_docker(layout, layout_path, root);
    int r = load_json(layout, "index.json", &index);
    if (r < 0)
        return r;
    json_t *manifests = json_object_get(index, "manifests");
    if (json_array_size(manifests) == 0)
        r = fail(-EBADMSG, "%s/index.json: names no image", layout_path);
    else
        r = unpack_manifest(layout, layout_path, choose(manifests), root, 0);
    json_decref(index);
    return r;
}
