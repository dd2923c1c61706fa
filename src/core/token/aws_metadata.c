/* aws_metadata.c -- keys from the endpoint of a container and from the metadata service of an instance. */
#include "http_error.h"
#include "token/aws.h"
#include "token/failure.h"

#include <string.h>
#include <strings.h>

#define ECS_HOST  "http://169.254.170.2"
#define CONTAINER "the container's credentials endpoint"

#define IMDS_V4     "http://169.254.169.254"
#define IMDS_V6     "http://[fd00:ec2::254]"
#define IMDS        "the EC2 metadata service"
#define IMDS_ROLE   "/latest/meta-data/iam/security-credentials/"
#define IMDS_HEADER "X-aws-ec2-metadata-token"

static fpc_status accept_json(fpc_aws_ask *ask, const fpc_http_response *response, const char *who,
                              fpc_aws_keys *out) {
    fpc_aws_raw_keys raw;
    if (!fpc_aws_read_json(response->body.bytes, response->body.length, "Token", &raw))
        return fpc_http_odd_answer(response, who, "AccessKeyId and SecretAccessKey", ask->failure);
    return fpc_aws_accept(ask, response, &raw, out);
}

/* Whether the URL's host is exactly `address`. */
static bool has_host(const char *url, const char *address) {
    size_t length = strlen(address);
    return strncmp(url, address, length) == 0 && strchr("/:?", url[length]) != NULL;
}

/* The secret of the container goes only to its own machine, or through TLS. */
static bool is_allowed(const char *url) {
    if (strncasecmp(url, "https://", 8) == 0) return true;
    return fpc_http_is_local(url, true) || has_host(url, ECS_HOST) ||
           has_host(url, "http://169.254.170.23") || has_host(url, "http://[fd00:ec2::23]");
}

/* The value of the Authorization header, which may be empty. */
static fpc_status container_secret(fpc_aws_ask *ask, fpc_secret_buffer *out) {
    const char *file = ask->vars[FPC_AWS_CONTAINER_TOKEN_FILE], *text = ask->vars[FPC_AWS_CONTAINER_TOKEN];
    if (file != NULL) {
        fpc_status status = fpc_cloud_read_file(file, out, ask->failure);
        if (status != FPC_OK) return status;
    } else if (text != NULL) {
        fpc_secret_append_text(out, text);
    }
    if (out->failed) return fpc_token_no_memory(ask->failure);
    if (out->length > 0 && strpbrk(out->bytes, "\r\n") != NULL)
        return fpc_token_fail(ask->failure, true, FPC_INVALID,
                              "the token for " CONTAINER " has more than one line");
    return FPC_OK;
}

fpc_status fpc_aws_container_keys(fpc_aws_ask *ask, fpc_aws_keys *out) {
    const char *relative = ask->vars[FPC_AWS_CONTAINER_RELATIVE_URI];
    fpc_secret_buffer url = {0}, secret = {0};
    fpc_http_response response = {0};
    fpc_status status = FPC_OK;
    if (relative != NULL) fpc_secret_append_text(&url, ECS_HOST);
    fpc_secret_append_text(&url, relative != NULL ? relative : ask->vars[FPC_AWS_CONTAINER_FULL_URI]);
    if (url.failed)
        status = fpc_token_no_memory(ask->failure);
    else if (!is_allowed(url.bytes))
        status = fpc_token_fail(ask->failure, true, FPC_INVALID,
                                "AWS_CONTAINER_CREDENTIALS_FULL_URI must begin with https://, or name this "
                                "machine, 169.254.170.2, 169.254.170.23 or [fd00:ec2::23]");
    if (status == FPC_OK) status = container_secret(ask, &secret);
    if (status == FPC_OK) {
        fpc_http_request request = {.method = "GET",
                                    .url = url.bytes,
                                    .headers = {{"Accept", "application/json"},
                                                {secret.length > 0 ? "Authorization" : NULL,
                                                 secret.length > 0 ? secret.bytes : NULL}},
                                    .local = strncasecmp(url.bytes, "https://", 8) != 0,
                                    .timeout_s = FPC_CLOUD_METADATA_S};
        status = fpc_cloud_ask(ask->http, &request, CONTAINER, &response, ask->failure);
    }
    if (status == FPC_OK) status = accept_json(ask, &response, CONTAINER, out);
    fpc_http_response_clear(&response);
    fpc_secret_buffer_clear(&secret);
    fpc_secret_buffer_clear(&url);
    return status;
}

/* One request to the metadata service; `token` is NULL when it is what we ask for. */
static fpc_status ask_instance(fpc_aws_ask *ask, const char *path, const char *name, const char *token,
                               fpc_http_response *response) {
    const char *mode = ask->vars[FPC_AWS_METADATA_ENDPOINT_MODE],
               *base = ask->vars[FPC_AWS_METADATA_ENDPOINT];
    if (base == NULL) base = mode != NULL && strcasecmp(mode, "IPv6") == 0 ? IMDS_V6 : IMDS_V4;
    size_t length = strlen(base);
    while (length > 0 && base[length - 1] == '/') length--;
    fpc_secret_buffer url = {0};
    fpc_secret_append(&url, base, length);
    fpc_secret_append_text(&url, path);
    fpc_http_encode(&url, name);
    fpc_http_request request = {.method = token == NULL ? "PUT" : "GET",
                                .url = url.bytes,
                                .headers = {{IMDS_HEADER, token}},
                                .local = true,
                                .timeout_s = FPC_CLOUD_METADATA_S};
    if (token == NULL) request.headers[0] = (fpc_http_header){IMDS_HEADER "-ttl-seconds", "21600"};
    fpc_status status = url.failed ? fpc_token_no_memory(ask->failure)
                                   : fpc_cloud_ask(ask->http, &request, IMDS, response, ask->failure);
    fpc_secret_buffer_clear(&url);
    return status;
}

/* The first line of an answer, which must be one token; NULL when it is not. */
static char *first_line(const fpc_http_response *response) {
    if (response->body.length == 0) return NULL;
    char *line = fpc_secret_copy(response->body.bytes, strcspn(response->body.bytes, "\r\n"));
    if (line != NULL && *line != '\0' && fpc_cloud_is_token(line)) return line;
    fpc_secret_free(line);
    return NULL;
}

fpc_status fpc_aws_instance_keys(fpc_aws_ask *ask, fpc_aws_keys *out) {
    char *token = NULL, *role = NULL;
    fpc_http_response for_token = {0}, for_role = {0}, for_keys = {0};
    fpc_status status = ask_instance(ask, "/latest/api/token", "", NULL, &for_token);
    if (status != FPC_OK) goto done;
    if ((token = first_line(&for_token)) == NULL) {
        status = fpc_http_odd_answer(&for_token, IMDS, "a token", ask->failure);
        goto done;
    }
    status = ask_instance(ask, IMDS_ROLE, "", token, &for_role);
    if (for_role.status == 404) {
        status = fpc_token_fail(ask->failure, true, FPC_INVALID, "this EC2 instance has no role attached");
    }
    if (status != FPC_OK) goto done;
    if ((role = first_line(&for_role)) == NULL) {
        status = fpc_http_odd_answer(&for_role, IMDS, "the name of a role", ask->failure);
        goto done;
    }
    status = ask_instance(ask, IMDS_ROLE, role, token, &for_keys);
    if (status == FPC_OK) status = accept_json(ask, &for_keys, IMDS, out);
done:
    fpc_secret_free(token);
    fpc_secret_free(role);
    fpc_http_response_clear(&for_token);
    fpc_http_response_clear(&for_role);
    fpc_http_response_clear(&for_keys);
    return status;
}
