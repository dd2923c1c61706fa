/* conninfo.h -- what to connect to: libpq's keywords and values.
 *
 * Keywords that the libpq of this machine does not know are refused when a user gives them and
 * skipped when they are only our default, so one program runs with libpq 12 and 18.
 * Owner: who made it, until fpc_pool_new() takes it.  Values are wiped before they are freed.
 * Thread rule: one thread at a time while it is changed; reading is safe from many. */
#ifndef FPCACHE_CONNINFO_H
#define FPCACHE_CONNINFO_H

#include "fpcache/error.h"
#include "fpcache/token.h"

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

/* From now on every login takes its password from this keeper, which it shares; it has to be the last thing
 * that is set.  Where the settings name no host or user, the token's are taken, else these two (NULL: libpq's
 * own defaults).
 * TLS is demanded: sslmode is verify-full unless a setting says require or verify-ca, and the roots are the
 * system's unless a setting or PGSSLROOTCERT says where they are.  FPC_INVALID for a weaker sslmode (but a
 * unix socket needs none), and for a password beside the keeper. */
fpc_status fpc_conninfo_set_token(fpc_conninfo *info, fpc_token_keeper *keeper, const char *host,
                                  const char *user, fpc_error *err);
/* The keeper, or NULL; it lives as long as the description. */
fpc_token_keeper *fpc_conninfo_token(const fpc_conninfo *info);
/* What takes the place of a host or user that neither the settings nor the token name; may be NULL. */
const char *fpc_conninfo_fallback_host(const fpc_conninfo *info);
const char *fpc_conninfo_fallback_user(const fpc_conninfo *info);

/* The same settings and keeper, or NULL when out of memory. */
fpc_conninfo *fpc_conninfo_copy(const fpc_conninfo *info);
/* Whether both have the same settings, in any order, and the same keeper. */
bool fpc_conninfo_equal(const fpc_conninfo *a, const fpc_conninfo *b);

/* The value of a keyword, or NULL.  It lives as long as the description. */
const char *fpc_conninfo_get(const fpc_conninfo *info, const char *keyword);

/* NULL-terminated arrays for libpq; they live until the next change. */
const char *const *fpc_conninfo_keywords(const fpc_conninfo *info);
const char *const *fpc_conninfo_values(const fpc_conninfo *info);

#endif
