/* workspace_login_azure.c -- azure-client-secret: a service principal of Entra logs in to the workspace. */
#include "secret.h"
#include "token/cloud.h"
#include "token/workspace_login.h"

#include <string.h>

#define WHO        "Entra"
#define AUTHORITY  "https://login.microsoftonline.com"
#define DATABRICKS "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d" /* the application id of Azure Databricks */
#define MANAGEMENT "https://management.core.windows.net/"

static const char *missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    if (config->values[FPC_DBX_AZURE_CLIENT_ID] == NULL) return "no azure_client_id";
    return config->values[FPC_DBX_AZURE_CLIENT_SECRET] == NULL ? "no azure_client_secret" : NULL;
}

/* The tenant as given, or as the workspace's own login page tells. */
static fpc_status find_tenant(const fpc_workspace_session *session, char **tenant,
                              fpc_token_failure *failure) {
    const char *given = session->config->values[FPC_DBX_AZURE_TENANT_ID];
    *tenant = fpc_secret_dup(given);
    if (given != NULL) return *tenant == NULL ? fpc_token_no_memory(failure) : FPC_OK;
    fpc_secret_buffer url = {0};
    fpc_http_response response = {0};
    fpc_secret_append_text(&url, session->config->values[FPC_DBX_HOST]);
    fpc_secret_append_text(&url, "/aad/auth");
    fpc_http_request request = {.method = "GET", .url = url.bytes};
    fpc_status status = url.failed ? fpc_token_no_memory(failure)
                                   : fpc_http_send(session->http, &request, &response, failure);
    if (status == FPC_OK) {
        char *location = fpc_http_response_header(&response, "Location");
        const char *path = location == NULL ? NULL : strstr(location, "://");
        path = path == NULL ? NULL : strchr(path + 3, '/');
        size_t len = path == NULL ? 0 : strcspn(path + 1, "/?#");
        if (len > 0) *tenant = fpc_secret_copy(path + 1, len);
        if (*tenant == NULL)
            status = fpc_token_fail(failure, true, FPC_INVALID,
                                    "the workspace does not tell its tenant; set azure_tenant_id");
        fpc_secret_free(location);
    }
    fpc_secret_buffer_clear(&url);
    fpc_http_response_clear(&response);
    return status;
}

static fpc_status ask(const fpc_workspace_session *session, const char *url, const char *resource,
                      fpc_workspace_token *out, fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    fpc_secret_buffer form = {0};
    fpc_http_form_add(&form, "client_id", config->values[FPC_DBX_AZURE_CLIENT_ID]);
    fpc_http_form_add(&form, "client_secret", config->values[FPC_DBX_AZURE_CLIENT_SECRET]);
    fpc_http_form_add(&form, "grant_type", "client_credentials");
    fpc_http_form_add(&form, "resource", resource);
    fpc_http_request request = {.method = "POST", .url = url, .body = form.bytes, .body_len = form.length};
    fpc_status status = form.failed ? fpc_token_no_memory(failure)
                                    : fpc_workspace_ask_token(session, &request, WHO, out, failure);
    fpc_secret_buffer_clear(&form);
    return status;
}

static fpc_status log_in(const fpc_workspace_session *session, fpc_workspace_token *out,
                         fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    const char *authority = config->values[FPC_DBX_AZURE_AUTHORITY];
    char *tenant;
    fpc_status status = find_tenant(session, &tenant, failure);
    if (status != FPC_OK) return status;
    fpc_secret_buffer url = {0};
    if (authority == NULL) authority = AUTHORITY;
    size_t len = strlen(authority);
    while (len > 0 && authority[len - 1] == '/') len--;
    fpc_secret_append(&url, authority, len);
    fpc_secret_append_text(&url, "/");
    fpc_http_encode(&url, tenant);
    fpc_secret_append_text(&url, "/oauth2/token");
    fpc_secret_free(tenant);
    status = url.failed ? fpc_token_no_memory(failure) : ask(session, url.bytes, DATABRICKS, out, failure);
    if (status == FPC_OK && config->values[FPC_DBX_AZURE_RESOURCE_ID] != NULL) {
        fpc_workspace_token second = {.valid_for_s = -1};
        status = ask(session, url.bytes, MANAGEMENT, &second, failure);
        out->management = second.bearer;
        second.bearer = NULL;
        fpc_workspace_token_clear(&second);
    }
    fpc_secret_buffer_clear(&url);
    if (status != FPC_OK) fpc_secret_clear(&out->bearer);
    return status;
}

const fpc_workspace_login fpc_login_azure_client_secret = {"azure-client-secret", missing, log_in};
