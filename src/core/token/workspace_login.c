/* workspace_login.c -- the logins in their order, and the two that need no request. */
#include "token/workspace_login.h"

#include "http_error.h"
#include "secret.h"
#include "token/cloud.h"

#include <stdio.h>
#include <string.h>

#define MODEL_SERVING_FILE "/var/credentials-secret/model-dependencies-oauth-token"

void fpc_workspace_token_clear(fpc_workspace_token *token) {
    fpc_secret_free(token->bearer);
    fpc_secret_free(token->management);
    *token = (fpc_workspace_token){.valid_for_s = -1};
}

fpc_status fpc_workspace_ask_token(const fpc_workspace_session *session, const fpc_http_request *request,
                                   const char *who, fpc_workspace_token *out, fpc_token_failure *failure) {
    fpc_http_response response = {0};
    fpc_token token;
    fpc_token_init(&token);
    fpc_status status = fpc_cloud_ask(session->http, request, who, &response, failure);
    if (status == FPC_OK) status = fpc_cloud_take_token(&response, who, session->start_ns, &token, failure);
    if (status == FPC_OK) {
        out->bearer = token.password;
        out->valid_for_s = token.valid_for_s;
        token.password = NULL;
    }
    fpc_token_clear(&token);
    fpc_http_response_clear(&response);
    return status;
}

/* --- pat --- */

static const char *pat_missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    return config->values[FPC_DBX_TOKEN] == NULL ? "no token" : NULL;
}

static fpc_status pat(const fpc_workspace_session *session, fpc_workspace_token *out,
                      fpc_token_failure *failure) {
    const char *token = session->config->values[FPC_DBX_TOKEN];
    if (!fpc_cloud_is_token(token))
        return fpc_token_fail(failure, true, FPC_INVALID, "the token has bytes that no token has");
    out->bearer = fpc_secret_dup(token);
    return out->bearer == NULL ? fpc_token_no_memory(failure) : FPC_OK;
}

static const fpc_workspace_login LOGIN_PAT = {"pat", pat_missing, pat};

/* --- model-serving --- */

static const char *model_serving_missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    const char *in = config->values[FPC_DBX_MODEL_SERVING];
    return in == NULL || strcmp(in, "true") != 0 ? "IS_IN_DB_MODEL_SERVING_ENV is not true" : NULL;
}

static fpc_status model_serving(const fpc_workspace_session *session, fpc_workspace_token *out,
                                fpc_token_failure *failure) {
    const char *path = session->config->values[FPC_DBX_MODEL_SERVING_FILE];
    if (path == NULL) path = MODEL_SERVING_FILE;
    fpc_secret_buffer text = {0};
    fpc_status status = fpc_cloud_read_file(path, &text, failure);
    if (status == FPC_OK) {
        json_t *root = json_loadb(text.bytes, text.length, 0, NULL);
        const json_t *first = json_array_get(json_object_get(root, "OAUTH_TOKEN"), 0);
        const char *token = fpc_cloud_json_text(first, "oauthTokenValue");
        if (token == NULL || !fpc_cloud_is_token(token))
            status = fpc_token_fail(failure, false, FPC_INVALID,
                                    "%.200s has no OAUTH_TOKEN[0].oauthTokenValue", path);
        else if ((out->bearer = fpc_secret_dup(token)) == NULL)
            status = fpc_token_no_memory(failure);
        fpc_cloud_json_delete(root);
    }
    fpc_secret_buffer_clear(&text);
    return status;
}

const fpc_workspace_login fpc_login_model_serving = {"model-serving", model_serving_missing, model_serving};

/* --- the order --- */

/* What was configured on purpose comes first, what only happens to be there last. */
static const fpc_workspace_login *const LOGINS[] = {
    &LOGIN_PAT,
    &fpc_login_oauth_m2m,
    &fpc_login_env_oidc,
    &fpc_login_file_oidc,
    &fpc_login_github_oidc,
    &fpc_login_azure_client_secret,
    &fpc_login_metadata_service,
    &fpc_login_model_serving,
    &fpc_login_databricks_cli,
};
#define LOGIN_COUNT (sizeof LOGINS / sizeof *LOGINS)

fpc_status fpc_workspace_login_check(const char *name, fpc_error *err) {
    char all[200] = "";
    for (size_t i = 0; i < LOGIN_COUNT; i++) {
        if (strcmp(LOGINS[i]->name, name) == 0) return FPC_OK;
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", used == 0 ? "" : ", ", LOGINS[i]->name);
    }
    return fpc_fail(err, FPC_INVALID, "auth_type \"%.40s\" is not one of: %s", name, all);
}

/* Adds "name: why" to the list of what was tried. */
static void note(char *tried, size_t size, const char *name, const char *why) {
    size_t used = strlen(tried);
    snprintf(tried + used, size - used, "%s%s: %s", used == 0 ? "" : "; ", name, why);
}

fpc_status fpc_workspace_log_in(const fpc_workspace_session *session, fpc_workspace_token *out,
                                fpc_token_failure *failure) {
    const char *only = session->config->values[FPC_DBX_AUTH_TYPE];
    char tried[460] = "", words[160];
    *out = (fpc_workspace_token){.valid_for_s = -1};
    for (size_t i = 0; i < LOGIN_COUNT; i++) {
        const fpc_workspace_login *login = LOGINS[i];
        if (only != NULL && strcmp(only, login->name) != 0) continue;
        const char *why = login->missing(session->config, words, sizeof words);
        if (why == NULL) {
            out->login = login->name;
            fpc_http_name_auth(session->http, login->name);
            fpc_status status = login->log_in(session, out, failure);
            if (status != FPC_OK) fpc_error_prefix(&failure->error, "login %s: ", login->name);
            if (status != FPC_OK || out->bearer != NULL) return status;
            snprintf(words, sizeof words, "%.159s", failure->error.message);
            why = words;
        }
        note(tried, sizeof tried, login->name, why);
    }
    return fpc_token_fail(failure, true, FPC_INVALID, "no login to the workspace applies: %s", tried);
}
