/* azure.c -- Azure Database for PostgreSQL with Entra: the password is an access token for the databases.
 *
 * Three ways to get one, and which fits is known from the environment:
 *   workload-identity   Entra itself, asked with a token of Kubernetes that stands in a file (AKS)
 *   app-service         the identity endpoint that App Service and Container Apps give
 *   imds                the metadata service of a virtual machine
 * Settings: method, client_id, tenant_id, federated_token_file, authority_host, resource.  Environment: the
 * variables below, as the SDKs of Azure read them. */
#include "http_error.h"
#include "token/cloud.h"
#include "token/source.h"

#include <stdlib.h>
#include <string.h>

#define RESOURCE  "https://ossrdbms-aad.database.windows.net"
#define AUTHORITY "https://login.microsoftonline.com/"
#define IMDS      "http://169.254.169.254"

enum setting { METHOD, CLIENT, TENANT, TOKEN_FILE, AUTHORITY_HOST, RESOURCE_NAME, SETTINGS };
static const char *const NAMES[SETTINGS + 1] = {
    "method", "client_id", "tenant_id", "federated_token_file", "authority_host", "resource", NULL};

enum variable {
    VAR_CLIENT,
    VAR_TENANT,
    VAR_TOKEN_FILE,
    VAR_AUTHORITY,
    VAR_ENDPOINT,
    VAR_HEADER,
    VAR_IMDS,
    VARS
};
static const char *const VARIABLES[VARS] = {
    "AZURE_CLIENT_ID",   "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE",       "AZURE_AUTHORITY_HOST",
    "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "AZURE_POD_IDENTITY_AUTHORITY_HOST"};

typedef struct azure_source azure_source;
typedef fpc_status ask_function(const azure_source *self, fpc_http *http, fpc_http_response *response,
                                fpc_token_failure *failure);

#define WHO_IMDS        "Azure's metadata service"
#define WHO_APP_SERVICE "the identity endpoint of App Service"
#define WHO_ENTRA       "Entra"

struct azure_source {
    fpc_token_source head;
    char *settings[SETTINGS];
    char *vars[VARS];
    const struct method *method;
};

static const char *resource_of(const azure_source *self) {
    return self->settings[RESOURCE_NAME] != NULL ? self->settings[RESOURCE_NAME] : RESOURCE;
}

/* A setting, or what the environment says instead. */
static const char *value(const azure_source *self, enum setting setting, enum variable variable) {
    return self->settings[setting] != NULL ? self->settings[setting] : self->vars[variable];
}

/* Adds `text` without the slashes at its end. */
static void add_base(fpc_secret_buffer *url, const char *text) {
    size_t length = strlen(text);
    while (length > 0 && text[length - 1] == '/') length--;
    fpc_secret_append(url, text, length);
}

/* A GET of an endpoint on this machine. */
static fpc_status ask_local(const azure_source *self, fpc_http *http, fpc_secret_buffer *url,
                            const char *client_id, fpc_http_header header, const char *who,
                            fpc_http_response *response, fpc_token_failure *failure) {
    fpc_secret_append_text(url, "&resource=");
    fpc_http_encode(url, resource_of(self));
    if (client_id != NULL) {
        fpc_secret_append_text(url, "&client_id=");
        fpc_http_encode(url, client_id);
    }
    fpc_http_request request = {.method = "GET",
                                .url = url->bytes,
                                .headers = {header},
                                .local = true,
                                .timeout_s = FPC_CLOUD_METADATA_S};
    fpc_status status =
        url->failed ? fpc_token_no_memory(failure) : fpc_cloud_ask(http, &request, who, response, failure);
    fpc_secret_buffer_clear(url);
    return status;
}

static fpc_status ask_imds(const azure_source *self, fpc_http *http, fpc_http_response *response,
                           fpc_token_failure *failure) {
    fpc_secret_buffer url = {0};
    add_base(&url, self->vars[VAR_IMDS] != NULL ? self->vars[VAR_IMDS] : IMDS);
    fpc_secret_append_text(&url, "/metadata/identity/oauth2/token?api-version=2018-02-01");
    fpc_status status = ask_local(self, http, &url, value(self, CLIENT, VAR_CLIENT),
                                  (fpc_http_header){"Metadata", "true"}, WHO_IMDS, response, failure);
    /* It answers so while it starts or is updated. */
    if (response->status == 404 || response->status == 410) failure->permanent = false;
    return status;
}

static fpc_status ask_app_service(const azure_source *self, fpc_http *http, fpc_http_response *response,
                                  fpc_token_failure *failure) {
    fpc_secret_buffer url = {0};
    add_base(&url, self->vars[VAR_ENDPOINT]);
    fpc_secret_append_text(&url, strchr(self->vars[VAR_ENDPOINT], '?') != NULL ? "&" : "?");
    fpc_secret_append_text(&url, "api-version=2019-08-01");
    return ask_local(self, http, &url, value(self, CLIENT, VAR_CLIENT),
                     (fpc_http_header){"X-IDENTITY-HEADER", self->vars[VAR_HEADER]}, WHO_APP_SERVICE,
                     response, failure);
}

/* The form that trades the token of the file, which is read anew each time since Kubernetes replaces it. */
static fpc_status make_form(const azure_source *self, fpc_secret_buffer *form, fpc_token_failure *failure) {
    fpc_secret_buffer assertion = {0}, scope = {0};
    fpc_status status = fpc_cloud_read_file(value(self, TOKEN_FILE, VAR_TOKEN_FILE), &assertion, failure);
    if (status != FPC_OK) goto done;
    add_base(&scope, resource_of(self));
    fpc_secret_append_text(&scope, "/.default");
    if (scope.failed || !fpc_http_form_add(form, "grant_type", "client_credentials") ||
        !fpc_http_form_add(form, "client_id", value(self, CLIENT, VAR_CLIENT)) ||
        !fpc_http_form_add(form, "client_assertion_type",
                           "urn:ietf:params:oauth:client-assertion-type:jwt-bearer") ||
        !fpc_http_form_add(form, "client_assertion", assertion.bytes) ||
        !fpc_http_form_add(form, "scope", scope.bytes))
        status = fpc_token_no_memory(failure);
done:
    fpc_secret_buffer_clear(&assertion);
    fpc_secret_buffer_clear(&scope);
    return status;
}

static fpc_status ask_workload(const azure_source *self, fpc_http *http, fpc_http_response *response,
                               fpc_token_failure *failure) {
    fpc_secret_buffer url = {0}, form = {0};
    const char *authority = value(self, AUTHORITY_HOST, VAR_AUTHORITY);
    add_base(&url, authority != NULL ? authority : AUTHORITY);
    fpc_secret_append_text(&url, "/");
    fpc_http_encode(&url, value(self, TENANT, VAR_TENANT));
    fpc_secret_append_text(&url, "/oauth2/v2.0/token");
    fpc_status status = url.failed ? fpc_token_no_memory(failure) : make_form(self, &form, failure);
    if (status == FPC_OK) {
        fpc_http_request request = {.method = "POST",
                                    .url = url.bytes,
                                    .body = form.bytes,
                                    .body_len = form.length,
                                    .local = fpc_http_is_local(url.bytes, true)};
        status = fpc_cloud_ask(http, &request, WHO_ENTRA, response, failure);
    }
    fpc_secret_buffer_clear(&url);
    fpc_secret_buffer_clear(&form);
    return status;
}

/* The ways, in the order in which they are looked for. */
static const struct method {
    const char *name;
    ask_function *ask;
    const char *who;
    struct {
        int setting, variable; /* one of the two; setting -1: only the variable */
    } needs[3];
    int need_count;
} METHODS[] = {
    {"workload-identity",
     ask_workload,
     WHO_ENTRA,
     {{CLIENT, VAR_CLIENT}, {TENANT, VAR_TENANT}, {TOKEN_FILE, VAR_TOKEN_FILE}},
     3},
    {"app-service", ask_app_service, WHO_APP_SERVICE, {{-1, VAR_ENDPOINT}, {-1, VAR_HEADER}}, 2},
    {"imds", ask_imds, WHO_IMDS, {{-1, -1}}, 0},
};
#define METHOD_COUNT (sizeof METHODS / sizeof METHODS[0])

/* The first variable that a way needs and that is not there, or NULL. */
static const char *missing(const azure_source *self, const struct method *method) {
    for (int i = 0; i < method->need_count; i++) {
        int setting = method->needs[i].setting, variable = method->needs[i].variable;
        if ((setting < 0 || self->settings[setting] == NULL) && self->vars[variable] == NULL)
            return VARIABLES[variable];
    }
    return NULL;
}

static fpc_status choose(azure_source *self, fpc_error *err) {
    const char *wanted = self->settings[METHOD];
    for (size_t i = 0; i < METHOD_COUNT; i++) {
        const struct method *method = &METHODS[i];
        const char *lacks = missing(self, method);
        if (wanted == NULL ? lacks != NULL : strcmp(wanted, method->name) != 0) continue;
        if (lacks != NULL)
            return fpc_fail(err, FPC_INVALID, "method %s needs %s, which is not set", wanted, lacks);
        self->method = method;
        return FPC_OK;
    }
    return fpc_fail(err, FPC_INVALID, "there is no method \"%.40s\" (workload-identity, app-service, imds)",
                    wanted);
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    azure_source *self = (azure_source *)source;
    int64_t start = fpc_clock_ns();
    fpc_http *http = NULL;
    fpc_http_response response = {0};
    fpc_token_init(out);
    fpc_http_options options = {
        .deadline = how->deadline, .stop_fd = how->stop_fd, .auth = self->method->name};
    fpc_status status = fpc_http_open(&options, &http, failure);
    if (status == FPC_OK) status = self->method->ask(self, http, &response, failure);
    if (status == FPC_OK) status = fpc_cloud_take_token(&response, self->method->who, start, out, failure);
    if (status != FPC_OK) fpc_token_clear(out);
    fpc_http_response_clear(&response);
    fpc_http_close(http);
    return status;
}

static void destroy(fpc_token_source *source) {
    azure_source *self = (azure_source *)source;
    fpc_cloud_forget(self->settings, SETTINGS);
    fpc_cloud_forget(self->vars, VARS);
    free(self);
}

static const fpc_token_source_class CLASS = {.name = "azure", .fetch = fetch, .destroy = destroy};

fpc_status fpc_token_make_azure(const fpc_token_settings *settings, fpc_token_source **out, fpc_error *err) {
    const char *values[SETTINGS];
    fpc_status status = fpc_token_settings_read(settings, NAMES, values, err);
    if (status == FPC_OK) status = fpc_http_prepare(err);
    if (status != FPC_OK) return status;
    azure_source *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "source");
    self->head.class = &CLASS;
    if (!fpc_cloud_copy(values, self->settings, SETTINGS) || !fpc_cloud_env_read(VARIABLES, VARS, self->vars))
        status = fpc_fail(err, FPC_NOMEM, "source");
    if (status == FPC_OK) status = choose(self, err);
    if (status == FPC_OK)
        *out = &self->head;
    else
        destroy(&self->head);
    return status;
}
