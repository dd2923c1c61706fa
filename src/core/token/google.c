/* google.c -- Cloud SQL with IAM: the password is an access token of the machine's service account.
 *
 * The metadata server gives the token, and the account's e-mail address, which names the database user:
 * without its ".gserviceaccount.com".  The address does not change, so it is asked for once.
 * Settings: user, service_account, scope.  Environment: GCE_METADATA_HOST. */
#include "token/cloud.h"
#include "token/source.h"

#include <stdlib.h>
#include <string.h>

#define WHO   "the Google metadata server"
#define HOST  "metadata.google.internal"
#define SCOPE "https://www.googleapis.com/auth/sqlservice.login"

enum setting { USER, ACCOUNT, SCOPES, SETTINGS };
static const char *const NAMES[SETTINGS + 1] = {"user", "service_account", "scope", NULL};

typedef struct google_source {
    fpc_token_source head;
    char *settings[SETTINGS];
    char *host; /* of the metadata server */
    char *user; /* what the account is called in the database, once it was asked for */
} google_source;

/* Asks for something about the service account.  That the answer says "Google" too keeps a proxy or a captive
 * portal from being taken for the server. */
static fpc_status ask(google_source *self, fpc_http *http, const char *what, const char *scopes,
                      fpc_http_response *response, fpc_token_failure *failure) {
    fpc_secret_buffer url = {0};
    fpc_secret_append_text(&url, "http://");
    fpc_secret_append_text(&url, self->host != NULL ? self->host : HOST);
    fpc_secret_append_text(&url, "/computeMetadata/v1/instance/service-accounts/");
    fpc_http_encode(&url, self->settings[ACCOUNT] != NULL ? self->settings[ACCOUNT] : "default");
    fpc_secret_append_text(&url, what);
    if (scopes != NULL) fpc_http_encode(&url, scopes);
    if (url.failed) {
        fpc_secret_buffer_clear(&url);
        return fpc_token_no_memory(failure);
    }
    fpc_http_request request = {.method = "GET",
                                .url = url.bytes,
                                .headers = {{"Metadata-Flavor", "Google"}},
                                .local = true,
                                .timeout_s = FPC_CLOUD_METADATA_S};
    fpc_status status = fpc_cloud_ask(http, &request, WHO, response, failure);
    if (status == FPC_OK) {
        char *flavor = fpc_http_response_header(response, "Metadata-Flavor");
        if (flavor == NULL || strcmp(flavor, "Google") != 0)
            status = fpc_token_fail(failure, true, FPC_INVALID,
                                    "what answers at %.100s is not " WHO " (no Metadata-Flavor: Google)",
                                    self->host != NULL ? self->host : HOST);
        fpc_secret_free(flavor);
    }
    fpc_secret_buffer_clear(&url);
    return status;
}

/* The database user of an account: one that people have is the whole address. */
static char *user_of(const char *email) {
    static const char ENDING[] = ".gserviceaccount.com";
    size_t length = strlen(email), ending = strlen(ENDING);
    if (length > ending && strcmp(email + length - ending, ENDING) == 0) length -= ending;
    return fpc_secret_copy(email, length);
}

static bool is_email(const char *text) {
    const char *at = strchr(text, '@');
    for (const char *c = text; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') return false;
    }
    return at != NULL && at != text && strlen(text) < 320;
}

static fpc_status find_user(google_source *self, fpc_http *http, fpc_token_failure *failure) {
    fpc_http_response response = {0};
    fpc_status status = ask(self, http, "/email", NULL, &response, failure);
    if (status == FPC_OK) {
        char *text = response.body.bytes;
        if (text != NULL) text[strcspn(text, "\r\n")] = '\0';
        if (text == NULL || !is_email(text))
            status = fpc_token_fail(failure, false, FPC_SERVER,
                                    WHO " gave no e-mail address of the service account");
        else if ((self->user = user_of(text)) == NULL)
            status = fpc_token_no_memory(failure);
    }
    fpc_http_response_clear(&response);
    return status;
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    google_source *self = (google_source *)source;
    int64_t start = fpc_clock_ns();
    fpc_http *http = NULL;
    fpc_http_response response = {0};
    fpc_token_init(out);
    fpc_http_options options = {.deadline = how->deadline, .stop_fd = how->stop_fd, .auth = "google"};
    fpc_status status = fpc_http_open(&options, &http, failure);
    if (status == FPC_OK && self->settings[USER] == NULL && self->user == NULL)
        status = find_user(self, http, failure);
    if (status == FPC_OK) {
        const char *scope = self->settings[SCOPES] != NULL ? self->settings[SCOPES] : SCOPE;
        status = ask(self, http, "/token?scopes=", scope, &response, failure);
    }
    if (status == FPC_OK) status = fpc_cloud_take_token(&response, WHO, start, out, failure);
    if (status == FPC_OK && self->user != NULL && (out->user = fpc_secret_dup(self->user)) == NULL)
        status = fpc_token_no_memory(failure);
    if (status != FPC_OK) fpc_token_clear(out);
    fpc_http_response_clear(&response);
    fpc_http_close(http);
    return status;
}

static void destroy(fpc_token_source *source) {
    google_source *self = (google_source *)source;
    fpc_cloud_forget(self->settings, SETTINGS);
    fpc_secret_free(self->host);
    fpc_secret_free(self->user);
    free(self);
}

static const fpc_token_source_class CLASS = {.name = "google", .fetch = fetch, .destroy = destroy};

fpc_status fpc_token_make_google(const fpc_token_settings *settings, fpc_token_source **out, fpc_error *err) {
    static const char *const VARIABLE[] = {"GCE_METADATA_HOST"};
    const char *values[SETTINGS];
    fpc_status status = fpc_token_settings_read(settings, NAMES, values, err);
    if (status == FPC_OK) status = fpc_http_prepare(err);
    if (status != FPC_OK) return status;
    google_source *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "source");
    self->head.class = &CLASS;
    if (!fpc_cloud_copy(values, self->settings, SETTINGS) || !fpc_cloud_env_read(VARIABLE, 1, &self->host)) {
        destroy(&self->head);
        return fpc_fail(err, FPC_NOMEM, "source");
    }
    *out = &self->head;
    return FPC_OK;
}
