/* workspace_login.h -- a token for the REST API of a workspace, with which the database's are minted.
 *
 *   login    one way to get it, such as "oauth-m2m"; fpc_workspace_log_in() takes the first that applies
 *
 * A login that applies and fails ends the search: the error says which and why.
 * Thread rule: one thread at a time for each session. */
#ifndef FPC_TOKEN_WORKSPACE_LOGIN_H
#define FPC_TOKEN_WORKSPACE_LOGIN_H

#include "http.h"
#include "token/databricks_config.h"

/* What a login may use. */
typedef struct fpc_workspace_session {
    const fpc_dbx_config *config; /* has a host */
    fpc_http *http;
    fpc_deadline deadline;
    int64_t start_ns; /* what valid_for_s counts from */
} fpc_workspace_session;

typedef struct fpc_workspace_token {
    const char *login; /* its name */
    char *bearer;
    char *management;   /* Azure's second token; NULL: none */
    double valid_for_s; /* below 0: it does not say */
} fpc_workspace_token;

void fpc_workspace_token_clear(fpc_workspace_token *token);

/* FPC_INVALID unless `name` is a login that we have. */
fpc_status fpc_workspace_login_check(const char *name, fpc_error *err);

/* When no login applies, the message lists all and why each does not. */
fpc_status fpc_workspace_log_in(const fpc_workspace_session *session, fpc_workspace_token *out,
                                fpc_token_failure *failure);

/* --- for the logins themselves --- */

typedef struct fpc_workspace_login {
    const char *name;
    /* Why it does not apply; NULL: it does.  Static, or written to `words`. */
    const char *(*missing)(const fpc_dbx_config *config, char *words, size_t size);
    /* Fills bearer and valid_for_s.  With FPC_OK and no bearer it does not apply after all: `failure` says
     * why. */
    fpc_status (*log_in)(const fpc_workspace_session *session, fpc_workspace_token *out,
                         fpc_token_failure *failure);
} fpc_workspace_login;

extern const fpc_workspace_login fpc_login_oauth_m2m, fpc_login_env_oidc, fpc_login_file_oidc,
    fpc_login_github_oidc, fpc_login_azure_client_secret, fpc_login_metadata_service, fpc_login_model_serving,
    fpc_login_databricks_cli;

/* Asks an address for JSON with access_token and an end; `who` answers. */
fpc_status fpc_workspace_ask_token(const fpc_workspace_session *session, const fpc_http_request *request,
                                   const char *who, fpc_workspace_token *out, fpc_token_failure *failure);

#endif
