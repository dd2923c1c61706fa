/* sigv4.h -- AWS's signature version 4: proves who asks, with a secret that does not travel.
 *
 *   presign     the signature is part of a URL's query, which is then a password for a while
 *   authorize   the signature is the Authorization header of one POST
 *
 * Both are computed here and ask nobody.  Owner: everything is borrowed for the call.  Thread rule: pure. */
#ifndef FPC_TOKEN_SIGV4_H
#define FPC_TOKEN_SIGV4_H

#include "secret.h"

#include <stdint.h>

typedef struct fpc_sigv4 {
    const char *key_id, *secret;
    const char *session; /* of temporary credentials; NULL: none */
    const char *region, *service;
    int64_t now; /* seconds since 1970 */
} fpc_sigv4;

typedef struct fpc_sigv4_field {
    const char *name, *value; /* not escaped yet */
} fpc_sigv4_field;

#define FPC_SIGV4_DATE_SIZE 17 /* "20161107T173933Z" */

/* "HOST/?QUERY" for a GET at `host` (with ":port" where the Host header has one), good for `seconds`.
 * `fields` come in the order of their names, which stand before "X-Amz-".  FPC_NOMEM, FPC_SERVER. */
fpc_status fpc_sigv4_presign(const fpc_sigv4 *with, const char *host, const fpc_sigv4_field *fields,
                             size_t count, int seconds, fpc_secret_buffer *out, fpc_error *err);

/* The Authorization header's value for a POST of a form to the path "/" of `host`, whose headers
 * Content-Type (application/x-www-form-urlencoded; charset=utf-8), X-Amz-Date (`date`, filled in here) and,
 * with a session, X-Amz-Security-Token must be sent too. */
fpc_status fpc_sigv4_authorize(const fpc_sigv4 *with, const char *host, const char *body, size_t length,
                               char date[FPC_SIGV4_DATE_SIZE], fpc_secret_buffer *out, fpc_error *err);

#define FPC_SIGV4_FORM "application/x-www-form-urlencoded; charset=utf-8"

/* The key that signs on `day` ("20161107"); false when the library of OpenSSL fails. */
bool fpc_sigv4_key(const fpc_sigv4 *with, const char *day, unsigned char key[32]);

#endif
