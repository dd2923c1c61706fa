/* aws_chain.c -- where keys of AWS are looked for, and in which order.
 *
 * The order is that of botocore:
 * 1. the environment's keys, unless our settings name a profile
 * 2. a role that the profile assumes with the keys of another
 * 3. a web identity: of the environment, unless our settings name a profile; then of the profile
 * 4. the profile's keys in the credentials file, its credential_process, its keys in the config file
 * 5. the container's endpoint
 * 6. the metadata service of the instance
 * The first place that applies is the one: what fails there is the answer, so that nobody is logged in as
 * somebody else because a file could not be read. */
#include "fpcache/os.h"
#include "rfc3339.h"
#include "token/aws.h"
#include "token/failure.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MAX_DEPTH 5 /* of roles that are assumed by way of others */

static fpc_status from_profile(fpc_aws_ask *ask, const char *profile, int depth, fpc_aws_keys *out,
                               bool *found);

/* Keys out of three texts; `where` names them in an error. */
static fpc_status take_texts(fpc_aws_ask *ask, const char *where, const char *id, const char *secret,
                             const char *session, fpc_aws_keys *out) {
    if (id == NULL || secret == NULL)
        return fpc_token_fail(ask->failure, true, FPC_INVALID, "%s: %s is missing", where,
                              id == NULL ? "aws_access_key_id" : "aws_secret_access_key");
    if (!fpc_cloud_is_token(id) || !fpc_cloud_is_token(secret) ||
        (session != NULL && !fpc_cloud_is_token(session)))
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "%s: the keys hold blanks or control characters", where);
    *out = (fpc_aws_keys){fpc_secret_dup(id), fpc_secret_dup(secret), fpc_secret_dup(session), -1};
    if (out->id != NULL && out->secret != NULL && (out->session != NULL || session == NULL)) return FPC_OK;
    fpc_aws_keys_clear(out);
    return fpc_token_no_memory(ask->failure);
}

static fpc_status from_environment(fpc_aws_ask *ask, fpc_aws_keys *out) {
    char *const *vars = ask->vars;
    fpc_status status = take_texts(ask, "the environment", vars[FPC_AWS_ACCESS_KEY_ID],
                                   vars[FPC_AWS_SECRET_ACCESS_KEY], vars[FPC_AWS_SESSION_TOKEN], out);
    double end;
    const char *text = vars[FPC_AWS_CREDENTIAL_EXPIRATION];
    if (status != FPC_OK || text == NULL || !fpc_rfc3339_parse(text, &end)) return status;
    fpc_http_response now = {.started = fpc_os_wall_clock(), .started_ns = fpc_clock_ns()};
    fpc_aws_raw_keys raw = {out->id, out->secret, out->session, end};
    *out = (fpc_aws_keys){.valid_for_s = -1};
    return fpc_aws_accept(ask, &now, &raw, out);
}

static void note(fpc_aws_ask *ask, const char *words) {
    if (ask->tried.length > 0) fpc_secret_append_text(&ask->tried, "; ");
    fpc_secret_append_text(&ask->tried, words);
}

static const char *get(const fpc_aws_ask *ask, const char *profile, const char *key) {
    return fpc_aws_files_get(&ask->files, profile, key);
}

/* The keys that assume the role of a profile. */
static fpc_status find_base(fpc_aws_ask *ask, const char *profile, int depth, fpc_aws_keys *out) {
    const char *source = get(ask, profile, "source_profile"), *place = get(ask, profile, "credential_source");
    bool found = true;
    if (source != NULL && depth == MAX_DEPTH)
        return fpc_token_fail(
            ask->failure, true, FPC_INVALID,
            "AWS profile \"%.60s\": more than %d profiles follow each other by source_profile", profile,
            MAX_DEPTH);
    if (source != NULL && !fpc_aws_files_has(&ask->files, source))
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "AWS profile \"%.60s\": there is no profile \"%.60s\" (source_profile)",
                              profile, source);
    fpc_status status;
    if (source != NULL) /* a profile that names itself means its own keys */
        status = from_profile(ask, source, strcmp(source, profile) == 0 ? -1 : depth + 1, out, &found);
    else if (strcasecmp(place, "Environment") == 0)
        status = from_environment(ask, out);
    else if (strcasecmp(place, "Ec2InstanceMetadata") == 0)
        status = fpc_aws_instance_keys(ask, out);
    else if (strcasecmp(place, "EcsContainer") == 0 && (ask->vars[FPC_AWS_CONTAINER_RELATIVE_URI] != NULL ||
                                                        ask->vars[FPC_AWS_CONTAINER_FULL_URI] != NULL))
        status = fpc_aws_container_keys(ask, out);
    else
        return fpc_token_fail(
            ask->failure, true, FPC_INVALID,
            "AWS profile \"%.60s\": credential_source \"%.40s\" does not apply here (Environment, "
            "Ec2InstanceMetadata, EcsContainer)",
            profile, place);
    if (status == FPC_OK && !found)
        status = fpc_token_fail(ask->failure, true, FPC_INVALID, "AWS profile \"%.60s\" has no keys", source);
    return status;
}

static fpc_status assume(fpc_aws_ask *ask, const char *profile, int depth, fpc_aws_keys *out) {
    fpc_aws_role role = {.arn = get(ask, profile, "role_arn"),
                         .session_name = get(ask, profile, "role_session_name"),
                         .external_id = get(ask, profile, "external_id"),
                         .duration_s = get(ask, profile, "duration_seconds")};
    if (get(ask, profile, "mfa_serial") != NULL)
        return fpc_token_fail(
            ask->failure, true, FPC_INVALID,
            "AWS profile \"%.60s\" asks for a code of a device (mfa_serial), which nobody is "
            "here to type; use credential_process",
            profile);
    fpc_aws_keys base = {.valid_for_s = -1};
    fpc_status status = find_base(ask, profile, depth, &base);
    if (status == FPC_OK) status = fpc_aws_assume_role(ask, &role, &base, out);
    fpc_aws_keys_clear(&base);
    return status;
}

/* Keys that the profile itself has.  `depth` -1: only these, and not those that it gets by a role. */
static fpc_status from_profile(fpc_aws_ask *ask, const char *profile, int depth, fpc_aws_keys *out,
                               bool *found) {
    const fpc_aws_files *files = &ask->files;
    const char *role = get(ask, profile, "role_arn"),
               *token_file = get(ask, profile, "web_identity_token_file");
    char where[100];
    snprintf(where, sizeof where, "AWS profile \"%.60s\"", profile);
    *found = true;
    if (depth >= 0 && role != NULL &&
        (get(ask, profile, "source_profile") != NULL || get(ask, profile, "credential_source") != NULL))
        return assume(ask, profile, depth, out);
    if (depth == 0 && !ask->profile_given && ask->vars[FPC_AWS_WEB_IDENTITY_TOKEN_FILE] != NULL) {
        fpc_aws_role asked = {.arn = ask->vars[FPC_AWS_ROLE_ARN],
                              .session_name = ask->vars[FPC_AWS_ROLE_SESSION_NAME]};
        if (asked.arn == NULL)
            return fpc_token_fail(ask->failure, true, FPC_INVALID,
                                  "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
        return fpc_aws_web_identity_keys(ask, &asked, ask->vars[FPC_AWS_WEB_IDENTITY_TOKEN_FILE], out);
    }
    if (depth >= 0 && role != NULL && token_file != NULL) {
        fpc_aws_role asked = {.arn = role, .session_name = get(ask, profile, "role_session_name")};
        return fpc_aws_web_identity_keys(ask, &asked, token_file, out);
    }
    if (get(ask, profile, "sso_session") != NULL || get(ask, profile, "sso_account_id") != NULL)
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "%s logs in by SSO, which needs a browser; make a second profile with "
                              "credential_process = aws configure export-credentials --profile %.60s",
                              where, profile);
    const char *id = fpc_aws_files_credentials(files, profile, "aws_access_key_id");
    if (id != NULL)
        return take_texts(ask, where, id, fpc_aws_files_credentials(files, profile, "aws_secret_access_key"),
                          fpc_aws_files_credentials(files, profile, "aws_session_token"), out);
    const char *process = get(ask, profile, "credential_process");
    if (process != NULL) return fpc_aws_process_keys(ask, process, out);
    id = fpc_aws_files_config(files, profile, "aws_access_key_id");
    if (id != NULL)
        return take_texts(ask, where, id, fpc_aws_files_config(files, profile, "aws_secret_access_key"),
                          fpc_aws_files_config(files, profile, "aws_session_token"), out);
    *found = false;
    return FPC_OK;
}

/* Places 5 and 6. */
static fpc_status from_machine(fpc_aws_ask *ask, fpc_aws_keys *out) {
    const char *disabled = ask->vars[FPC_AWS_METADATA_DISABLED];
    if (ask->vars[FPC_AWS_CONTAINER_RELATIVE_URI] != NULL || ask->vars[FPC_AWS_CONTAINER_FULL_URI] != NULL)
        return fpc_aws_container_keys(ask, out);
    note(ask, "AWS_CONTAINER_CREDENTIALS_* is not set");
    if (disabled != NULL && strcasecmp(disabled, "true") == 0) {
        note(ask, "AWS_EC2_METADATA_DISABLED is set");
        return fpc_token_fail(ask->failure, true, FPC_INVALID, "no AWS keys were found: %s",
                              ask->tried.failed ? "" : ask->tried.bytes);
    }
    fpc_status status = fpc_aws_instance_keys(ask, out);
    if (status != FPC_OK)
        fpc_error_prefix(&ask->failure->error, "no AWS keys were found: %s; ",
                         ask->tried.failed ? "" : ask->tried.bytes);
    return status;
}

fpc_status fpc_aws_find_keys(fpc_aws_ask *ask, fpc_aws_keys *out) {
    bool found = false;
    char words[120];
    *out = (fpc_aws_keys){.valid_for_s = -1};
    if (!ask->profile_given &&
        (ask->vars[FPC_AWS_ACCESS_KEY_ID] != NULL || ask->vars[FPC_AWS_SECRET_ACCESS_KEY] != NULL))
        return from_environment(ask, out);
    note(ask, ask->profile_given ? "the environment's keys do not count beside a profile"
                                 : "AWS_ACCESS_KEY_ID is not set");
    if (ask->profile_named && !fpc_aws_files_has(&ask->files, ask->profile))
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "there is no AWS profile \"%.60s\" in the config or the credentials file",
                              ask->profile);
    fpc_status status = from_profile(ask, ask->profile, 0, out, &found);
    if (status != FPC_OK || found) return status;
    snprintf(words, sizeof words, "the profile \"%.60s\" has no keys", ask->profile);
    note(ask, words);
    return from_machine(ask, out);
}
