/* workspace_login_cli.c -- databricks-cli: the login that a person made with `databricks auth login`.
 *
 * The CLI refreshes what it keeps when it is near its end; it is not told to do so always, since two
 * processes that refresh at once would spoil each other's. */
#include "fpcache/os.h"
#include "fpcache/process.h"
#include "rfc3339.h"
#include "secret.h"
#include "token/cloud.h"
#include "token/workspace_login.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUN_SECONDS 30.0
#define MAX_OUTPUT  ((size_t)64 * 1024)
#define MAX_ERRORS  ((size_t)4 * 1024)
#define MIN_BYTES   1048576 /* the old CLI, a Python script, is smaller and has no `auth token` */
#define NOT_FOR_US  "databricks OAuth is not configured for this host"

static double min_bytes(const fpc_dbx_config *config) {
    const char *text = config->values[FPC_DBX_CLI_MIN_BYTES];
    return text == NULL ? MIN_BYTES : strtod(text, NULL);
}

/* Whether it is a program, and large enough. */
static bool is_cli(const fpc_dbx_config *config, const char *path, bool *too_small) {
    fpc_os_stat is;
    if (fpc_os_stat_path(path, true, &is, NULL) != FPC_OK || is.type != FPC_OS_FILE ||
        access(path, X_OK) != 0)
        return false;
    if ((double)is.size >= min_bytes(config)) return true;
    *too_small = true;
    return false;
}

/* Finds the program as a shell would, passing over old ones; false: why is in `words`. */
static bool find_cli(const fpc_dbx_config *config, char *path, size_t path_size, char *words, size_t size) {
    const char *given = config->values[FPC_DBX_CLI_PATH], *dirs = getenv("PATH");
    bool too_small = false;
    if (given != NULL) {
        snprintf(path, path_size, "%s", given);
        if (is_cli(config, path, &too_small)) return true;
        snprintf(words, size, "databricks_cli_path is %s", too_small ? "the old CLI" : "no program");
        return false;
    }
    for (const char *dir = dirs == NULL ? "" : dirs; *dir != '\0';) {
        size_t len = strcspn(dir, ":");
        snprintf(path, path_size, "%.*s/databricks", (int)len, dir);
        if (len > 0 && is_cli(config, path, &too_small)) return true;
        dir += len + (dir[len] == ':');
    }
    snprintf(words, size, "%s", too_small ? "only the old CLI in PATH" : "no program databricks in PATH");
    return false;
}

static const char *missing(const fpc_dbx_config *config, char *words, size_t size) {
    char path[1024];
    if (!find_cli(config, path, sizeof path, words, size)) return words;
    return config->values[FPC_DBX_PROFILE] == NULL && config->values[FPC_DBX_HOST] == NULL
               ? "no profile and no host"
               : NULL;
}

/* One line of what the program said; it holds no token, but who knows. */
static void one_line(char *text) {
    for (char *at = text; *at != '\0'; at++)
        if ((unsigned char)*at < ' ') *at = ' ';
    fpc_secret_redact(text);
}

static fpc_status take(const fpc_workspace_session *session, const fpc_process_result *result,
                       fpc_http_response *asked, fpc_workspace_token *out, fpc_token_failure *failure) {
    json_t *root = json_loadb(result->output, result->output_len, 0, NULL);
    const char *token = fpc_cloud_json_text(root, "access_token");
    const char *expiry = fpc_cloud_json_text(root, "expiry");
    double end;
    fpc_status status = FPC_OK;
    if (token == NULL || !fpc_cloud_is_token(token))
        status = fpc_token_fail(failure, false, FPC_SERVER, "the program gave no access_token");
    else if ((out->bearer = fpc_secret_dup(token)) == NULL)
        status = fpc_token_no_memory(failure);
    else if (expiry != NULL && fpc_rfc3339_parse(expiry, &end))
        out->valid_for_s = fpc_http_valid_until(asked, end, session->start_ns);
    fpc_cloud_json_delete(root);
    return status;
}

static fpc_status run(const fpc_workspace_session *session, const char *const *argv, const char *const *env,
                      fpc_workspace_token *out, fpc_token_failure *failure) {
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    fpc_process_result result;
    fpc_error err;
    fpc_deadline deadline = fpc_deadline_in(RUN_SECONDS);
    if (deadline > session->deadline) deadline = session->deadline;
    options.argv = argv;
    options.env = env;
    options.max_errors = MAX_ERRORS;
    fpc_http_response asked = {.started = fpc_os_wall_clock(), .started_ns = fpc_clock_ns()};
    fpc_status status = fpc_process_run(&options, MAX_OUTPUT, deadline, &result, &err);
    if (status != FPC_OK) {
        fpc_token_fail(failure, false, status, "%s", err.message);
    } else if (result.exit_status == 0) {
        status = take(session, &result, &asked, out, failure);
    } else if (strstr(result.errors, NOT_FOR_US) != NULL) {
        fpc_token_fail(failure, true, FPC_INVALID, "not logged in to this host");
    } else {
        one_line(result.errors);
        status = fpc_token_fail(failure, true, FPC_AUTH, "the program failed: %.250s", result.errors);
    }
    fpc_process_result_clear(&result);
    return status;
}

static fpc_status log_in(const fpc_workspace_session *session, fpc_workspace_token *out,
                         fpc_token_failure *failure) {
    const fpc_dbx_config *config = session->config;
    const char *profile = config->values[FPC_DBX_PROFILE], *account = config->values[FPC_DBX_ACCOUNT_ID];
    char path[1024], words[160], *file = NULL;
    const char *argv[8], *env[2] = {NULL, NULL};
    int n = 0;
    if (!find_cli(config, path, sizeof path, words, sizeof words))
        return fpc_token_fail(failure, true, FPC_INVALID, "%s", words);
    argv[n++] = path;
    argv[n++] = "auth";
    argv[n++] = "token";
    argv[n++] = profile != NULL ? "--profile" : "--host";
    argv[n++] = profile != NULL ? profile : config->values[FPC_DBX_HOST];
    if (profile == NULL && fpc_dbx_is_account(config) && account != NULL) {
        argv[n++] = "--account-id";
        argv[n++] = account;
    }
    argv[n] = NULL;
    if (config->values[FPC_DBX_CONFIG_FILE] != NULL) {
        if (asprintf(&file, "DATABRICKS_CONFIG_FILE=%s", config->values[FPC_DBX_CONFIG_FILE]) < 0)
            return fpc_token_no_memory(failure);
        env[0] = file;
    }
    fpc_status status = run(session, argv, env, out, failure);
    free(file);
    return status;
}

const fpc_workspace_login fpc_login_databricks_cli = {"databricks-cli", missing, log_in};
