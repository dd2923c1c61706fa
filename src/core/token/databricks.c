/* databricks.c -- Lakebase: a password of an hour, minted with a token of the workspace.
 *
 * Two tokens, each with an end of its own: the workspace's is kept between fetches and made anew when it is
 * near its end, when it was refused once (401), and when the password was (`fresh`).  The database's is
 * minted at each fetch.  Host and user are asked for once, if the settings do not say them. */
#include "secret.h"
#include "token/databricks_credential.h"
#include "token/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEAR_END_S 40.0 /* some services refuse a token in its last 30 s */

typedef struct databricks {
    fpc_token_source head;
    fpc_dbx_config given; /* settings and environment */
    /* what is kept between fetches */
    char *kept_host; /* the workspace that the rest belongs to */
    fpc_workspace_token token;
    fpc_deadline token_ends;
    fpc_dbx_database database;
    char *user;
} databricks;

static void forget_token(databricks *self) {
    fpc_workspace_token_clear(&self->token);
    self->token_ends = 0;
}

static void forget(databricks *self) {
    forget_token(self);
    fpc_secret_clear(&self->kept_host);
    fpc_dbx_database_clear(&self->database);
    fpc_secret_clear(&self->user);
}

/* Of a short life half, of a long one a fixed time is left for the requests on the way. */
static void note_end(databricks *self, int64_t start_ns) {
    double valid = self->token.valid_for_s;
    double margin = valid < 2 * NEAR_END_S ? valid / 2 : NEAR_END_S;
    self->token_ends =
        valid < 0 ? start_ns : start_ns + (int64_t)((valid - margin) * (double)FPC_NS_PER_SECOND);
}

static fpc_status log_in(databricks *self, const fpc_workspace_session *session, fpc_token_failure *failure) {
    forget_token(self);
    fpc_status status = fpc_workspace_log_in(session, &self->token, failure);
    if (status != FPC_OK)
        forget_token(self);
    else
        note_end(self, session->start_ns);
    return status;
}

/* The user as far as it is known without asking: the client of the login, if it is one, is its own user. */
static const char *known_user(const databricks *self, const fpc_dbx_config *config) {
    static const char *const CLIENTS[] = {"oauth-m2m", "env-oidc", "file-oidc", "github-oidc"};
    if (config->values[FPC_DBX_DATABASE_USER] != NULL) return config->values[FPC_DBX_DATABASE_USER];
    for (size_t i = 0; i < sizeof CLIENTS / sizeof *CLIENTS; i++) {
        if (strcmp(self->token.login, CLIENTS[i]) == 0 && config->values[FPC_DBX_CLIENT_ID] != NULL)
            return config->values[FPC_DBX_CLIENT_ID];
    }
    return self->user;
}

/* Finds out what is not known yet. */
static fpc_status look_up(databricks *self, const fpc_workspace_session *session,
                          fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    const char *endpoint = config->values[FPC_DBX_ENDPOINT];
    bool is_branch = endpoint != NULL && strstr(endpoint, "/endpoints/") == NULL;
    fpc_status status = FPC_OK;
    if (self->database.host == NULL && (config->values[FPC_DBX_DATABASE_HOST] == NULL || is_branch))
        status = fpc_dbx_find_database(session, &self->token, &self->database, failure);
    if (status == FPC_OK && known_user(self, config) == NULL)
        status = fpc_dbx_find_user(session, &self->token, &self->user, failure);
    return status;
}

static fpc_status copy(const char *text, char **out, fpc_token_failure *failure) {
    *out = fpc_secret_dup(text);
    return *out == NULL && text != NULL ? fpc_token_no_memory(failure) : FPC_OK;
}

/* With the workspace token that we have. */
static fpc_status ask(databricks *self, const fpc_workspace_session *session, fpc_token *out,
                      fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    fpc_status status = look_up(self, session, failure);
    if (status != FPC_OK) return status;
    const char *endpoint = self->database.endpoint, *host = config->values[FPC_DBX_DATABASE_HOST];
    if (endpoint == NULL) endpoint = config->values[FPC_DBX_ENDPOINT];
    status = fpc_dbx_mint(session, &self->token, endpoint, out, failure);
    if (status == FPC_OK) status = copy(host != NULL ? host : self->database.host, &out->host, failure);
    if (status == FPC_OK) status = copy(known_user(self, config), &out->user, failure);
    return status;
}

static fpc_status fetch_by(databricks *self, const fpc_workspace_session *session, fpc_token *out,
                           fpc_token_failure *failure) {
    bool is_kept = self->token.bearer != NULL && !fpc_deadline_passed(self->token_ends);
    fpc_status status = is_kept ? FPC_OK : log_in(self, session, failure);
    if (status != FPC_OK) return status;
    status = ask(self, session, out, failure);
    if (status != FPC_AUTH || strcmp(self->token.login, "pat") == 0) return status;
    /* Refused: once more with another token.  A second refusal is final. */
    fpc_token_clear(out);
    status = log_in(self, session, failure);
    return status == FPC_OK ? ask(self, session, out, failure) : status;
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    databricks *self = (databricks *)source;
    fpc_dbx_config config;
    fpc_error err;
    fpc_http *http = NULL;
    fpc_token_init(out);
    fpc_status status = fpc_dbx_config_resolve(&self->given, &config, &err);
    if (status != FPC_OK)
        return fpc_token_fail(failure, status == FPC_INVALID, status, "databricks: %s", err.message);
    const char *host = config.values[FPC_DBX_HOST];
    if (host == NULL)
        status =
            fpc_token_fail(failure, true, FPC_INVALID,
                           "no workspace: give host, DATABRICKS_HOST or a profile of ~/.databrickscfg%s%s",
                           config.place[0] == '\0' ? "" : "; there is none in ", config.place);
    if (how->fresh || host == NULL || self->kept_host == NULL || strcmp(self->kept_host, host) != 0)
        forget(self);
    if (status == FPC_OK && self->kept_host == NULL) status = copy(host, &self->kept_host, failure);
    fpc_http_options options = {
        .deadline = how->deadline, .stop_fd = how->stop_fd, .ca_file = config.values[FPC_DBX_CA_FILE]};
    if (status == FPC_OK) status = fpc_http_open(&options, &http, failure);
    if (status == FPC_OK) {
        fpc_workspace_session session = {
            .config = &config, .http = http, .deadline = how->deadline, .start_ns = fpc_clock_ns()};
        status = fetch_by(self, &session, out, failure);
    }
    if (self->token.login != NULL && strcmp(self->token.login, "pat") == 0) forget_token(self);
    if (status != FPC_OK) {
        fpc_token_clear(out);
        fpc_error_prefix(&failure->error, "databricks: ");
    }
    fpc_http_close(http);
    fpc_dbx_config_clear(&config);
    return status;
}

static void destroy(fpc_token_source *source) {
    databricks *self = (databricks *)source;
    forget(self);
    fpc_dbx_config_clear(&self->given);
    free(self);
}

static const fpc_token_source_class CLASS = {.name = "databricks", .fetch = fetch, .destroy = destroy};

/* "projects/P/branches/B" with or without "/endpoints/E". */
static fpc_status check_endpoint(const char *endpoint, fpc_error *err) {
    static const char *const WORDS[] = {"projects", NULL, "branches", NULL, "endpoints", NULL};
    size_t part = 0;
    const char *at = endpoint;
    if (at == NULL) return FPC_OK;
    for (; part < 6; part++) {
        size_t len = strcspn(at, "/");
        bool fits =
            len > 0 && len < 100 &&
            (WORDS[part] == NULL || (len == strlen(WORDS[part]) && strncmp(at, WORDS[part], len) == 0));
        if (!fits) break;
        at += len;
        if (*at == '\0') break;
        at++;
    }
    if (*at == '\0' && (part == 5 || part == 3)) return FPC_OK;
    return fpc_fail(
        err, FPC_INVALID,
        "endpoint \"%.120s\" is not projects/P/branches/B/endpoints/E (the ep-... of a host name is not "
        "its id)",
        endpoint);
}

fpc_status fpc_token_make_databricks(const fpc_token_settings *settings, fpc_token_source **out,
                                     fpc_error *err) {
    fpc_dbx_config config;
    databricks *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "source");
    self->head.class = &CLASS;
    self->token.valid_for_s = -1;
    fpc_status status = fpc_http_prepare(err);
    if (status == FPC_OK) status = fpc_dbx_config_read(settings, &self->given, err);
    if (status == FPC_OK) status = check_endpoint(self->given.values[FPC_DBX_ENDPOINT], err);
    /* Errors of the file and contradictions are told now; the file is read again at each fetch. */
    if (status == FPC_OK && (status = fpc_dbx_config_resolve(&self->given, &config, err)) == FPC_OK)
        fpc_dbx_config_clear(&config);
    if (status == FPC_OK)
        *out = &self->head;
    else
        destroy(&self->head);
    return status;
}
