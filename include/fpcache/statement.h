/* statement.h -- one SQL statement with the types of its parameters.
 *
 * A statement is made once and run on many connections; each connection prepares it the first
 * time it meets it.  Its name is a hash of its text: two statements of the same name are the same.
 * Owner: who made it; it must outlive the calls that use it, not the connections.
 * Thread rule: read-only after fpc_statement_new(). */
#ifndef FPCACHE_STATEMENT_H
#define FPCACHE_STATEMENT_H

#include "fpcache/params.h"

typedef struct fpc_statement {
    uint64_t id;   /* hash of text and types, never 0 */
    char name[24]; /* "fpc_" and the id in hexadecimal */
    char *sql;
    bool read_only; /* may be repeated on another connection when one is lost */
    int param_count;
    uint32_t param_oids[FPC_PARAMS_MAX];
} fpc_statement;

/* NULL when out of memory.  `param_count` is at most FPC_PARAMS_MAX. */
fpc_statement *fpc_statement_new(const char *sql, const uint32_t *param_oids, int param_count,
                                 bool read_only);
void fpc_statement_delete(fpc_statement *statement); /* NULL is allowed */

#endif
