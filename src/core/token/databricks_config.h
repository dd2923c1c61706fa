/* databricks_config.h -- how to reach a workspace: settings, environment and ~/.databrickscfg together.
 *
 *   attribute  one fact, such as the host; a setting wins over the environment, that over the file
 *   profile    a section of the file; none inherits from another
 *
 * The environment is read once, the file at each fetch: a changed secret is seen without a restart.
 * Owner: the config's; wiped by clear.  Thread rule: one thread at a time for each config. */
#ifndef FPC_TOKEN_DATABRICKS_CONFIG_H
#define FPC_TOKEN_DATABRICKS_CONFIG_H

#include "token/source.h"

typedef enum fpc_dbx {
    /* of the SDKs: also keys of the file, except the first two */
    FPC_DBX_PROFILE,
    FPC_DBX_CONFIG_FILE,
    FPC_DBX_HOST,
    FPC_DBX_ACCOUNT_ID,
    FPC_DBX_WORKSPACE_ID,
    FPC_DBX_AUTH_TYPE,
    FPC_DBX_TOKEN,
    FPC_DBX_CLIENT_ID,
    FPC_DBX_CLIENT_SECRET,
    FPC_DBX_DISCOVERY_URL,
    FPC_DBX_SCOPES,
    FPC_DBX_OIDC_TOKEN_ENV,
    FPC_DBX_OIDC_TOKEN_FILE,
    FPC_DBX_TOKEN_AUDIENCE,
    FPC_DBX_CLI_PATH,
    FPC_DBX_METADATA_URL,
    FPC_DBX_AZURE_CLIENT_ID,
    FPC_DBX_AZURE_CLIENT_SECRET,
    FPC_DBX_AZURE_TENANT_ID,
    FPC_DBX_AZURE_RESOURCE_ID,
    /* ours: settings only, some with a variable */
    FPC_DBX_INSTANCE_NAME,
    FPC_DBX_ENDPOINT,
    FPC_DBX_DATABASE_HOST,
    FPC_DBX_DATABASE_USER,
    FPC_DBX_CA_FILE,
    FPC_DBX_CLI_MIN_BYTES,
    FPC_DBX_MODEL_SERVING_FILE,
    FPC_DBX_AZURE_AUTHORITY,
    /* the environment only */
    FPC_DBX_GITHUB_URL,
    FPC_DBX_GITHUB_TOKEN,
    FPC_DBX_MODEL_SERVING,
    FPC_DBX_MODEL_SERVING_HOST,
    FPC_DBX_COUNT
} fpc_dbx;

typedef struct fpc_dbx_config {
    char *values[FPC_DBX_COUNT];     /* NULL: not given */
    const char *from[FPC_DBX_COUNT]; /* where the value was found, for messages; static */
    char *instances;                 /* the names of all instances as a JSON array; NULL: none */
    char place[256];                 /* "profile x of FILE", when the file was read; else "" */
} fpc_dbx_config;

/* Settings and environment.  FPC_INVALID for an unknown setting, both kinds of database or none. */
fpc_status fpc_dbx_config_read(const fpc_token_settings *settings, fpc_dbx_config *out, fpc_error *err);

/* Adds what the file says to a copy, and checks the whole: the host becomes "https://name[:port]".
 * FPC_INVALID for a file that cannot be read, a profile that is missing, an address that is none, an
 * auth_type that we do not have, and logins of two kinds without auth_type. */
fpc_status fpc_dbx_config_resolve(const fpc_dbx_config *given, fpc_dbx_config *out, fpc_error *err);

void fpc_dbx_config_clear(fpc_dbx_config *config);

/* The environment variable that holds the token of env-oidc, and its value; NULL: it is not set. */
const char *fpc_dbx_oidc_token(const fpc_dbx_config *config, const char **name);

/* Whether the host is that of an account and not of a workspace. */
bool fpc_dbx_is_account(const fpc_dbx_config *config);

#endif
