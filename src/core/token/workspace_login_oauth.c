/* workspace_login_oauth.c -- OAuth at the workspace itself: a client's secret, or somebody else's token in
 * exchange for one of the workspace (workload identity federation). */
#include "secret.h"
#include "token/cloud.h"
#include "token/workspace_login.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHO      "the workspace's token endpoint"
#define EXCHANGE "urn:ietf:params:oauth:grant-type:token-exchange"
#define JWT      "urn:ietf:params:oauth:token-type:jwt"
#define ALL_APIS "all-apis"

/* The answer's token_endpoint, if it is an address to which a secret may go; else NULL. */
static char *endpoint_in(const fpc_http_response *response) {
    json_t *root = json_loadb(response->body.bytes, response->body.length, 0, NULL);
    const char *url = fpc_cloud_json_text(root, "token_endpoint");
    char *copy = url != NULL && strncmp(url, "https://", 8) == 0 ? fpc_secret_dup(url) : NULL;
    json_decref(root);
    return copy;
}

/* Asks where the tokens are.  Without an answer the place is the known one, unless an address was given. */
static fpc_status discover(const fpc_workspace_session *session, char **endpoint,
                           fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    const char *given = config->values[FPC_DBX_DISCOVERY_URL], *host = config->values[FPC_DBX_HOST];
    const char *account = config->values[FPC_DBX_ACCOUNT_ID];
    bool is_account = fpc_dbx_is_account(config) && account != NULL;
    fpc_secret_buffer base = {0}, url = {0};
    fpc_http_response response = {0};
    fpc_secret_append_text(&base, host);
    fpc_secret_append_text(&base, "/oidc");
    if (is_account) {
        fpc_secret_append_text(&base, "/accounts/");
        fpc_http_encode(&base, account);
    }
    fpc_secret_append_text(&url, given != NULL ? given : base.failed ? "" : base.bytes);
    if (given == NULL) fpc_secret_append_text(&url, "/.well-known/oauth-authorization-server");
    fpc_status status = FPC_OK;
    *endpoint = NULL;
    if (base.failed || url.failed) {
        status = fpc_token_no_memory(failure);
    } else {
        fpc_http_request request = {.method = "GET", .url = url.bytes};
        status = fpc_http_send(session->http, &request, &response, failure);
        if (status == FPC_OK && response.status == 200) *endpoint = endpoint_in(&response);
        if (status == FPC_OK && *endpoint == NULL && given != NULL)
            status = fpc_token_fail(failure, false, FPC_SERVER,
                                    "discovery_url answered %d without a token_endpoint", response.status);
        bool guess = given == NULL && *endpoint == NULL && (status == FPC_OK || status == FPC_SERVER);
        if (guess) {
            fpc_secret_append_text(&base, "/v1/token");
            *endpoint = fpc_secret_take(&base);
            status = *endpoint == NULL ? fpc_token_no_memory(failure) : FPC_OK;
        }
    }
    fpc_secret_buffer_clear(&base);
    fpc_secret_buffer_clear(&url);
    fpc_http_response_clear(&response);
    return status;
}

static const char *scope_of(const fpc_dbx_config *config, char *out, size_t size) {
    const char *scopes = config->values[FPC_DBX_SCOPES];
    if (scopes == NULL) return ALL_APIS;
    snprintf(out, size, "%s", scopes); /* the server takes any order, and one twice */
    for (char *at = out; *at != '\0'; at++)
        if (*at == ',') *at = ' ';
    return out;
}

static fpc_status post(const fpc_workspace_session *session, const char *endpoint, fpc_secret_buffer *form,
                       const char *user, const char *password, fpc_workspace_token *out,
                       fpc_token_failure *failure) {
    if (form->failed) return fpc_token_no_memory(failure);
    fpc_http_request request = {.method = "POST",
                                .url = endpoint,
                                .user = user,
                                .password = password,
                                .body = form->bytes,
                                .body_len = form->length};
    return fpc_workspace_ask_token(session, &request, WHO, out, failure);
}

/* --- oauth-m2m --- */

static const char *m2m_missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    if (config->values[FPC_DBX_CLIENT_ID] == NULL) return "no client_id";
    return config->values[FPC_DBX_CLIENT_SECRET] == NULL ? "no client_secret" : NULL;
}

static fpc_status m2m(const fpc_workspace_session *session, fpc_workspace_token *out,
                      fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    char *endpoint, scopes[512];
    fpc_status status = discover(session, &endpoint, failure);
    if (status != FPC_OK) return status;
    fpc_secret_buffer form = {0};
    fpc_http_form_add(&form, "grant_type", "client_credentials");
    fpc_http_form_add(&form, "scope", scope_of(config, scopes, sizeof scopes));
    status = post(session, endpoint, &form, config->values[FPC_DBX_CLIENT_ID],
                  config->values[FPC_DBX_CLIENT_SECRET], out, failure);
    fpc_secret_buffer_clear(&form);
    fpc_secret_free(endpoint);
    return status;
}

const fpc_workspace_login fpc_login_oauth_m2m = {"oauth-m2m", m2m_missing, m2m};

/* --- tokens of others --- */

/* Trades a token at an endpoint. */
static fpc_status trade_at(const fpc_workspace_session *session, const char *endpoint, const char *subject,
                           fpc_workspace_token *out, fpc_token_failure *failure) {
    char scopes[512];
    const char *client = session->config->values[FPC_DBX_CLIENT_ID];
    fpc_secret_buffer form = {0};
    fpc_http_form_add(&form, "grant_type", EXCHANGE);
    fpc_http_form_add(&form, "subject_token", subject);
    fpc_http_form_add(&form, "subject_token_type", JWT);
    fpc_http_form_add(&form, "scope", scope_of(session->config, scopes, sizeof scopes));
    if (client != NULL)
        fpc_http_form_add(&form, "client_id", client); /* the policy is a service principal's */
    fpc_status status = post(session, endpoint, &form, NULL, NULL, out, failure);
    fpc_secret_buffer_clear(&form);
    return status;
}

static fpc_status trade(const fpc_workspace_session *session, const char *subject, fpc_workspace_token *out,
                        fpc_token_failure *failure) {
    char *endpoint;
    fpc_status status = discover(session, &endpoint, failure);
    if (status == FPC_OK) status = trade_at(session, endpoint, subject, out, failure);
    fpc_secret_free(endpoint);
    return status;
}

static const char *env_missing(const fpc_dbx_config *config, char *words, size_t size) {
    const char *name;
    if (fpc_dbx_oidc_token(config, &name) != NULL) return NULL;
    snprintf(words, size, "%.60s is not set", name);
    return words;
}

static fpc_status env_oidc(const fpc_workspace_session *session, fpc_workspace_token *out,
                           fpc_token_failure *failure) {
    const char *name;
    return trade(session, fpc_dbx_oidc_token(session->config, &name), out, failure);
}

const fpc_workspace_login fpc_login_env_oidc = {"env-oidc", env_missing, env_oidc};

static const char *file_missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    return config->values[FPC_DBX_OIDC_TOKEN_FILE] == NULL ? "no oidc_token_filepath" : NULL;
}

static fpc_status file_oidc(const fpc_workspace_session *session, fpc_workspace_token *out,
                            fpc_token_failure *failure) {
    fpc_secret_buffer token = {0};
    fpc_status status =
        fpc_cloud_read_file(session->config->values[FPC_DBX_OIDC_TOKEN_FILE], &token, failure);
    if (status == FPC_OK) status = trade(session, token.bytes, out, failure);
    fpc_secret_buffer_clear(&token);
    return status;
}

const fpc_workspace_login fpc_login_file_oidc = {"file-oidc", file_missing, file_oidc};

/* --- GitHub's jobs --- */

static const char *github_missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    if (config->values[FPC_DBX_GITHUB_URL] == NULL) return "ACTIONS_ID_TOKEN_REQUEST_URL is not set";
    return config->values[FPC_DBX_GITHUB_TOKEN] == NULL ? "ACTIONS_ID_TOKEN_REQUEST_TOKEN is not set" : NULL;
}

/* GitHub's token for this job, made out to the audience; in `subject`. */
static fpc_status ask_github(const fpc_workspace_session *session, const char *audience,
                             fpc_secret_buffer *subject, fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    fpc_secret_buffer url = {0}, bearer = {0};
    fpc_http_response response = {0};
    json_t *root = NULL;
    fpc_secret_append_text(&url, config->values[FPC_DBX_GITHUB_URL]);
    fpc_secret_append_text(&url, strchr(config->values[FPC_DBX_GITHUB_URL], '?') != NULL ? "&" : "?");
    fpc_http_form_add(&bearer, "audience", audience);
    if (!bearer.failed) fpc_secret_append_text(&url, bearer.bytes);
    fpc_secret_buffer_clear(&bearer);
    fpc_secret_append_text(&bearer, "Bearer ");
    fpc_secret_append_text(&bearer, config->values[FPC_DBX_GITHUB_TOKEN]);
    fpc_http_request request = {
        .method = "GET", .url = url.bytes, .headers = {{"Authorization", bearer.bytes}}};
    fpc_status status = url.failed || bearer.failed
                            ? fpc_token_no_memory(failure)
                            : fpc_cloud_ask(session->http, &request, "GitHub", &response, failure);
    if (status == FPC_OK) status = fpc_cloud_json(&response, "GitHub", &root, failure);
    if (status == FPC_OK) {
        const char *value = fpc_cloud_json_text(root, "value");
        if (value == NULL)
            status = fpc_token_fail(failure, false, FPC_SERVER, "GitHub answered without a token");
        else if (!fpc_secret_append_text(subject, value))
            status = fpc_token_no_memory(failure);
    }
    fpc_cloud_json_delete(root);
    fpc_http_response_clear(&response);
    fpc_secret_buffer_clear(&url);
    fpc_secret_buffer_clear(&bearer);
    return status;
}

static fpc_status github_oidc(const fpc_workspace_session *session, fpc_workspace_token *out,
                              fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    char *endpoint;
    fpc_secret_buffer subject = {0};
    fpc_status status = discover(session, &endpoint, failure);
    if (status != FPC_OK) return status;
    const char *audience = config->values[FPC_DBX_TOKEN_AUDIENCE];
    if (audience == NULL && fpc_dbx_is_account(config)) audience = config->values[FPC_DBX_ACCOUNT_ID];
    if (audience == NULL) audience = endpoint;
    status = ask_github(session, audience, &subject, failure);
    if (status == FPC_OK) status = trade_at(session, endpoint, subject.bytes, out, failure);
    fpc_secret_buffer_clear(&subject);
    fpc_secret_free(endpoint);
    return status;
}

const fpc_workspace_login fpc_login_github_oidc = {"github-oidc", github_missing, github_oidc};
