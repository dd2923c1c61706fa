/* statement.c -- statements named by the hash of their text. */
#include "fpcache/statement.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

fpc_statement *fpc_statement_new(const char *sql, const uint32_t *param_oids, int param_count,
                                 bool read_only) {
    assert(param_count >= 0 && param_count <= FPC_PARAMS_MAX);
    fpc_statement *statement = calloc(1, sizeof *statement);
    if (statement == NULL) return NULL;
    statement->sql = strdup(sql);
    if (statement->sql == NULL) {
        free(statement);
        return NULL;
    }
    size_t oid_bytes = (size_t)param_count * sizeof *param_oids;
    if (oid_bytes > 0) memcpy(statement->param_oids, param_oids, oid_bytes);
    statement->param_count = param_count;
    statement->read_only = read_only;
    statement->references = 1;
    statement->id = XXH3_64bits_withSeed(statement->param_oids, oid_bytes, XXH3_64bits(sql, strlen(sql))) | 1;
    snprintf(statement->name, sizeof statement->name, "fpc_%016" PRIx64, statement->id);
    return statement;
}

void fpc_statement_delete(fpc_statement *statement) {
    if (statement == NULL || --statement->references > 0) return;
    fpc_statement_delete(statement->many);
    free(statement->sql);
    free(statement);
}

fpc_statement *fpc_statement_keep(const fpc_statement *statement) {
    fpc_statement *kept = (fpc_statement *)statement; /* the count is nobody's business but ours */
    if (kept != NULL) kept->references++;
    return kept;
}

static bool is_array_of(uint32_t array, uint32_t element) {
    return (array == FPC_OID_BYTEA_ARRAY && element == FPC_OID_BYTEA) ||
           (array == FPC_OID_CHAR_ARRAY && element == FPC_OID_CHAR) ||
           (array == FPC_OID_FLOAT8_ARRAY && element == FPC_OID_FLOAT8);
}

void fpc_statement_set_many(fpc_statement *statement, const fpc_statement *many, int param) {
    assert(param >= 0 && param < statement->param_count && statement->many == NULL);
    statement->many = fpc_statement_keep(many);
    statement->many_param = param;
    int end = param;
    while (end < statement->param_count && end < many->param_count &&
           is_array_of(many->param_oids[end], statement->param_oids[end]))
        end++;
    statement->many_width = end - param;
    assert(statement->many_width >= 1 && statement->many_width <= FPC_MANY_WIDTH_MAX);
}
