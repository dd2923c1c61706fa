/* workspace_login_metadata.c -- metadata-service: a small server on this machine, such as that of the VS Code
 * extension, which has the login. */
#include "token/workspace_login.h"

#include <string.h>

#define SECONDS 10.0

static const char *missing(const fpc_dbx_config *config, char *words, size_t size) {
    (void)words;
    (void)size;
    return config->values[FPC_DBX_METADATA_URL] == NULL ? "no metadata_service_url" : NULL;
}

static fpc_status log_in(const fpc_workspace_session *session, fpc_workspace_token *out,
                         fpc_token_failure *failure) {
    const char *url = session->config->values[FPC_DBX_METADATA_URL];
    if (!fpc_http_is_local(url, true))
        return fpc_token_fail(failure, true, FPC_INVALID, "metadata_service_url is not on this machine");
    fpc_http_request request = {.method = "GET",
                                .url = url,
                                .headers = {{"X-Databricks-Metadata-Version", "1"},
                                            {"X-Databricks-Host", session->config->values[FPC_DBX_HOST]}},
                                .local = true,
                                .timeout_s = SECONDS};
    fpc_status status = fpc_workspace_ask_token(session, &request, "the metadata service", out, failure);
    if (status == FPC_CONNECT)
        fpc_error_prefix(&failure->error, "is metadata_service_url left over from an old terminal? ");
    return status;
}

const fpc_workspace_login fpc_login_metadata_service = {"metadata-service", missing, log_in};
