/* aws_sts.c -- temporary keys of a role, from AWS's security token service.
 *
 * Both requests are forms.  The one with a web identity proves itself by the token in it, the other is
 * signed. */
#include "fpcache/os.h"
#include "http_error.h"
#include "token/aws.h"
#include "token/failure.h"
#include "token/sigv4.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define STS "AWS STS"

/* The address given for STS, or NULL. */
static const char * override(const fpc_aws_ask *ask) {
    const char *ignore = ask->vars[FPC_AWS_IGNORE_ENDPOINTS];
    if (ignore != NULL && strcasecmp(ignore, "true") == 0) return NULL;
    if (ask->vars[FPC_AWS_ENDPOINT_STS] != NULL) return ask->vars[FPC_AWS_ENDPOINT_STS];
    if (ask->vars[FPC_AWS_ENDPOINT] != NULL) return ask->vars[FPC_AWS_ENDPOINT];
    return fpc_aws_files_endpoint(&ask->files, ask->profile, "sts");
}

/* Writes the address of STS, which ends with a slash, and its host as the Host header has it. */
static fpc_status find_sts(fpc_aws_ask *ask, fpc_secret_buffer *url, fpc_secret_buffer *host) {
    const char *given = override(ask);
    if (given == NULL) {
        fpc_secret_appendf(host, "sts.%.60s.amazonaws.com%s", ask->region,
                           strncmp(ask->region, "cn-", 3) == 0 ? ".cn" : "");
        fpc_secret_append_text(url, "https://");
        fpc_secret_append_text(url, host->failed ? "" : host->bytes);
    } else {
        const char *name = strstr(given, "://");
        name = name == NULL ? "" : name + 3;
        size_t length = strcspn(name, "/?#");
        if (length == 0 || strchr("/", name[length]) == NULL ||
            (name[length] == '/' && name[length + 1] != '\0'))
            return fpc_token_fail(
                ask->failure, true, FPC_INVALID,
                "the endpoint URL given for AWS STS must be https://HOST[:PORT], without a path");
        fpc_secret_append(url, given, (size_t)(name - given) + length);
        const char *standard = strncasecmp(given, "https:", 6) == 0 ? ":443" : ":80";
        size_t port = strlen(standard);
        if (length > port && strncmp(name + length - port, standard, port) == 0) length -= port;
        fpc_secret_append(host, name, length);
    }
    fpc_secret_append_text(url, "/");
    return url->failed || host->failed ? fpc_token_no_memory(ask->failure) : FPC_OK;
}

static void begin_form(fpc_secret_buffer *form, const char *action, const fpc_aws_role *role) {
    char name[40];
    snprintf(name, sizeof name, "fpcache-%.0f", fpc_os_wall_clock());
    fpc_http_form_add(form, "Action", action);
    fpc_http_form_add(form, "Version", "2011-06-15");
    fpc_http_form_add(form, "RoleArn", role->arn);
    fpc_http_form_add(form, "RoleSessionName", role->session_name != NULL ? role->session_name : name);
    if (role->external_id != NULL) fpc_http_form_add(form, "ExternalId", role->external_id);
    if (role->duration_s != NULL) fpc_http_form_add(form, "DurationSeconds", role->duration_s);
}

/* Sends the form; `by`: whose signature it bears, or NULL. */
static fpc_status send_form(fpc_aws_ask *ask, fpc_secret_buffer *form, const fpc_aws_keys *by,
                            fpc_aws_keys *out) {
    fpc_secret_buffer url = {0}, host = {0}, signature = {0};
    fpc_http_response response = {0};
    fpc_aws_raw_keys raw;
    char date[FPC_SIGV4_DATE_SIZE];
    *ask->failure = (fpc_token_failure){0};
    fpc_status status = form->failed ? fpc_token_no_memory(ask->failure) : find_sts(ask, &url, &host);
    if (status == FPC_OK && by != NULL) {
        fpc_sigv4 with = {.key_id = by->id,
                          .secret = by->secret,
                          .session = by->session,
                          .region = ask->region,
                          .service = "sts",
                          .now = (int64_t)fpc_os_wall_clock()};
        status = fpc_sigv4_authorize(&with, host.bytes, form->bytes, form->length, date, &signature,
                                     &ask->failure->error);
    }
    if (status == FPC_OK) {
        fpc_http_request request = {.method = "POST",
                                    .url = url.bytes,
                                    .body = form->bytes,
                                    .body_len = form->length,
                                    .body_type = FPC_SIGV4_FORM,
                                    .local = fpc_http_is_local(url.bytes, true)};
        if (by != NULL) {
            request.headers[0] = (fpc_http_header){"Authorization", signature.bytes};
            request.headers[1] = (fpc_http_header){"X-Amz-Date", date};
            if (by->session != NULL)
                request.headers[2] = (fpc_http_header){"X-Amz-Security-Token", by->session};
        }
        status = fpc_cloud_ask(ask->http, &request, STS, &response, ask->failure);
    }
    if (status == FPC_OK) {
        status = fpc_aws_read_sts(response.body.bytes, response.body.length, &raw)
                     ? fpc_aws_accept(ask, &response, &raw, out)
                     : fpc_http_odd_answer(&response, STS, "Credentials", ask->failure);
    }
    fpc_http_response_clear(&response);
    fpc_secret_buffer_clear(&signature);
    fpc_secret_buffer_clear(&host);
    fpc_secret_buffer_clear(&url);
    fpc_secret_buffer_clear(form);
    return status;
}

fpc_status fpc_aws_assume_role(fpc_aws_ask *ask, const fpc_aws_role *role, const fpc_aws_keys *by,
                               fpc_aws_keys *out) {
    fpc_secret_buffer form = {0};
    begin_form(&form, "AssumeRole", role);
    return send_form(ask, &form, by, out);
}

fpc_status fpc_aws_web_identity_keys(fpc_aws_ask *ask, const fpc_aws_role *role, const char *token_file,
                                     fpc_aws_keys *out) {
    fpc_secret_buffer form = {0}, token = {0};
    fpc_status status = fpc_cloud_read_file(token_file, &token, ask->failure);
    if (status == FPC_OK) {
        begin_form(&form, "AssumeRoleWithWebIdentity", role);
        fpc_http_form_add(&form, "WebIdentityToken", token.bytes);
        status = send_form(ask, &form, NULL, out);
    }
    fpc_secret_buffer_clear(&token);
    return status;
}
