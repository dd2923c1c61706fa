/* conninfo.h -- what to connect to: libpq's keywords and values.
 *
 * Keywords that the libpq of this machine does not know are refused when a user gives them and
 * skipped when they are only our default, so one program runs with libpq 12 and 18.
 * Owner: who made it, until fpc_pool_new() takes it.  Values are wiped before they are freed.
 * Thread rule: one thread at a time while it is changed; reading is safe from many. */
#ifndef FPCACHE_CONNINFO_H
#define FPCACHE_CONNINFO_H

#include "fpcache/error.h"

#include <stdbool.h>

typedef struct fpc_conninfo fpc_conninfo;

/* An empty description, or NULL when out of memory. */
fpc_conninfo *fpc_conninfo_new(void);
void fpc_conninfo_delete(fpc_conninfo *info); /* NULL is allowed */

/* Takes over the settings of a URL ("postgresql://...") or of a "key=value ..." string.
 * FPC_INVALID when it cannot be parsed, or when an unescaped password seems to have spilt into host, port
 * or database; the message never quotes it, since it may hold a password. */
fpc_status fpc_conninfo_parse(fpc_conninfo *info, const char *text, fpc_error *err);

/* Sets a keyword that is not set yet; FPC_INVALID when this libpq does not know it. */
fpc_status fpc_conninfo_add(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err);

/* The same for a default of ours: a keyword that this libpq does not know is passed over. */
fpc_status fpc_conninfo_default(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err);

/* The same settings, or NULL when out of memory. */
fpc_conninfo *fpc_conninfo_copy(const fpc_conninfo *info);
/* Whether both have the same settings, in any order. */
bool fpc_conninfo_equal(const fpc_conninfo *a, const fpc_conninfo *b);

/* The value of a keyword, or NULL.  It lives as long as the description. */
const char *fpc_conninfo_get(const fpc_conninfo *info, const char *keyword);

/* NULL-terminated arrays for libpq; they live until the next change. */
const char *const *fpc_conninfo_keywords(const fpc_conninfo *info);
const char *const *fpc_conninfo_values(const fpc_conninfo *info);

#endif
