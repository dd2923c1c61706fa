/* params.h -- the parameters of one statement, in PostgreSQL's binary format.
 *
 *   params   up to FPC_PARAMS_MAX values, on the caller's stack
 *   array    a growing one-dimensional PostgreSQL array, used as one value of params
 *
 * Bytes and arrays are borrowed: they must live until the statement was sent.
 * Thread rule: one thread at a time. */
#ifndef FPCACHE_PARAMS_H
#define FPCACHE_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FPC_PARAMS_MAX 12

/* The server's type numbers (fixed in pg_type). */
enum fpc_oid {
    FPC_OID_BOOL = 16,
    FPC_OID_BYTEA = 17,
    FPC_OID_CHAR = 18,
    FPC_OID_INT8 = 20,
    FPC_OID_INT2 = 21,
    FPC_OID_INT4 = 23,
    FPC_OID_TEXT = 25,
    FPC_OID_OID = 26,
    FPC_OID_FLOAT4 = 700,
    FPC_OID_FLOAT8 = 701,
    FPC_OID_BYTEA_ARRAY = 1001,
    FPC_OID_CHAR_ARRAY = 1002,
    FPC_OID_FLOAT8_ARRAY = 1022
};

typedef struct fpc_array {
    uint32_t element_oid;
    uint32_t count;
    bool has_null;
    bool failed; /* memory ran out; the array is unusable until it is cleared */
    char *bytes;
    size_t length, capacity;
} fpc_array;

typedef struct fpc_params {
    int count;
    const char *values[FPC_PARAMS_MAX]; /* NULL: SQL NULL */
    int lengths[FPC_PARAMS_MAX];
    char scratch[FPC_PARAMS_MAX][8]; /* numbers in network order */
} fpc_params;

/* The caller adds at most FPC_PARAMS_MAX values; more is a bug and aborts. */
void fpc_params_init(fpc_params *params);
void fpc_params_null(fpc_params *params);
void fpc_params_bytes(fpc_params *params, const char *bytes, size_t length); /* text, bytea, "char" */
void fpc_params_int64(fpc_params *params, int64_t value);
void fpc_params_double(fpc_params *params, double value);
void fpc_params_bool(fpc_params *params, bool value);
void fpc_params_array(fpc_params *params, fpc_array *array); /* finishes the array's header */

/* Arrays: create uses the caller's memory; destroy frees what grew. */
void fpc_array_create(fpc_array *array, uint32_t element_oid);
void fpc_array_destroy(fpc_array *array);
void fpc_array_clear(fpc_array *array); /* keeps the memory */
void fpc_array_add(fpc_array *array, const char *bytes, size_t length);
void fpc_array_add_double(fpc_array *array, double value);
void fpc_array_add_null(fpc_array *array);

/* Numbers in network order, as results have them too. */
uint32_t fpc_load_be32(const char *from);
uint64_t fpc_load_be64(const char *from);

#endif
