/* batch.c -- rows in one arena, sorted by reference.
 *
 * A row's bytes lie in the arena as key, then value; rows refer to them by offset because the arena moves
 * when it grows. */
#include "fpcache/batch.h"
#include "fpcache/key.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIELD ((size_t)1 << 30) /* what the server takes is less */

typedef struct row {
    size_t offset;
    uint32_t key_length, value_length;
    double ttl_s;
    uint64_t head; /* first eight bytes of the key, in order: most comparisons end here */
    uint32_t index;
    char format;
} row;

struct fpc_batch {
    char *arena;
    size_t length, capacity;
    row *rows;
    size_t count, room;
    fpc_array keys, long_keys, values, formats, ttls;
    bool sealed; /* the arrays hold the rows */
};

fpc_batch *fpc_batch_new(void) {
    fpc_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) return NULL;
    fpc_array_create(&batch->keys, FPC_OID_BYTEA);
    fpc_array_create(&batch->long_keys, FPC_OID_BYTEA);
    fpc_array_create(&batch->values, FPC_OID_BYTEA);
    fpc_array_create(&batch->formats, FPC_OID_CHAR);
    fpc_array_create(&batch->ttls, FPC_OID_FLOAT8);
    return batch;
}

void fpc_batch_delete(fpc_batch *batch) {
    if (batch == NULL) return;
    fpc_array_destroy(&batch->keys);
    fpc_array_destroy(&batch->long_keys);
    fpc_array_destroy(&batch->values);
    fpc_array_destroy(&batch->formats);
    fpc_array_destroy(&batch->ttls);
    free(batch->arena);
    free(batch->rows);
    free(batch);
}

void fpc_batch_clear(fpc_batch *batch) {
    batch->length = 0;
    batch->count = 0;
    batch->sealed = false;
}

size_t fpc_batch_rows(const fpc_batch *batch) {
    return batch->count;
}

size_t fpc_batch_bytes(const fpc_batch *batch) {
    return batch->length;
}

static bool reserve(fpc_batch *batch, size_t bytes) {
    if (batch->capacity - batch->length < bytes) {
        size_t capacity = batch->capacity < 4096 ? 4096 : batch->capacity * 2;
        while (capacity - batch->length < bytes) capacity *= 2;
        char *arena = realloc(batch->arena, capacity);
        if (arena == NULL) return false;
        batch->arena = arena;
        batch->capacity = capacity;
    }
    if (batch->count == batch->room) {
        size_t room = batch->room < 64 ? 64 : batch->room * 2;
        row *rows = realloc(batch->rows, room * sizeof *rows);
        if (rows == NULL) return false;
        batch->rows = rows;
        batch->room = room;
    }
    return true;
}

fpc_status fpc_batch_add(fpc_batch *batch, const char *key, size_t key_length, const char *value,
                         size_t value_length, char format, double ttl_s, fpc_error *err) {
    if (key_length > MAX_FIELD || value_length > MAX_FIELD) {
        return fpc_fail(err, FPC_INVALID, "a key or value of more than 1 GB");
    }
    if (!reserve(batch, key_length + value_length)) {
        return fpc_fail(err, FPC_NOMEM, "batch of %zu bytes", batch->length);
    }
    char head[8] = {0};
    memcpy(head, key, key_length < sizeof head ? key_length : sizeof head);
    char *to = batch->arena + batch->length;
    memcpy(to, key, key_length);
    if (value_length > 0) memcpy(to + key_length, value, value_length);
    batch->rows[batch->count] = (row){.offset = batch->length,
                                      .key_length = (uint32_t)key_length,
                                      .value_length = (uint32_t)value_length,
                                      .ttl_s = ttl_s,
                                      .head = fpc_load_be64(head),
                                      .index = (uint32_t)batch->count,
                                      .format = format};
    batch->length += key_length + value_length;
    batch->count++;
    batch->sealed = false;
    return FPC_OK;
}

static int compare_keys(const char *arena, const row *a, const row *b) {
    if (a->head != b->head) return a->head < b->head ? -1 : 1;
    uint32_t shorter = a->key_length < b->key_length ? a->key_length : b->key_length;
    int order = memcmp(arena + a->offset, arena + b->offset, shorter);
    if (order != 0) return order;
    return (a->key_length > b->key_length) - (a->key_length < b->key_length);
}

static int compare_rows(const void *left, const void *right, void *arena) {
    const row *a = left, *b = right;
    int order = compare_keys(arena, a, b);
    if (order != 0) return order;
    return a->index < b->index ? -1 : 1; /* qsort is not stable, so the order of arrival is said */
}

static fpc_status add_key(fpc_batch *batch, const char *key, const row *r, fpc_error *err) {
    if (r->key_length <= FPC_KEY_INLINE) {
        fpc_array_add(&batch->keys, key, r->key_length);
        fpc_array_add_null(&batch->long_keys);
        return FPC_OK;
    }
    char stored[FPC_KEY_STORED_MAX];
    fpc_status status = fpc_key_shorten(key, r->key_length, stored, err);
    if (status != FPC_OK) return status;
    fpc_array_add(&batch->keys, stored, sizeof stored);
    fpc_array_add(&batch->long_keys, key, r->key_length);
    return FPC_OK;
}

const char *fpc_batch_stored_key(const fpc_batch *batch, size_t index, char scratch[FPC_KEY_STORED_MAX],
                                 size_t *length) {
    const row *r = &batch->rows[index];
    const char *key = batch->arena + r->offset;
    *length = r->key_length;
    if (r->key_length <= FPC_KEY_INLINE) return key;
    *length = FPC_KEY_STORED_MAX;
    return fpc_key_shorten(key, r->key_length, scratch, NULL) == FPC_OK ? scratch : NULL;
}

static void list_arrays(fpc_batch *batch, fpc_array *arrays[FPC_BATCH_PARAMS]) {
    arrays[0] = &batch->keys;
    arrays[1] = &batch->long_keys;
    arrays[2] = &batch->values;
    arrays[3] = &batch->formats;
    arrays[4] = &batch->ttls;
}

fpc_status fpc_batch_seal(fpc_batch *batch, fpc_error *err) {
    fpc_array *arrays[FPC_BATCH_PARAMS];
    if (batch->sealed) return FPC_OK;
    list_arrays(batch, arrays);
    for (int i = 0; i < FPC_BATCH_PARAMS; i++) fpc_array_clear(arrays[i]);
    if (batch->count > 1) qsort_r(batch->rows, batch->count, sizeof(row), compare_rows, batch->arena);
    for (size_t i = 0; i < batch->count; i++) {
        const row *r = &batch->rows[i];
        bool is_overwritten = i + 1 < batch->count && compare_keys(batch->arena, r, r + 1) == 0;
        if (is_overwritten) continue;
        const char *key = batch->arena + r->offset;
        fpc_status status = add_key(batch, key, r, err);
        if (status != FPC_OK) return status;
        fpc_array_add(&batch->values, key + r->key_length, r->value_length);
        fpc_array_add(&batch->formats, &r->format, 1);
        if (isinf(r->ttl_s))
            fpc_array_add_null(&batch->ttls);
        else
            fpc_array_add_double(&batch->ttls, r->ttl_s);
    }
    for (int i = 0; i < FPC_BATCH_PARAMS; i++) {
        if (arrays[i]->failed) return fpc_fail(err, FPC_NOMEM, "batch of %zu bytes", batch->length);
    }
    batch->sealed = true;
    return FPC_OK;
}

fpc_status fpc_batch_params(fpc_batch *batch, fpc_params *params, fpc_error *err) {
    fpc_array *arrays[FPC_BATCH_PARAMS];
    fpc_status status = fpc_batch_seal(batch, err);
    if (status != FPC_OK) return status;
    list_arrays(batch, arrays);
    for (int i = 0; i < FPC_BATCH_PARAMS; i++) fpc_params_array(params, arrays[i]);
    return FPC_OK;
}
