/* result.c -- reading libpq's results. */
#include "fpcache/result.h"
#include "fpcache/params.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

void fpc_result_delete(fpc_result *result) {
    PQclear(result); /* NULL is allowed */
}

int fpc_result_rows(const fpc_result *result) {
    return PQntuples(result);
}

int fpc_result_columns(const fpc_result *result) {
    return PQnfields(result);
}

const char *fpc_result_name(const fpc_result *result, int column) {
    return PQfname(result, column);
}

uint32_t fpc_result_oid(const fpc_result *result, int column) {
    return PQftype(result, column);
}

int64_t fpc_result_affected(const fpc_result *result) {
    return strtoll(PQcmdTuples((PGresult *)result), NULL, 10); /* "" gives 0; libpq forgot the const */
}

const char *fpc_result_command(const fpc_result *result) {
    return PQcmdStatus((PGresult *)result);
}

bool fpc_result_is_null(const fpc_result *result, int row, int column) {
    return PQgetisnull(result, row, column);
}

const char *fpc_result_bytes(const fpc_result *result, int row, int column, size_t *length) {
    *length = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

int64_t fpc_result_int64(const fpc_result *result, int row, int column) {
    const char *wire = PQgetvalue(result, row, column);
    switch (PQgetlength(result, row, column)) {
    case 8: return (int64_t)fpc_load_be64(wire);
    case 4: {
        uint32_t word = fpc_load_be32(wire);
        return fpc_result_oid(result, column) == FPC_OID_OID ? (int64_t)word : (int32_t)word;
    }
    case 2: return (int16_t)(((unsigned char)wire[0] << 8) | (unsigned char)wire[1]);
    default: return 0;
    }
}

double fpc_result_double(const fpc_result *result, int row, int column) {
    const char *wire = PQgetvalue(result, row, column);
    if (PQgetlength(result, row, column) == 4) {
        uint32_t bits = fpc_load_be32(wire);
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    if (PQgetlength(result, row, column) != 8) return 0;
    uint64_t bits = fpc_load_be64(wire);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
