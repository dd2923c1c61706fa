/* databricks_credential.h -- what the REST API of a workspace gives: a database's password, host and user.
 *
 * Both APIs: of provisioned instances (instance_name) and of autoscaling projects (endpoint).
 * Owner: texts that are given out are the caller's, for fpc_secret_free().
 * Thread rule: one thread at a time for each session. */
#ifndef FPC_TOKEN_DATABRICKS_CREDENTIAL_H
#define FPC_TOKEN_DATABRICKS_CREDENTIAL_H

#include "token/workspace_login.h"

/* The endpoint's whole name and where it is, or the instance's.  `endpoint` becomes NULL for an instance. */
typedef struct fpc_dbx_database {
    char *endpoint, *host;
} fpc_dbx_database;

void fpc_dbx_database_clear(fpc_dbx_database *database);

/* Asks where the database is.  One that is starting or changing is a failure that passes; one that is stopped
 * or deleted stays.  For "projects/P/branches/B" takes its endpoint that can write. */
fpc_status fpc_dbx_find_database(const fpc_workspace_session *session, const fpc_workspace_token *token,
                                 fpc_dbx_database *out, fpc_token_failure *failure);

/* The user that the workspace token belongs to. */
fpc_status fpc_dbx_find_user(const fpc_workspace_session *session, const fpc_workspace_token *token,
                             char **user, fpc_token_failure *failure);

/* Makes a password; fills out->password and out->valid_for_s.  `endpoint`: NULL for an instance. */
fpc_status fpc_dbx_mint(const fpc_workspace_session *session, const fpc_workspace_token *token,
                        const char *endpoint, fpc_token *out, fpc_token_failure *failure);

#endif
