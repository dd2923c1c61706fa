/* aws.c -- RDS, Aurora and DSQL with IAM: the password is a signature over who logs in where, good for 15
 * minutes.
 *
 * It is computed here; only finding the keys may ask somebody.  Temporary keys are kept until they are near
 * their end: renewed from 15 minutes before it (or from half of their life), and used on when that fails.
 * Settings: host, port, user of the database; region, profile, service.  Environment and files: those of
 * AWS's own libraries. */
#include "token/aws.h"

#include "fpcache/os.h"
#include "token/failure.h"
#include "token/sigv4.h"
#include "token/source.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOKEN_S      900.0 /* fixed by AWS */
#define RENEW_S      900.0 /* before the end of temporary keys */
#define LEAST_LIFE_S 60.0  /* keys that have less are of no use */

enum setting { HOST, PORT, USER, REGION, PROFILE, SERVICE, SETTINGS };
static const char *const NAMES[SETTINGS + 1] = {"host", "port", "user", "region", "profile", "service", NULL};

static const char *const VARIABLES[FPC_AWS_VARIABLES] = {
    [FPC_AWS_ACCESS_KEY_ID] = "AWS_ACCESS_KEY_ID",
    [FPC_AWS_SECRET_ACCESS_KEY] = "AWS_SECRET_ACCESS_KEY",
    [FPC_AWS_SESSION_TOKEN] = "AWS_SESSION_TOKEN",
    [FPC_AWS_CREDENTIAL_EXPIRATION] = "AWS_CREDENTIAL_EXPIRATION",
    [FPC_AWS_PROFILE] = "AWS_PROFILE",
    [FPC_AWS_DEFAULT_PROFILE] = "AWS_DEFAULT_PROFILE",
    [FPC_AWS_REGION] = "AWS_REGION",
    [FPC_AWS_DEFAULT_REGION] = "AWS_DEFAULT_REGION",
    [FPC_AWS_CONFIG_FILE] = "AWS_CONFIG_FILE",
    [FPC_AWS_CREDENTIALS_FILE] = "AWS_SHARED_CREDENTIALS_FILE",
    [FPC_AWS_WEB_IDENTITY_TOKEN_FILE] = "AWS_WEB_IDENTITY_TOKEN_FILE",
    [FPC_AWS_ROLE_ARN] = "AWS_ROLE_ARN",
    [FPC_AWS_ROLE_SESSION_NAME] = "AWS_ROLE_SESSION_NAME",
    [FPC_AWS_CONTAINER_RELATIVE_URI] = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    [FPC_AWS_CONTAINER_FULL_URI] = "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    [FPC_AWS_CONTAINER_TOKEN_FILE] = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    [FPC_AWS_CONTAINER_TOKEN] = "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    [FPC_AWS_METADATA_DISABLED] = "AWS_EC2_METADATA_DISABLED",
    [FPC_AWS_METADATA_ENDPOINT] = "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    [FPC_AWS_METADATA_ENDPOINT_MODE] = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    [FPC_AWS_ENDPOINT_STS] = "AWS_ENDPOINT_URL_STS",
    [FPC_AWS_ENDPOINT] = "AWS_ENDPOINT_URL",
    [FPC_AWS_IGNORE_ENDPOINTS] = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
};

typedef struct aws_source {
    fpc_token_source head;
    char *settings[SETTINGS];
    char *vars[FPC_AWS_VARIABLES];
    char *config_path, *credentials_path;
    bool is_dsql;
    char region[64]; /* of the last search; the settings and the host may not tell it */
    /* the keys kept; id is NULL when there are none */
    fpc_aws_keys keys;
    int64_t keys_end, keys_renew; /* on the monotonic clock; FPC_NEVER: no end is known */
} aws_source;

static bool is_region(const char *text) {
    return *text != '\0' && strlen(text) < 64 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

bool fpc_aws_region_of_host(const char *host, char *region, size_t size) {
    const char *start = NULL, *end = strcasestr(host, ".rds.amazonaws.com");
    if (end != NULL) {
        start = end;
        while (start > host && start[-1] != '.') start--;
    } else if ((start = strcasestr(host, ".dsql.")) != NULL) {
        start += strlen(".dsql.");
        end = strcasestr(start, ".on.aws");
    }
    if (start == NULL || end == NULL) return false;
    size_t length = (size_t)(end - start);
    if (length == 0 || length >= size) return false;
    for (size_t i = 0; i < length; i++) region[i] = (char)tolower((unsigned char)start[i]);
    region[length] = '\0';
    return is_region(region) && strchr(region, '-') != NULL;
}

/* The host's own region comes before the environment's: a signature for another one is always refused. */
static fpc_status find_region(aws_source *self, fpc_aws_ask *ask) {
    const char *found = self->settings[REGION];
    if (found == NULL && fpc_aws_region_of_host(self->settings[HOST], self->region, sizeof self->region))
        found = self->region;
    if (found == NULL) found = self->vars[FPC_AWS_REGION];
    if (found == NULL) found = self->vars[FPC_AWS_DEFAULT_REGION];
    if (found == NULL) found = fpc_aws_files_get(&ask->files, ask->profile, "region");
    if (found == NULL)
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "the region of \"%.100s\" is not known; set region, or AWS_REGION",
                              self->settings[HOST]);
    if (!is_region(found))
        return fpc_token_fail(ask->failure, true, FPC_INVALID, "\"%.60s\" is no AWS region", found);
    if (found != self->region) snprintf(self->region, sizeof self->region, "%s", found);
    ask->region = self->region;
    return FPC_OK;
}

static double seconds_until(int64_t point) {
    return point == FPC_NEVER ? INFINITY : (double)(point - fpc_clock_ns()) / (double)FPC_NS_PER_SECOND;
}

/* Puts new keys in the place of those kept. */
static void keep(aws_source *self, fpc_aws_keys *new, int64_t start_ns) {
    fpc_aws_keys_clear(&self->keys);
    self->keys = *new;
    self->keys_end = self->keys_renew = FPC_NEVER;
    if (new->valid_for_s < 0) return;
    double early = fmin(RENEW_S, new->valid_for_s / 2);
    self->keys_end = start_ns + (int64_t)(new->valid_for_s *(double)FPC_NS_PER_SECOND);
    self->keys_renew = self->keys_end - (int64_t)(early * (double)FPC_NS_PER_SECOND);
}

static fpc_status search(aws_source *self, const fpc_token_fetch *how, fpc_token_failure *failure) {
    fpc_aws_keys found = {.valid_for_s = -1};
    fpc_aws_ask ask = {.vars = self->vars,
                       .profile = self->settings[PROFILE],
                       .profile_given = self->settings[PROFILE] != NULL,
                       .how = how,
                       .start_ns = fpc_clock_ns(),
                       .failure = failure};
    if (ask.profile == NULL) ask.profile = self->vars[FPC_AWS_DEFAULT_PROFILE]; /* botocore's order */
    if (ask.profile == NULL) ask.profile = self->vars[FPC_AWS_PROFILE];
    ask.profile_named = ask.profile != NULL;
    if (ask.profile == NULL) ask.profile = "default";
    *failure = (fpc_token_failure){.permanent = true};
    fpc_status status =
        fpc_aws_files_load(self->config_path, self->credentials_path, &ask.files, &failure->error);
    fpc_http_options options = {.deadline = how->deadline, .stop_fd = how->stop_fd, .auth = "aws"};
    if (status == FPC_OK) status = fpc_http_open(&options, &ask.http, failure);
    if (status == FPC_OK) status = find_region(self, &ask);
    if (status == FPC_OK) status = fpc_aws_find_keys(&ask, &found);
    if (status == FPC_OK) keep(self, &found, ask.start_ns);
    fpc_http_close(ask.http);
    fpc_aws_files_clear(&ask.files);
    fpc_secret_buffer_clear(&ask.tried);
    return status;
}

/* Keys that can sign now. */
static fpc_status have_keys(aws_source *self, const fpc_token_fetch *how, fpc_token_failure *failure) {
    if (how->fresh) fpc_aws_keys_clear(&self->keys);
    if (self->keys.id != NULL && self->keys_end != FPC_NEVER && fpc_clock_ns() < self->keys_renew)
        return FPC_OK;
    fpc_status status = search(self, how, failure);
    if (status != FPC_OK && status != FPC_INTERRUPTED && self->keys.id != NULL &&
        seconds_until(self->keys_end) > LEAST_LIFE_S)
        return FPC_OK;
    return status;
}

static fpc_status sign(const aws_source *self, double now, fpc_token *out, fpc_token_failure *failure) {
    fpc_sigv4 with = {.key_id = self->keys.id,
                      .secret = self->keys.secret,
                      .session = self->keys.session,
                      .region = self->region,
                      .service = self->is_dsql ? "dsql" : "rds-db",
                      .now = (int64_t)now};
    const char *user = self->settings[USER];
    fpc_sigv4_field rds[] = {{"Action", "connect"}, {"DBUser", user}};
    fpc_sigv4_field dsql[] = {{"Action", strcmp(user, "admin") == 0 ? "DbConnectAdmin" : "DbConnect"}};
    fpc_secret_buffer host = {0}, token = {0};
    for (const char *at = self->settings[HOST]; *at != '\0'; at++) {
        char small = (char)tolower((unsigned char)*at);
        fpc_secret_append(&host, &small, 1);
    }
    if (!self->is_dsql)
        fpc_secret_appendf(&host, ":%s", self->settings[PORT] != NULL ? self->settings[PORT] : "5432");
    fpc_status status = host.failed ? fpc_token_no_memory(failure) : FPC_OK;
    if (status == FPC_OK) {
        *failure = (fpc_token_failure){0};
        status = fpc_sigv4_presign(&with, host.bytes, self->is_dsql ? dsql : rds, self->is_dsql ? 1 : 2,
                                   (int)TOKEN_S, &token, &failure->error);
    }
    if (status == FPC_OK && (out->password = fpc_secret_take(&token)) == NULL)
        status = fpc_token_no_memory(failure);
    fpc_secret_buffer_clear(&host);
    fpc_secret_buffer_clear(&token);
    return status;
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    aws_source *self = (aws_source *)source;
    int64_t start = fpc_clock_ns();
    fpc_token_init(out);
    fpc_status status = have_keys(self, how, failure);
    double waited = (double)(fpc_clock_ns() - start) / (double)FPC_NS_PER_SECOND;
    if (status == FPC_OK) status = sign(self, fpc_os_wall_clock(), out, failure);
    if (status == FPC_OK) out->valid_for_s = waited + fmin(TOKEN_S, seconds_until(self->keys_end));
    return status;
}

static void destroy(fpc_token_source *source) {
    aws_source *self = (aws_source *)source;
    fpc_aws_keys_clear(&self->keys);
    fpc_cloud_forget(self->settings, SETTINGS);
    fpc_cloud_forget(self->vars, FPC_AWS_VARIABLES);
    fpc_secret_free(self->config_path);
    fpc_secret_free(self->credentials_path);
    free(self);
}

static const fpc_token_source_class CLASS = {.name = "aws", .fetch = fetch, .destroy = destroy};

/* `given`, or `name` in the folder .aws of the home; "~/" is the home.  NULL: out of memory. */
static char *file_path(const char *given, const char *name) {
    const char *home = getenv("HOME");
    fpc_secret_buffer path = {0};
    if (given == NULL || strncmp(given, "~/", 2) == 0)
        fpc_secret_append_text(&path, home != NULL ? home : "");
    if (given == NULL) fpc_secret_append_text(&path, "/.aws/");
    if (given != NULL) name = strncmp(given, "~/", 2) == 0 ? given + 1 : given;
    fpc_secret_append_text(&path, name);
    return fpc_secret_take(&path);
}

static fpc_status check(aws_source *self, fpc_error *err) {
    const char *service = self->settings[SERVICE], *port = self->settings[PORT];
    const char *host = self->settings[HOST];
    if (host == NULL || *host == '/' || strpbrk(host, ",:/ ") != NULL)
        return fpc_fail(err, FPC_INVALID,
                        "host must be the name of the endpoint: the token is signed for it");
    if (self->settings[USER] == NULL)
        return fpc_fail(err, FPC_INVALID, "user is missing: the token is signed for a database user");
    if (port != NULL && (strlen(port) > 5 || port[strspn(port, "0123456789")] != '\0'))
        return fpc_fail(err, FPC_INVALID, "port is not one number");
    char region[64];
    self->is_dsql = service != NULL ? strcmp(service, "dsql") == 0
                                    : strcasestr(host, ".dsql.") != NULL &&
                                          fpc_aws_region_of_host(host, region, sizeof region);
    if (service != NULL && !self->is_dsql && strcmp(service, "rds") != 0)
        return fpc_fail(err, FPC_INVALID, "service is \"rds\" or \"dsql\", not \"%.40s\"", service);
    return FPC_OK;
}

fpc_status fpc_token_make_aws(const fpc_token_settings *settings, fpc_token_source **out, fpc_error *err) {
    const char *values[SETTINGS];
    fpc_status status = fpc_token_settings_read(settings, NAMES, values, err);
    if (status == FPC_OK) status = fpc_http_prepare(err);
    if (status != FPC_OK) return status;
    aws_source *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "source");
    self->head.class = &CLASS;
    self->keys.valid_for_s = -1;
    bool copied = fpc_cloud_copy(values, self->settings, SETTINGS) &&
                  fpc_cloud_env_read(VARIABLES, FPC_AWS_VARIABLES, self->vars);
    if (copied) {
        self->config_path = file_path(self->vars[FPC_AWS_CONFIG_FILE], "config");
        self->credentials_path = file_path(self->vars[FPC_AWS_CREDENTIALS_FILE], "credentials");
    }
    if (!copied || self->config_path == NULL || self->credentials_path == NULL)
        status = fpc_fail(err, FPC_NOMEM, "source");
    if (status == FPC_OK) status = check(self, err);
    if (status == FPC_OK)
        *out = &self->head;
    else
        destroy(&self->head);
    return status;
}
