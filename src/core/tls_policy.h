/* tls_policy.h -- how a connection is protected whose password is a token.
 *
 * Such a password mostly travels as it is, so that the server's certificate is all that protects it. */
#ifndef FPC_TLS_POLICY_H
#define FPC_TLS_POLICY_H

#include "fpcache/conninfo.h"

/* Adds the defaults for a description that has a keeper.  FPC_INVALID for settings that are too weak. */
fpc_status fpc_tls_policy_apply(fpc_conninfo *info, fpc_error *err);

#endif
