/* result.h -- what a statement answered: rows of binary or text values.
 *
 * Owner: who got it from fpc_conn_receive() and friends; free it with fpc_result_delete().
 * Pointers into it live as long as it does.  Thread rule: reading is safe from many threads. */
#ifndef FPCACHE_RESULT_H
#define FPCACHE_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct pg_result fpc_result; /* libpq's, opaque here */

void fpc_result_delete(fpc_result *result); /* NULL is allowed */
int fpc_result_rows(const fpc_result *result);
int fpc_result_columns(const fpc_result *result);
const char *fpc_result_name(const fpc_result *result, int column);
uint32_t fpc_result_oid(const fpc_result *result, int column);
int64_t fpc_result_affected(const fpc_result *result);    /* rows written, or 0 */
const char *fpc_result_command(const fpc_result *result); /* such as "ROLLBACK" */

bool fpc_result_is_null(const fpc_result *result, int row, int column);
const char *fpc_result_bytes(const fpc_result *result, int row, int column, size_t *length);
/* For binary columns: int2, int4, int8 and oid; float4 and float8.  0 for NULL and for other widths. */
int64_t fpc_result_int64(const fpc_result *result, int row, int column);
double fpc_result_double(const fpc_result *result, int row, int column);

#endif
