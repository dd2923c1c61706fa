/* params.c -- statement parameters in binary.
 *
 * An array on the wire: dimensions, has-null flag, element type, then count and lower bound of the
 * one dimension (five 32-bit words), then for each element its length (-1 for NULL) and bytes. */
#include "fpcache/params.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_HEADER 20

static void store_be32(char *to, uint32_t value) {
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof value);
}

static void store_be64(char *to, uint64_t value) {
    value = __builtin_bswap64(value);
    memcpy(to, &value, sizeof value);
}

uint32_t fpc_load_be32(const char *from) {
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap32(value);
}

uint64_t fpc_load_be64(const char *from) {
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return __builtin_bswap64(value);
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the byte swaps above assume a little-endian machine");

void fpc_params_init(fpc_params *params) {
    params->count = 0;
}

static int next_slot(fpc_params *params) {
    if (params->count >= FPC_PARAMS_MAX) abort();
    return params->count++;
}

void fpc_params_null(fpc_params *params) {
    int i = next_slot(params);
    params->values[i] = NULL;
    params->lengths[i] = 0;
}

void fpc_params_bytes(fpc_params *params, const char *bytes, size_t length) {
    int i = next_slot(params);
    params->values[i] = bytes == NULL ? "" : bytes;                /* NULL would mean SQL NULL */
    params->lengths[i] = length > INT_MAX ? INT_MAX : (int)length; /* more than can be sent either way */
}

static char *scratch(fpc_params *params, int length) {
    int i = next_slot(params);
    params->values[i] = params->scratch[i];
    params->lengths[i] = length;
    return params->scratch[i];
}

void fpc_params_int64(fpc_params *params, int64_t value) {
    store_be64(scratch(params, 8), (uint64_t)value);
}

void fpc_params_double(fpc_params *params, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    store_be64(scratch(params, 8), bits);
}

void fpc_params_bool(fpc_params *params, bool value) {
    *scratch(params, 1) = value;
}

void fpc_params_array(fpc_params *params, fpc_array *array) {
    assert(!array->failed);
    store_be32(array->bytes, array->count > 0 ? 1 : 0);
    store_be32(array->bytes + 4, array->has_null);
    store_be32(array->bytes + 8, array->element_oid);
    store_be32(array->bytes + 12, array->count);
    store_be32(array->bytes + 16, 1);
    /* an empty array has no dimension words */
    fpc_params_bytes(params, array->bytes, array->count > 0 ? array->length : 12);
}

void fpc_array_create(fpc_array *array, uint32_t element_oid) {
    memset(array, 0, sizeof *array);
    array->element_oid = element_oid;
    fpc_array_clear(array);
}

void fpc_array_destroy(fpc_array *array) {
    free(array->bytes);
    array->bytes = NULL;
    array->capacity = array->length = 0;
}

/* Room for `more` bytes at the end, or NULL when memory ran out. */
static char *grow(fpc_array *array, size_t more) {
    if (array->failed) return NULL;
    if (array->capacity - array->length < more) {
        size_t capacity = array->capacity < 512 ? 512 : array->capacity * 2;
        while (capacity - array->length < more) capacity *= 2;
        char *bytes = realloc(array->bytes, capacity);
        if (bytes == NULL) {
            array->failed = true;
            return NULL;
        }
        array->bytes = bytes;
        array->capacity = capacity;
    }
    char *end = array->bytes + array->length;
    array->length += more;
    return end;
}

void fpc_array_clear(fpc_array *array) {
    array->count = 0;
    array->has_null = false;
    array->failed = false;
    array->length = 0;
    grow(array, ARRAY_HEADER);
}

void fpc_array_add(fpc_array *array, const char *bytes, size_t length) {
    char *to = grow(array, 4 + length);
    if (to == NULL) return;
    store_be32(to, (uint32_t)length);
    if (length > 0) memcpy(to + 4, bytes, length);
    array->count++;
}

void fpc_array_add_double(fpc_array *array, double value) {
    char wire[8];
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    store_be64(wire, bits);
    fpc_array_add(array, wire, sizeof wire);
}

void fpc_array_add_null(fpc_array *array) {
    char *to = grow(array, 4);
    if (to == NULL) return;
    store_be32(to, UINT32_MAX);
    array->has_null = true;
    array->count++;
}
