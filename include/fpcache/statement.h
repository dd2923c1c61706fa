/* statement.h -- one SQL statement with the types of its parameters.
 *
 * A statement is made once and run on many connections; each connection prepares it the first
 * time it meets it.  Its name is a hash of its text: two statements of the same name are the same.
 * Owner: who made it; it must outlive the calls that use it, not the connections.  Who needs it longer holds
 * a reference of his own.
 * Thread rule: read-only once it is shared; references from any thread. */
#ifndef FPCACHE_STATEMENT_H
#define FPCACHE_STATEMENT_H

#include "fpcache/params.h"

#define FPC_MANY_WIDTH_MAX 5

typedef struct fpc_statement {
    uint64_t id;   /* hash of text and types, never 0 */
    char name[24]; /* "fpc_" and the id in hexadecimal */
    char *sql;
    bool read_only; /* may be repeated on another connection when one is lost */
    bool slow;      /* of many rows or the whole table: in a pipeline of its own (see pipeline.h) */
    int param_count;
    uint32_t param_oids[FPC_PARAMS_MAX];
    struct fpc_statement *many; /* does what this one does for many keys at once, or NULL */
    int many_param;             /* the parameter that is the key, an array there */
    int many_width;             /* so many parameters from it on are arrays there */
    _Atomic(int) references;
} fpc_statement;

/* NULL when out of memory.  `param_count` is at most FPC_PARAMS_MAX. */
fpc_statement *fpc_statement_new(const char *sql, const uint32_t *param_oids, int param_count,
                                 bool read_only);
/* Gives a reference back; the last one frees.  NULL is allowed. */
void fpc_statement_delete(fpc_statement *statement);
/* One more reference.  NULL is allowed. */
fpc_statement *fpc_statement_keep(const fpc_statement *statement);

/* Before it is shared: `many` takes arrays in the place of the bytea parameter `param` (from 0), the key, and
 * of those after it that are arrays there.  Single ones may travel in it that are alike in the other
 * parameters it has, and NULL in those it has not.  A reading one returns for each row the element's number
 * (bigint, from 1) before the columns of this statement; a writing one, which gets each key once and in
 * order, the key. */
void fpc_statement_set_many(fpc_statement *statement, const fpc_statement *many, int param);

#endif
