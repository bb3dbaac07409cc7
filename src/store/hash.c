#include "store/private.h"

/*
 * The algorithm's own functions, which OpenSSL 3 discourages, and not EVP, through which it would be looked
 * up in a provider: EVP drags in all of libcrypto, and with it 360 KiB of relocations, which volt-vmm would
 * apply at each start (0.6 counted ms) and keep as private memory, whether it ever hashes or not. The machine
 * code is the same.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <string.h>

struct object_hasher {
    SHA256_CTX context;
};

void object_hash(const void *bytes, size_t length, struct object_id *ret_id)
{
    SHA256_CTX context;
    CHECK(SHA256_Init(&context) == 1 && SHA256_Update(&context, bytes, length) == 1 &&
          SHA256_Final(ret_id->bytes, &context) == 1);
}

int object_hasher_begin(struct object_hasher **ret_hasher)
{
    struct object_hasher *hasher = malloc(sizeof(*hasher));
    if (!hasher)
        return fail(-ENOMEM, "no memory to hash an object");
    CHECK(SHA256_Init(&hasher->context) == 1);
    *ret_hasher = hasher;
    return 0;
}

void object_hasher_update(struct object_hasher *hasher, const void *bytes, size_t length)
{
    CHECK(SHA256_Update(&hasher->context, bytes, length) == 1);
}

void object_hasher_end(struct object_hasher *hasher, struct object_id *ret_id)
{
    CHECK(SHA256_Final(ret_id->bytes, &hasher->context) == 1);
    free(hasher);
}

char *object_id_text(const struct object_id *id, char text[OBJECT_ID_TEXT])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < OBJECT_ID_BYTES; i++) {
        text[2 * i] = digits[id->bytes[i] >> 4];
        text[2 * i + 1] = digits[id->bytes[i] & 15];
    }
    text[2 * OBJECT_ID_BYTES] = '\0';
    return text;
}

static int digit_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

int object_id_parse(const char *text, struct object_id *ret_id)
{
    struct object_id id;
    for (unsigned i = 0; i < OBJECT_ID_BYTES; i++) {
        int high = digit_value(text[2 * i]);
        int low = high < 0 ? -1 : digit_value(text[2 * i + 1]);
        if (low < 0)
            return -EINVAL;
        id.bytes[i] = (uint8_t)(high << 4 | low);
    }
    if (text[2 * OBJECT_ID_BYTES] != '\0')
        return -EINVAL;
    *ret_id = id;
    return 0;
}

bool object_id_equal(const struct object_id *a, const struct object_id *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

static const struct object_id no_id; /* marks a free slot: nobody knows bytes with this hash */

static size_t id_slot(const struct id_set *set, const struct object_id *id)
{
    uint64_t start;
    memcpy(&start, id->bytes, sizeof(start));
    size_t slot = (size_t)start & (set->capacity - 1);
    while (!object_id_equal(&set->slots[slot], id) && !object_id_equal(&set->slots[slot], &no_id))
        slot = (slot + 1) & (set->capacity - 1);
    return slot;
}

static int id_set_grow(struct id_set *set)
{
    struct id_set bigger = {.capacity = set->capacity ? 2 * set->capacity : 1024, .count = set->count};
    bigger.slots = calloc(bigger.capacity, sizeof(*bigger.slots));
    if (!bigger.slots)
        return fail(-ENOMEM, "no memory for a set of %zu object names", set->count);
    for (size_t i = 0; i < set->capacity; i++)
        if (!object_id_equal(&set->slots[i], &no_id))
            bigger.slots[id_slot(&bigger, &set->slots[i])] = set->slots[i];
    free(set->slots);
    *set = bigger;
    return 0;
}

int id_set_add(struct id_set *set, const struct object_id *id, bool *ret_new)
{
    if (2 * set->count >= set->capacity) {
        int r = id_set_grow(set);
        if (r < 0)
            return r;
    }
    size_t slot = id_slot(set, id);
    bool is_new = object_id_equal(&set->slots[slot], &no_id);
    if (is_new) {
        set->slots[slot] = *id;
        set->count++;
    }
    if (ret_new)
        *ret_new = is_new;
    return 0;
}

bool id_set_has(const struct id_set *set, const struct object_id *id)
{
    return set->capacity > 0 && object_id_equal(&set->slots[id_slot(set, id)], id);
}

void id_set_free(struct id_set *set)
{
    free(set->slots);
    *set = (struct id_set){0};
}
