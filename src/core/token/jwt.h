/* jwt.h -- when a token in the shape of a JWT ends, as it says itself.
 *
 * Thread rule: pure. */
#ifndef FPC_JWT_H
#define FPC_JWT_H

#include <stdbool.h>

/* Its "exp", seconds since 1970.  Nothing is verified: who gave us the token over TLS is trusted already. */
bool fpc_jwt_expiry(const char *token, double *seconds);

#endif
