/* databricks_config.c -- settings over environment over file, as the SDKs of Databricks do it. */
#include "token/databricks_config.h"

#include "ini.h"
#include "secret.h"
#include "token/workspace_login.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Logins of one group belong together; of two groups, neither can be meant. */
enum group { NO_GROUP, PAT, OAUTH, AZURE, METADATA, ENV_OIDC, FILE_OIDC };

static const struct attribute {
    const char *setting, *variable; /* NULL: it has none */
    bool in_file;
    enum group group;
} ATTRIBUTES[FPC_DBX_COUNT] = {
    [FPC_DBX_PROFILE] = {"profile", "DATABRICKS_CONFIG_PROFILE", false, NO_GROUP},
    [FPC_DBX_CONFIG_FILE] = {"config_file", "DATABRICKS_CONFIG_FILE", false, NO_GROUP},
    [FPC_DBX_HOST] = {"host", "DATABRICKS_HOST", true, NO_GROUP},
    [FPC_DBX_ACCOUNT_ID] = {"account_id", "DATABRICKS_ACCOUNT_ID", true, NO_GROUP},
    [FPC_DBX_WORKSPACE_ID] = {"workspace_id", "DATABRICKS_WORKSPACE_ID", true, NO_GROUP},
    [FPC_DBX_AUTH_TYPE] = {"auth_type", "DATABRICKS_AUTH_TYPE", true, NO_GROUP},
    [FPC_DBX_TOKEN] = {"token", "DATABRICKS_TOKEN", true, PAT},
    [FPC_DBX_CLIENT_ID] = {"client_id", "DATABRICKS_CLIENT_ID", true, NO_GROUP}, /* also of the OIDC logins */
    [FPC_DBX_CLIENT_SECRET] = {"client_secret", "DATABRICKS_CLIENT_SECRET", true, OAUTH},
    [FPC_DBX_DISCOVERY_URL] = {"discovery_url", "DATABRICKS_DISCOVERY_URL", true, NO_GROUP},
    [FPC_DBX_SCOPES] = {"scopes", NULL, true, NO_GROUP},
    [FPC_DBX_OIDC_TOKEN_ENV] = {"oidc_token_env", "DATABRICKS_OIDC_TOKEN_ENV", true, ENV_OIDC},
    [FPC_DBX_OIDC_TOKEN_FILE] = {"oidc_token_filepath", "DATABRICKS_OIDC_TOKEN_FILEPATH", true, FILE_OIDC},
    [FPC_DBX_TOKEN_AUDIENCE] = {"token_audience", "DATABRICKS_TOKEN_AUDIENCE", true, NO_GROUP},
    [FPC_DBX_CLI_PATH] = {"databricks_cli_path", "DATABRICKS_CLI_PATH", true, NO_GROUP},
    [FPC_DBX_METADATA_URL] = {"metadata_service_url", "DATABRICKS_METADATA_SERVICE_URL", true, METADATA},
    [FPC_DBX_AZURE_CLIENT_ID] = {"azure_client_id", "ARM_CLIENT_ID", true, AZURE},
    [FPC_DBX_AZURE_CLIENT_SECRET] = {"azure_client_secret", "ARM_CLIENT_SECRET", true, AZURE},
    [FPC_DBX_AZURE_TENANT_ID] = {"azure_tenant_id", "ARM_TENANT_ID", true, NO_GROUP},
    [FPC_DBX_AZURE_RESOURCE_ID] = {"azure_workspace_resource_id", "DATABRICKS_AZURE_RESOURCE_ID", true,
                                   NO_GROUP},
    [FPC_DBX_INSTANCE_NAME] = {"instance_name", NULL, false, NO_GROUP},
    [FPC_DBX_ENDPOINT] = {"endpoint", "LAKEBASE_ENDPOINT", false, NO_GROUP},
    [FPC_DBX_DATABASE_HOST] = {"database_host", NULL, false, NO_GROUP},
    [FPC_DBX_DATABASE_USER] = {"database_user", "PGUSER", false, NO_GROUP},
    [FPC_DBX_CA_FILE] = {"ca_file", NULL, false, NO_GROUP},
    [FPC_DBX_CLI_MIN_BYTES] = {"databricks_cli_min_bytes", NULL, false, NO_GROUP},
    [FPC_DBX_MODEL_SERVING_FILE] = {"model_serving_file", NULL, false, NO_GROUP},
    [FPC_DBX_AZURE_AUTHORITY] = {"azure_authority_host", "AZURE_AUTHORITY_HOST", false, NO_GROUP},
    [FPC_DBX_GITHUB_URL] = {NULL, "ACTIONS_ID_TOKEN_REQUEST_URL", false, NO_GROUP},
    [FPC_DBX_GITHUB_TOKEN] = {NULL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", false, NO_GROUP},
    [FPC_DBX_MODEL_SERVING] = {NULL, "IS_IN_DB_MODEL_SERVING_ENV", false, NO_GROUP},
    [FPC_DBX_MODEL_SERVING_HOST] = {NULL, "DATABRICKS_MODEL_SERVING_HOST_URL", false, NO_GROUP},
};

static const char FROM_SETTING[] = "a setting", FROM_FILE[] = "the profile";

static bool set(fpc_dbx_config *config, int attribute, const char *value, const char *from) {
    if (value == NULL || *value == '\0' || config->values[attribute] != NULL) return true;
    config->values[attribute] = fpc_secret_dup(value);
    config->from[attribute] = from;
    return config->values[attribute] != NULL;
}

/* All names of instances, and the first one as the attribute. */
static fpc_status read_instances(const fpc_token_settings *settings, fpc_dbx_config *out, fpc_error *err) {
    json_t *names = json_array();
    size_t at = 0;
    bool ok = names != NULL;
    if (ok && out->values[FPC_DBX_INSTANCE_NAME] != NULL)
        ok = json_array_append_new(names, json_string(out->values[FPC_DBX_INSTANCE_NAME])) == 0;
    for (const char *name; ok && (name = fpc_token_settings_next(settings, "instance_names", &at)) != NULL;) {
        if (*name == '\0') continue;
        ok = set(out, FPC_DBX_INSTANCE_NAME, name, FROM_SETTING) &&
             json_array_append_new(names, json_string(name)) == 0;
    }
    if (ok && json_array_size(names) > 0) ok = (out->instances = json_dumps(names, JSON_COMPACT)) != NULL;
    json_decref(names);
    return ok ? FPC_OK : fpc_fail(err, FPC_INVALID, "an instance name is no UTF-8, or memory is short");
}

static fpc_status read_environment(fpc_dbx_config *out, fpc_error *err) {
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        const char *variable = ATTRIBUTES[i].variable;
        if (variable == NULL) continue;
        if (i == FPC_DBX_ENDPOINT && out->instances != NULL) continue; /* an instance was asked for */
        if (!set(out, i, getenv(variable), variable)) return fpc_fail(err, FPC_NOMEM, "source");
    }
    const char *alias = getenv("DATABRICKS_OIDC_TOKEN_FILE"); /* the Python SDK's */
    if (!set(out, FPC_DBX_OIDC_TOKEN_FILE, alias, "DATABRICKS_OIDC_TOKEN_FILE"))
        return fpc_fail(err, FPC_NOMEM, "source");
    return FPC_OK;
}

fpc_status fpc_dbx_config_read(const fpc_token_settings *settings, fpc_dbx_config *out, fpc_error *err) {
    const char *names[FPC_DBX_COUNT + 2], *values[FPC_DBX_COUNT + 1];
    int attributes[FPC_DBX_COUNT], count = 0;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        if (ATTRIBUTES[i].setting == NULL) continue;
        attributes[count] = i;
        names[count++] = ATTRIBUTES[i].setting;
    }
    names[count] = "instance_names...";
    names[count + 1] = NULL;
    fpc_status status = fpc_token_settings_read(settings, names, values, err);
    for (int i = 0; status == FPC_OK && i < count; i++) {
        if (!set(out, attributes[i], values[i], FROM_SETTING)) status = fpc_fail(err, FPC_NOMEM, "source");
    }
    if (status == FPC_OK) status = read_instances(settings, out, err);
    if (status == FPC_OK && out->instances != NULL && out->values[FPC_DBX_ENDPOINT] != NULL)
        status = fpc_fail(err, FPC_INVALID, "give either instance_name or endpoint, not both");
    if (status == FPC_OK) status = read_environment(out, err);
    if (status == FPC_OK && out->instances == NULL && out->values[FPC_DBX_ENDPOINT] == NULL)
        status = fpc_fail(err, FPC_INVALID,
                          "instance_name or endpoint (projects/P/branches/B/endpoints/E) is missing");
    if (status != FPC_OK) fpc_dbx_config_clear(out);
    return status;
}

void fpc_dbx_config_clear(fpc_dbx_config *config) {
    for (int i = 0; i < FPC_DBX_COUNT; i++) fpc_secret_clear(&config->values[i]);
    free(config->instances);
    memset(config, 0, sizeof *config);
}

/* --- the file --- */

/* The path with "~" as the home; NULL: there is no home, or no memory.  The caller frees it. */
static char *path_of(const fpc_dbx_config *config) {
    const char *path = config->values[FPC_DBX_CONFIG_FILE], *home = getenv("HOME");
    if (path == NULL) path = "~/.databrickscfg";
    if (strncmp(path, "~/", 2) != 0) return strdup(path);
    char *full = NULL;
    if (home == NULL || asprintf(&full, "%s%s", home, path + 1) < 0) return NULL;
    return full;
}

static bool has_login(const fpc_dbx_config *config) {
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        if (config->values[i] != NULL && (ATTRIBUTES[i].group != NO_GROUP || i == FPC_DBX_CLIENT_ID))
            return true;
    }
    return config->values[FPC_DBX_HOST] != NULL || config->values[FPC_DBX_AZURE_RESOURCE_ID] != NULL;
}

static fpc_status take_profile(const fpc_ini *ini, const char *path, fpc_dbx_config *out, fpc_error *err) {
    const char *asked = out->values[FPC_DBX_PROFILE], *profile = asked;
    if (profile == NULL) profile = fpc_ini_get(ini, "__settings__", "default_profile");
    if (profile == NULL || *profile == '\0') profile = "DEFAULT";
    if (strcmp(profile, "__settings__") == 0)
        return fpc_fail(err, FPC_INVALID, "profile __settings__ is reserved by Databricks");
    if (!fpc_ini_has_section(ini, profile)) {
        if (asked == NULL) return FPC_OK;
        return fpc_fail(err, FPC_INVALID, "%.200s has no profile \"%.60s\"%s", path, asked,
                        ini == NULL ? ": the file is not there or empty" : "");
    }
    snprintf(out->place, sizeof out->place, "profile %.60s of %.180s", profile, path);
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        if (!ATTRIBUTES[i].in_file) continue;
        if (!set(out, i, fpc_ini_get(ini, profile, ATTRIBUTES[i].setting), FROM_FILE))
            return fpc_fail(err, FPC_NOMEM, "profile");
    }
    /* The CLI is asked by the profile's name, which may be the file's own default. */
    return set(out, FPC_DBX_PROFILE, profile, FROM_FILE) ? FPC_OK : fpc_fail(err, FPC_NOMEM, "profile");
}

static fpc_status read_file(fpc_dbx_config *out, fpc_error *err) {
    if (out->values[FPC_DBX_PROFILE] == NULL && has_login(out)) return FPC_OK;
    char *path = path_of(out);
    if (path == NULL) {
        if (out->values[FPC_DBX_PROFILE] == NULL) return FPC_OK;
        return fpc_fail(err, FPC_INVALID, "HOME is not set, so ~/.databrickscfg cannot be found");
    }
    fpc_ini *ini = NULL;
    fpc_status status = fpc_ini_load(path, FPC_INI_QUOTES, &ini, err);
    if (status == FPC_OK) status = take_profile(ini, path, out, err);
    fpc_ini_delete(ini);
    free(path);
    return status;
}

/* --- checks --- */

/* https, without what may follow the name and port. */
static fpc_status clean_host(fpc_dbx_config *config, fpc_error *err) {
    char *old = config->values[FPC_DBX_HOST];
    if (old == NULL) return FPC_OK;
    const char *name = old;
    const char *scheme = strstr(old, "://");
    if (scheme != NULL) {
        if (strncmp(old, "https://", 8) != 0)
            return fpc_fail(err, FPC_INVALID, "host: only https:// is spoken to a workspace");
        name = scheme + 3;
    }
    size_t len = strcspn(name, "/?#");
    if (len == 0 || memchr(name, '@', len) != NULL || name[strcspn(name, " \t\\")] != '\0')
        return fpc_fail(err, FPC_INVALID, "host: \"%.100s\" is no address of a workspace",
                        memchr(name, '@', len) != NULL ? "..." : old);
    if (len > 4 && strncmp(name + len - 4, ":443", 4) == 0) len -= 4;
    char *clean = NULL;
    if (asprintf(&clean, "https://%.*s", (int)len, name) < 0) return fpc_fail(err, FPC_NOMEM, "host");
    fpc_secret_free(old);
    config->values[FPC_DBX_HOST] = clean;
    return FPC_OK;
}

static fpc_status check_groups(const fpc_dbx_config *config, fpc_error *err) {
    int first = -1;
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        if (config->values[i] == NULL || ATTRIBUTES[i].group == NO_GROUP) continue;
        if (first < 0) first = i;
        if (ATTRIBUTES[first].group == ATTRIBUTES[i].group) continue;
        return fpc_fail(err, FPC_INVALID,
                        "more than one login is configured: %s (from %s) and %s (from %s); set auth_type to "
                        "choose one, or remove one",
                        ATTRIBUTES[first].setting, config->from[first], ATTRIBUTES[i].setting,
                        config->from[i]);
    }
    return FPC_OK;
}

fpc_status fpc_dbx_config_resolve(const fpc_dbx_config *given, fpc_dbx_config *out, fpc_error *err) {
    memset(out, 0, sizeof *out);
    fpc_status status = FPC_OK;
    for (int i = 0; i < FPC_DBX_COUNT; i++) {
        if (!set(out, i, given->values[i], given->from[i])) status = fpc_fail(err, FPC_NOMEM, "source");
    }
    if (given->instances != NULL && (out->instances = strdup(given->instances)) == NULL)
        status = fpc_fail(err, FPC_NOMEM, "source");
    if (status == FPC_OK) status = read_file(out, err);
    if (status == FPC_OK && out->values[FPC_DBX_HOST] == NULL && out->values[FPC_DBX_MODEL_SERVING] != NULL &&
        !set(out, FPC_DBX_HOST, out->values[FPC_DBX_MODEL_SERVING_HOST], "DATABRICKS_MODEL_SERVING_HOST_URL"))
        status = fpc_fail(err, FPC_NOMEM, "host");
    if (status == FPC_OK) status = clean_host(out, err);
    const char *type = out->values[FPC_DBX_AUTH_TYPE];
    if (status == FPC_OK && type != NULL)
        status = fpc_workspace_login_check(type, err);
    else if (status == FPC_OK)
        status = check_groups(out, err);
    if (status != FPC_OK) fpc_dbx_config_clear(out);
    return status;
}

const char *fpc_dbx_oidc_token(const fpc_dbx_config *config, const char **name) {
    *name = config->values[FPC_DBX_OIDC_TOKEN_ENV];
    if (*name == NULL) *name = "DATABRICKS_OIDC_TOKEN";
    const char *token = getenv(*name);
    return token == NULL || *token == '\0' ? NULL : token;
}

bool fpc_dbx_is_account(const fpc_dbx_config *config) {
    const char *host = config->values[FPC_DBX_HOST];
    return host != NULL &&
           (strncmp(host, "https://accounts.", 17) == 0 || strncmp(host, "https://accounts-dod.", 21) == 0);
}
