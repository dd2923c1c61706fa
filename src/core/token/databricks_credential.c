/* databricks_credential.c -- the requests to the workspace's REST API. */
#include "token/databricks_credential.h"

#include "fpcache/os.h"
#include "http_error.h"
#include "rfc3339.h"
#include "secret.h"
#include "token/cloud.h"
#include "token/jwt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHO          "the workspace"
#define USUAL_LIFE_S 3600.0 /* when no end can be read */

/* One request of the API; the answer as JSON. */
static fpc_status call(const fpc_workspace_session *session, const fpc_workspace_token *token,
                       const char *method, const char *path, const fpc_secret_buffer *body,
                       fpc_http_response *response, json_t **out, fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    fpc_secret_buffer url = {0}, bearer = {0};
    fpc_secret_append_text(&url, config->values[FPC_DBX_HOST]);
    fpc_secret_append_text(&url, path);
    fpc_secret_append_text(&bearer, "Bearer ");
    fpc_secret_append_text(&bearer, token->bearer);
    fpc_http_request request = {.method = method, .url = url.bytes};
    int n = 0;
    request.headers[n++] = (fpc_http_header){"Authorization", bearer.bytes};
    if (config->values[FPC_DBX_WORKSPACE_ID] != NULL)
        request.headers[n++] =
            (fpc_http_header){"X-Databricks-Workspace-Id", config->values[FPC_DBX_WORKSPACE_ID]};
    if (token->management != NULL) {
        request.headers[n++] = (fpc_http_header){"X-Databricks-Azure-SP-Management-Token", token->management};
        request.headers[n++] = (fpc_http_header){"X-Databricks-Azure-Workspace-Resource-Id",
                                                 config->values[FPC_DBX_AZURE_RESOURCE_ID]};
    }
    if (body != NULL) {
        request.body = body->bytes;
        request.body_len = body->length;
        request.body_type = "application/json";
    }
    *out = NULL;
    fpc_status status = url.failed || bearer.failed
                            ? fpc_token_no_memory(failure)
                            : fpc_cloud_ask(session->http, &request, WHO, response, failure);
    if (status == FPC_OK) status = fpc_cloud_json(response, WHO, out, failure);
    fpc_secret_buffer_clear(&url);
    fpc_secret_buffer_clear(&bearer);
    return status;
}

/* A GET; *out is given back with fpc_cloud_json_delete(), also after a failure. */
static fpc_status get(const fpc_workspace_session *session, const fpc_workspace_token *token,
                      const char *path, json_t **out, fpc_token_failure *failure) {
    fpc_http_response response = {0};
    fpc_status status = call(session, token, "GET", path, NULL, &response, out, failure);
    fpc_http_response_clear(&response);
    return status;
}

/* --- where the database is --- */

void fpc_dbx_database_clear(fpc_dbx_database *database) {
    fpc_secret_clear(&database->endpoint);
    fpc_secret_clear(&database->host);
}

static bool is_one_of(const char *text, const char *const *list) {
    for (; text != NULL && *list != NULL; list++)
        if (strcmp(text, *list) == 0) return true;
    return false;
}

static fpc_status take_host(const char *host, const char *what, fpc_dbx_database *out,
                            fpc_token_failure *failure) {
    if (host == NULL)
        return fpc_token_fail(failure, false, FPC_SERVER, WHO " does not say the host of %.120s", what);
    out->host = fpc_secret_dup(host);
    return out->host == NULL ? fpc_token_no_memory(failure) : FPC_OK;
}

static fpc_status find_instance(const fpc_workspace_session *session, const fpc_workspace_token *token,
                                fpc_dbx_database *out, fpc_token_failure *failure) {
    static const char *const CHANGING[] = {"STARTING", "UPDATING", "FAILING_OVER", "UPGRADING", NULL};
    static const char *const GONE[] = {"STOPPED", "DELETING", NULL};
    const char *name = session->config->values[FPC_DBX_INSTANCE_NAME];
    fpc_secret_buffer path = {0};
    json_t *root = NULL;
    fpc_secret_append_text(&path, "/api/2.0/database/instances/");
    fpc_http_encode(&path, name);
    fpc_status status =
        path.failed ? fpc_token_no_memory(failure) : get(session, token, path.bytes, &root, failure);
    if (status == FPC_OK) {
        const char *state = fpc_cloud_json_text(root, "state");
        bool changing = is_one_of(state, CHANGING);
        if (changing || is_one_of(state, GONE))
            status = fpc_token_fail(failure, !changing, changing ? FPC_SERVER : FPC_INVALID,
                                    "the instance %.80s is %s", name, state);
        else
            status = take_host(fpc_cloud_json_text(root, "read_write_dns"), name, out, failure);
    }
    fpc_cloud_json_delete(root);
    fpc_secret_buffer_clear(&path);
    return status;
}

static fpc_status take_endpoint(const json_t *endpoint, const char *name, fpc_dbx_database *out,
                                fpc_token_failure *failure) {
    const json_t *state = json_object_get(endpoint, "status");
    if (json_is_true(json_object_get(state, "disabled")))
        return fpc_token_fail(failure, true, FPC_INVALID, "the endpoint %.150s is disabled", name);
    out->endpoint = fpc_secret_dup(name);
    if (out->endpoint == NULL) return fpc_token_no_memory(failure);
    /* Not the pooled host: its pooler takes no tokens. */
    return take_host(fpc_cloud_json_text(json_object_get(state, "hosts"), "host"), name, out, failure);
}

/* The endpoint of a branch that can write. */
static fpc_status choose_endpoint(const json_t *root, const char *branch, fpc_dbx_database *out,
                                  fpc_token_failure *failure) {
    size_t i;
    const json_t *endpoint;
    json_array_foreach(json_object_get(root, "endpoints"), i, endpoint) {
        const char *type = fpc_cloud_json_text(json_object_get(endpoint, "status"), "endpoint_type");
        const char *name = fpc_cloud_json_text(endpoint, "name");
        if (name != NULL && type != NULL && strcmp(type, "ENDPOINT_TYPE_READ_WRITE") == 0)
            return take_endpoint(endpoint, name, out, failure);
    }
    return fpc_token_fail(failure, true, FPC_INVALID, "%.150s has no endpoint that can write", branch);
}

static fpc_status find_endpoint(const fpc_workspace_session *session, const fpc_workspace_token *token,
                                fpc_dbx_database *out, fpc_token_failure *failure) {
    const char *name = session->config->values[FPC_DBX_ENDPOINT];
    bool is_branch = strstr(name, "/endpoints/") == NULL;
    fpc_secret_buffer path = {0};
    json_t *root = NULL;
    fpc_secret_append_text(&path, "/api/2.0/postgres/");
    for (const char *at = name; *at != '\0';) { /* each part by itself: the slashes stay */
        char part[128];
        size_t len = strcspn(at, "/");
        snprintf(part, sizeof part, "%.*s", (int)len, at);
        fpc_http_encode(&path, part);
        at += len;
        if (*at == '/') {
            fpc_secret_append_text(&path, "/");
            at++;
        }
    }
    if (is_branch) fpc_secret_append_text(&path, "/endpoints");
    fpc_status status =
        path.failed ? fpc_token_no_memory(failure) : get(session, token, path.bytes, &root, failure);
    if (status == FPC_OK)
        status =
            is_branch ? choose_endpoint(root, name, out, failure) : take_endpoint(root, name, out, failure);
    fpc_cloud_json_delete(root);
    fpc_secret_buffer_clear(&path);
    return status;
}

fpc_status fpc_dbx_find_database(const fpc_workspace_session *session, const fpc_workspace_token *token,
                                 fpc_dbx_database *out, fpc_token_failure *failure) {
    fpc_dbx_database_clear(out);
    fpc_status status = session->config->values[FPC_DBX_ENDPOINT] != NULL
                            ? find_endpoint(session, token, out, failure)
                            : find_instance(session, token, out, failure);
    if (status != FPC_OK) fpc_dbx_database_clear(out);
    return status;
}

/* --- who we are --- */

fpc_status fpc_dbx_find_user(const fpc_workspace_session *session, const fpc_workspace_token *token,
                             char **user, fpc_token_failure *failure) {
    json_t *root = NULL;
    *user = NULL;
    fpc_status status = get(session, token, "/api/2.0/preview/scim/v2/Me", &root, failure);
    if (status == FPC_OK) {
        const char *name = fpc_cloud_json_text(root, "userName");
        if (name == NULL)
            status = fpc_token_fail(failure, false, FPC_SERVER, WHO " does not say who we are (userName)");
        else if ((*user = fpc_secret_dup(name)) == NULL)
            status = fpc_token_no_memory(failure);
    }
    fpc_cloud_json_delete(root);
    return status;
}

/* --- the password --- */

/* A UUID of random bytes (version 4). */
static fpc_status make_uuid(char out[37], fpc_token_failure *failure) {
    unsigned char r[16];
    fpc_error err;
    if (fpc_os_random(r, sizeof r, &err) != FPC_OK)
        return fpc_token_fail(failure, false, err.status, "%s", err.message);
    r[6] = (unsigned char)((r[6] & 0x0F) | 0x40);
    r[8] = (unsigned char)((r[8] & 0x3F) | 0x80);
    size_t at = 0;
    for (size_t i = 0; i < sizeof r; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out[at++] = '-';
        at += (size_t)snprintf(out + at, 3, "%02x", r[i]);
    }
    return FPC_OK;
}

static fpc_status make_body(const fpc_workspace_session *session, const char *endpoint,
                            fpc_secret_buffer *body, fpc_token_failure *failure) {
    char uuid[37];
    fpc_status status = make_uuid(uuid, failure);
    if (status != FPC_OK) return status;
    if (endpoint == NULL) {
        fpc_secret_append_text(body, "{\"instance_names\":");
        fpc_secret_append_text(body, session->config->instances);
        fpc_secret_appendf(body, ",\"request_id\":\"%s\"}", uuid);
    } else {
        json_t *root = json_pack("{s:s}", "endpoint", endpoint);
        char *text = root == NULL ? NULL : json_dumps(root, JSON_COMPACT);
        if (text == NULL) body->failed = true;
        if (text != NULL) fpc_secret_append_text(body, text);
        free(text);
        json_decref(root);
    }
    return body->failed ? fpc_token_no_memory(failure) : FPC_OK;
}

/* How long the password is good: by its own field, by what a JWT says, or as usual. */
static double valid_for(const fpc_http_response *response, const json_t *root, const char *token,
                        int64_t start_ns) {
    const char *end = fpc_cloud_json_text(root, "expiration_time");
    double seconds;
    if (end == NULL) end = fpc_cloud_json_text(root, "expire_time");
    if ((end != NULL && fpc_rfc3339_parse(end, &seconds)) || fpc_jwt_expiry(token, &seconds))
        return fpc_http_valid_until(response, seconds, start_ns);
    return fpc_http_valid_for(response, USUAL_LIFE_S, start_ns);
}

fpc_status fpc_dbx_mint(const fpc_workspace_session *session, const fpc_workspace_token *token,
                        const char *endpoint, fpc_token *out, fpc_token_failure *failure) {
    const char *path = endpoint == NULL ? "/api/2.0/database/credentials" : "/api/2.0/postgres/credentials";
    fpc_secret_buffer body = {0};
    fpc_http_response response = {0};
    json_t *root = NULL;
    fpc_status status = make_body(session, endpoint, &body, failure);
    if (status == FPC_OK) status = call(session, token, "POST", path, &body, &response, &root, failure);
    if (status == FPC_OK) {
        const char *password = fpc_cloud_json_text(root, "token");
        if (password == NULL || !fpc_cloud_is_token(password)) {
            status = fpc_http_odd_answer(&response, WHO, "token", failure);
        } else if ((out->password = fpc_secret_dup(password)) == NULL) {
            status = fpc_token_no_memory(failure);
        } else {
            out->valid_for_s = valid_for(&response, root, password, session->start_ns);
        }
    }
    fpc_cloud_json_delete(root);
    fpc_http_response_clear(&response);
    fpc_secret_buffer_clear(&body);
    return status;
}
