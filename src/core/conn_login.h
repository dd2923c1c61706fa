/* conn_login.h -- from a description to a session of the server, the password included. */
#ifndef FPC_CONN_LOGIN_H
#define FPC_CONN_LOGIN_H

#include "fpcache/clock.h"
#include "fpcache/conninfo.h"
#include "fpcache/error.h"

#include <libpq-fe.h>

/* *out is the caller's, only when FPC_OK; it drops notices.  With a keeper of tokens a refused password is
 * replaced once, and the login tried again. */
fpc_status fpc_login(const fpc_conninfo *info, fpc_deadline deadline, PGconn **out, fpc_error *err);

/* The server did not answer before the deadline. */
fpc_status fpc_no_answer(PGconn *pg, fpc_error *err);

#endif
