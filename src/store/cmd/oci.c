/*
 * OCI images: https://github.com/opencontainers/image-spec, image-layout.md and layer.md. index.json names
 * manifests (or indexes of them, for several machines), a manifest names layers, a layer is a tar. In a
 * layer, an empty file .wh.NAME removes NAME of the layers below, and .wh..wh..opq everything of them in its
 * directory.
 */
#include "store/cmd/cmd.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DEPTH_MAX 4          /* of indexes in indexes */
#define JSON_MAX  (16 * MIB) /* registries take manifests of 4 MiB */
#define WORDS_MAX 300

/* A file of the layout; links stay inside of it, as in what docker save wrote before version 25. */
static int open_blob(int layout, const char *path, struct stat *ret_status)
{
    CLEANUP_FD int fd = open_in_root(layout, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fail_errno(fd, "OCI image: %s", path);
    if (fstat(fd, ret_status) < 0)
        return fail_errno(-errno, "OCI image: %s", path);
    if (!S_ISREG(ret_status->st_mode))
        return fail(-EBADMSG, "OCI image: %s: not a file", path);
    return fd_steal(&fd);
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
    struct stat status = {0};
    CLEANUP_FD int fd = open_blob(layout, path, &status);
    return fd < 0 ? fd : check_digest(fd, digest + 7, path);
}

static int load_json(int layout, const char *path, json_t **ret_json)
{
    json_error_t error;
    struct stat status = {0};
    CLEANUP_FD int fd = open_blob(layout, path, &status);
    if (fd < 0)
        return fd;
    if (status.st_size > (off_t)JSON_MAX)
        return fail(-EBADMSG, "OCI image: %s: longer than a manifest can be", path);
    json_t *json = json_loadfd(fd, 0, &error);
    if (!json)
        return fail(-EBADMSG, "OCI image: %s: line %d: %s", path, error.line, error.text);
    *ret_json = json;
    return 0;
}

/* ---- Which image ---- */

static void add_word(char words[WORDS_MAX], const char *word)
{
    size_t length = strlen(words);
    snprintf(words + length, WORDS_MAX - length, "%s%s", length ? ", " : "", word);
}

static const char *wanted_platform(const struct oci_choice *choice)
{
    return choice->platform ? choice->platform : "linux/amd64";
}

/* Whether an entry of an index is for another machine; those of unknown ones are no images (attestations). */
static bool is_foreign(const json_t *entry, const struct oci_choice *choice, char words[WORDS_MAX])
{
    const char *architecture = NULL, *system = NULL;
    char platform[80];
    if (json_unpack((json_t *)(uintptr_t)entry, "{s:{s:s, s:s}}", "platform", "architecture", &architecture,
                    "os", &system) != 0)
        return false;
    snprintf(platform, sizeof(platform), "%.30s/%.40s", system, architecture);
    if (strcmp(platform, wanted_platform(choice)) == 0)
        return false;
    if (strcmp(system, "unknown") != 0)
        add_word(words, platform);
    return true;
}

static const char *name_of(const json_t *entry)
{
    static const char *const keys[] = {"io.containerd.image.name", "org.opencontainers.image.ref.name"};
    const json_t *annotations = json_object_get(entry, "annotations");
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *name = json_string_value(json_object_get(annotations, keys[i]));
        if (name)
            return name;
    }
    return NULL;
}

static int choose(json_t *manifests, const struct oci_choice *choice, const char **ret_digest)
{
    char foreign[WORDS_MAX] = "", names[WORDS_MAX] = "";
    const char *found = NULL;
    bool several = false;
    size_t i;
    json_t *entry;
    json_array_foreach(manifests, i, entry)
    {
        const char *digest = json_string_value(json_object_get(entry, "digest")), *name = name_of(entry);
        if (is_foreign(entry, choice, foreign))
            continue;
        add_word(names, name ? name : "one without a name");
        if (!digest || (choice->image && name && strcmp(choice->image, name) != 0))
            continue;
        several = several || (found && strcmp(found, digest) != 0);
        found = digest;
    }
    if (several)
        return fail(-EINVAL, "OCI image: there are several: %s (choose one with --image)", names);
    if (!found && names[0])
        return fail(-ENOENT, "OCI image: none has the name %s; there are: %s", choice->image, names);
    if (!found)
        return fail(-ENOENT, "OCI image: none is for %s; there are: %s (choose one with --platform)",
                    wanted_platform(choice), foreign[0] ? foreign : "none");
    *ret_digest = found;
    return 0;
}

/* The image's own word, where the index had none. */
static int check_platform(const json_t *config, const struct oci_choice *choice)
{
    const char *architecture = json_string_value(json_object_get(config, "architecture"));
    const char *system = json_string_value(json_object_get(config, "os"));
    char platform[80];
    snprintf(platform, sizeof(platform), "%.30s/%.40s", system ? system : "linux",
             architecture ? architecture : "");
    if (!architecture || strcmp(platform, wanted_platform(choice)) == 0)
        return 0;
    return fail(-ENOENT, "OCI image: it is for %s, not for %s (take it all the same with --platform)",
                platform, wanted_platform(choice));
}

/* ---- Unpacking ---- */

struct unpacking {
    int layout;
    const char *layout_path, *root;
    const struct oci_choice *choice;
    json_t *folder_times;
};

static int apply_layer(const struct unpacking *unpacking, const char *path)
{
    char full[4096];
    snprintf(full, sizeof(full), "%s/%s", unpacking->layout_path, path);
    return layer_apply(full, unpacking->root, true, unpacking->folder_times);
}

static int apply_layers(const struct unpacking *unpacking, const json_t *manifest, const char *where)
{
    const json_t *layers = json_object_get(manifest, "layers");
    const char *config_digest =
        json_string_value(json_object_get(json_object_get(manifest, "config"), "digest"));
    char path[128];
    int r = 0;
    if (!json_is_array(layers))
        return fail(-EBADMSG, "OCI image: %s has no layers", where);
    if (config_digest) {
        json_t *config = NULL;
        r = find_blob(unpacking->layout, config_digest, path);
        if (r == 0)
            r = load_json(unpacking->layout, path, &config);
        if (r == 0)
            r = check_platform(config, unpacking->choice);
        json_decref(config);
    }
    for (size_t i = 0; r == 0 && i < json_array_size(layers); i++) {
        r = find_blob(unpacking->layout,
                      json_string_value(json_object_get(json_array_get(layers, i), "digest")), path);
        if (r == 0)
            r = apply_layer(unpacking, path);
    }
    return r;
}

/* From an index or a manifest's digest, through indexes, to layers. */
static int unpack_manifest(const struct unpacking *unpacking, const char *digest, unsigned depth)
{
    char path[128];
    json_t *json = NULL;
    int r = find_blob(unpacking->layout, digest, path);
    if (r == 0)
        r = load_json(unpacking->layout, path, &json);
    if (r < 0)
        return r;
    json_t *nested = json_object_get(json, "manifests");
    if (!json_is_array(nested)) {
        r = apply_layers(unpacking, json, path);
    } else if (depth == DEPTH_MAX) {
        r = fail(-EBADMSG, "OCI image: indexes in indexes, more than %d deep", DEPTH_MAX);
    } else {
        const struct oci_choice any_name = {.platform = unpacking->choice->platform};
        r = choose(nested, &any_name, &digest);
        if (r == 0)
            r = unpack_manifest(unpacking, digest, depth + 1);
    }
    json_decref(json);
    return r;
}

/* The entry of manifest.json that is wanted, by one of its RepoTags; the only one, if none was named. */
static int choose_docker(const json_t *images, const struct oci_choice *choice, const json_t **ret_image)
{
    char names[WORDS_MAX] = "";
    size_t i, k;
    json_t *image, *tag;
    const json_t *found = json_array_size(images) == 1 && !choice->image ? json_array_get(images, 0) : NULL;
    json_array_foreach(images, i, image)
    {
        json_array_foreach(json_object_get(image, "RepoTags"), k, tag)
        {
            const char *name = json_string_value(tag);
            add_word(names, name ? name : "");
            if (choice->image && name && strcmp(name, choice->image) == 0)
                found = image;
        }
    }
    if (!found && choice->image)
        return fail(-ENOENT, "docker image: none has the name %s; there are: %s", choice->image, names);
    if (!found)
        return fail(-EINVAL, "docker image: there are several: %s (choose one with --image)", names);
    *ret_image = found;
    return 0;
}

/* What docker save wrote before version 25, and skopeo's docker-archive: manifest.json with paths, no
 * digests. */
static int unpack_docker(const struct unpacking *unpacking, const json_t *images)
{
    const json_t *image = NULL, *layers;
    json_t *config = NULL;
    int r = choose_docker(images, unpacking->choice, &image);
    if (r < 0)
        return r;
    r = load_json(unpacking->layout, json_string_value(json_object_get(image, "Config")), &config);
    if (r == 0)
        r = check_platform(config, unpacking->choice);
    json_decref(config);
    layers = json_object_get(image, "Layers");
    for (size_t i = 0; r == 0 && i < json_array_size(layers); i++) {
        const char *path = json_string_value(json_array_get(layers, i));
        char linked[4096], link[64];
        struct stat status = {0};
        CLEANUP_FD int fd = open_blob(unpacking->layout, path ? path : "", &status);
        if (fd < 0)
            return fd;
        /* Where it lies, should its name be a link. */
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, linked, sizeof(linked) - 1);
        if (length < 0)
            return fail_errno(-errno, "%s", link);
        linked[length] = '\0';
        r = layer_apply(linked, unpacking->root, true, unpacking->folder_times);
    }
    return r;
}

/* ---- Whether it is one ---- */

static bool are_docker_images(const json_t *json)
{
    size_t i;
    const json_t *image;
    json_array_foreach((json_t *)(uintptr_t)json, i, image)
    {
        if (!json_is_string(json_object_get(image, "Config")) ||
            !json_is_array(json_object_get(image, "Layers")))
            return false;
    }
    return json_array_size(json) > 0;
}

static bool is_index(const json_t *json)
{
    const json_t *manifests = json_object_get(json, "manifests");
    const char *digest = json_string_value(json_object_get(json_array_get(manifests, 0), "digest"));
    return json_is_array(manifests) && (json_array_size(manifests) == 0 || (digest && strchr(digest, ':')));
}

/* A web site has an index.json or manifest.json, too: only its content tells. */
static json_t *load_if(int layout, const char *name, bool (*fits)(const json_t *json))
{
    json_t *json = NULL;
    if (load_json(layout, name, &json) == 0 && fits(json))
        return json;
    json_decref(json);
    return NULL;
}

bool oci_is_image(const char *folder)
{
    CLEANUP_FD int layout = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    json_t *json = layout < 0 ? NULL : load_if(layout, "index.json", is_index);
    if (!json && layout >= 0)
        json = load_if(layout, "manifest.json", are_docker_images);
    bool found = json != NULL;
    json_decref(json);
    return found;
}

int oci_unpack(const char *layout_path, const char *root, const struct oci_choice *choice,
               json_t *folder_times)
{
    CLEANUP_FD int layout = open(layout_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct unpacking unpacking = {layout, layout_path, root, choice, folder_times};
    const char *digest = NULL;
    if (layout < 0 || mkdir(root, 0755) < 0)
        return fail_errno(-errno, "%s", layout < 0 ? layout_path : root);
    json_t *images = load_if(layout, "manifest.json", are_docker_images);
    json_t *index = load_if(layout, "index.json", is_index);
    int r;
    /* Both are in what docker save writes since version 25; names are in manifest.json only. */
    if (index && !(images && choice->image)) {
        r = choose(json_object_get(index, "manifests"), choice, &digest);
        if (r == 0)
            r = unpack_manifest(&unpacking, digest, 0);
    } else {
        r = unpack_docker(&unpacking, images);
    }
    json_decref(index);
    json_decref(images);
    return r;
}
