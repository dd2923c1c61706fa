/* aws_reply.c -- keys in JSON and in the XML of STS.
 *
 * The XML is read by looking for four elements inside <Credentials>: STS writes them without attributes, and
 * whatever does not look so is refused. */
#include "rfc3339.h"
#include "token/aws.h"
#include "token/failure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void fpc_aws_keys_clear(fpc_aws_keys *keys) {
    fpc_secret_free(keys->id);
    fpc_secret_free(keys->secret);
    fpc_secret_free(keys->session);
    *keys = (fpc_aws_keys){.valid_for_s = -1};
}

void fpc_aws_raw_keys_clear(fpc_aws_raw_keys *keys) {
    fpc_secret_free(keys->id);
    fpc_secret_free(keys->secret);
    fpc_secret_free(keys->session);
    *keys = (fpc_aws_raw_keys){.expires = NAN};
}

/* Whether the texts are there and safe in a header and a URL. */
static bool check(fpc_aws_raw_keys *keys, bool complete) {
    if (complete && keys->id != NULL && keys->secret != NULL && fpc_cloud_is_token(keys->id) &&
        fpc_cloud_is_token(keys->secret) && (keys->session == NULL || fpc_cloud_is_token(keys->session)))
        return true;
    fpc_aws_raw_keys_clear(keys);
    return false;
}

/* The end as a time or as seconds since 1970; false when it is neither. */
static bool read_end(const json_t *object, double *out) {
    const json_t *value = json_object_get(object, "Expiration");
    *out = NAN;
    if (value == NULL || json_is_null(value)) return true;
    if (json_is_string(value) && fpc_rfc3339_parse(json_string_value(value), out)) return true;
    *out = fpc_cloud_json_number(object, "Expiration");
    return !isnan(*out);
}

static bool read_object(const json_t *object, const char *session_name, fpc_aws_raw_keys *out) {
    *out = (fpc_aws_raw_keys){0};
    bool complete = read_end(object, &out->expires);
    const char *session = fpc_cloud_json_text(object, session_name);
    out->id = fpc_secret_dup(fpc_cloud_json_text(object, "AccessKeyId"));
    out->secret = fpc_secret_dup(fpc_cloud_json_text(object, "SecretAccessKey"));
    out->session = fpc_secret_dup(session);
    return check(out, complete && (session == NULL) == (out->session == NULL));
}

bool fpc_aws_read_json(const char *text, size_t length, const char *session_name, fpc_aws_raw_keys *out) {
    json_t *json = json_loadb(text, length, 0, NULL);
    bool done = read_object(json, session_name, out);
    fpc_cloud_json_delete(json);
    return done;
}

/* The object called Credentials, at most two objects further in. */
static const json_t *find_credentials(const json_t *json, int depth) {
    const json_t *found = json_object_get(json, "Credentials");
    const char *key;
    json_t *child;
    if (depth == 0 || found != NULL) return found;
    json_object_foreach((json_t *)json, key, child) {
        if (found == NULL) found = find_credentials(child, depth - 1);
    }
    return found;
}

typedef struct span {
    const char *start, *end;
} span;

/* What stands between <name> and </name>. */
static bool find_element(span in, const char *name, span *out) {
    char open[40], close[40];
    size_t length = strlen(name);
    snprintf(open, sizeof open, "<%s>", name);
    snprintf(close, sizeof close, "</%s>", name);
    out->start = memmem(in.start, (size_t)(in.end - in.start), open, length + 2);
    if (out->start == NULL) return false;
    out->start += length + 2;
    out->end = memmem(out->start, (size_t)(in.end - out->start), close, length + 3);
    return out->end != NULL;
}

/* Keys and times need no entities: what has one is not what we look for. */
static char *copy_element(span in, const char *name) {
    span found;
    if (!find_element(in, name, &found) || found.start == found.end) return NULL;
    size_t length = (size_t)(found.end - found.start);
    if (memchr(found.start, '&', length) != NULL || memchr(found.start, '<', length) != NULL) return NULL;
    return fpc_secret_copy(found.start, length);
}

bool fpc_aws_read_sts(const char *text, size_t length, fpc_aws_raw_keys *out) {
    *out = (fpc_aws_raw_keys){.expires = NAN};
    if (length > 0 && text[strspn(text, " \t\r\n")] == '{') {
        json_t *json = json_loadb(text, length, 0, NULL);
        bool done = read_object(find_credentials(json, 2), "SessionToken", out);
        fpc_cloud_json_delete(json);
        return done;
    }
    span credentials;
    if (!find_element((span){text, text + length}, "Credentials", &credentials)) return false;
    char *end = copy_element(credentials, "Expiration");
    bool complete = end != NULL && fpc_rfc3339_parse(end, &out->expires);
    fpc_secret_free(end);
    out->id = copy_element(credentials, "AccessKeyId");
    out->secret = copy_element(credentials, "SecretAccessKey");
    out->session = copy_element(credentials, "SessionToken");
    return check(out, complete && out->session != NULL);
}

fpc_status fpc_aws_accept(fpc_aws_ask *ask, const fpc_http_response *answer, fpc_aws_raw_keys *raw,
                          fpc_aws_keys *out) {
    double valid = -1;
    if (!isnan(raw->expires)) {
        valid = fpc_http_valid_until(answer, raw->expires, ask->start_ns);
        if (valid <= 0) {
            fpc_aws_raw_keys_clear(raw);
            return fpc_token_fail(ask->failure, false, FPC_AUTH, "the AWS keys that were given have expired");
        }
    }
    *out = (fpc_aws_keys){raw->id, raw->secret, raw->session, valid};
    *raw = (fpc_aws_raw_keys){.expires = NAN};
    return FPC_OK;
}
