/* cloud.c -- what the sources of AWS, Azure and Google have in common. */
#include "token/cloud.h"

#include "http_error.h"
#include "token/source.h"

#include <math.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

bool fpc_cloud_copy(const char *const *from, char **to, size_t count) {
    bool done = true;
    for (size_t i = 0; i < count; i++) {
        to[i] = fpc_secret_dup(from[i]);
        done &= to[i] != NULL || from[i] == NULL;
    }
    if (!done) fpc_cloud_forget(to, count);
    return done;
}

bool fpc_cloud_env_read(const char *const *names, size_t count, char **values) {
    for (size_t i = 0; i < count; i++) values[i] = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && *value == '\0') value = NULL;
        if (fpc_cloud_copy(&value, &values[i], 1)) continue;
        fpc_cloud_forget(values, count);
        return false;
    }
    return true;
}

void fpc_cloud_forget(char **values, size_t count) {
    for (size_t i = 0; i < count; i++) fpc_secret_clear(&values[i]);
}

fpc_status fpc_cloud_ask(fpc_http *http, const fpc_http_request *request, const char *who,
                         fpc_http_response *response, fpc_token_failure *failure) {
    fpc_status status = fpc_http_send(http, request, response, failure);
    if (status != FPC_OK) {
        fpc_error_prefix(&failure->error, "%s: ", who);
        return status;
    }
    if (response->status / 100 == 2) return FPC_OK;
    return fpc_http_refused(response, who, failure);
}

fpc_status fpc_cloud_json(const fpc_http_response *response, const char *who, json_t **out,
                          fpc_token_failure *failure) {
    *out = json_loadb(response->body.length > 0 ? response->body.bytes : "", response->body.length, 0, NULL);
    if (json_is_object(*out)) return FPC_OK;
    fpc_cloud_json_delete(*out);
    *out = NULL;
    return fpc_http_odd_answer(response, who, "a JSON object", failure);
}

static void wipe(json_t *json) {
    const char *key;
    size_t i;
    json_t *child;
    if (json_is_string(json)) OPENSSL_cleanse((void *)json_string_value(json), json_string_length(json));
    json_object_foreach(json, key, child) wipe(child);
    json_array_foreach(json, i, child) wipe(child);
}

void fpc_cloud_json_delete(json_t *json) {
    if (json == NULL) return;
    wipe(json);
    json_decref(json);
}

const char *fpc_cloud_json_text(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL || *text == '\0' ? NULL : text;
}

double fpc_cloud_json_number(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    if (json_is_number(value)) return json_number_value(value);
    const char *text = fpc_cloud_json_text(object, name);
    /* strtod() would also take "inf", "0x10" and leading blanks */
    if (text == NULL || text[strspn(text, "0123456789.")] != '\0') return NAN;
    return strtod(text, NULL);
}

bool fpc_cloud_is_token(const char *text) {
    for (; *text != '\0'; text++) {
        if (*text < '!' || *text > '~') return false;
    }
    return true;
}

fpc_status fpc_cloud_take_token(const fpc_http_response *response, const char *who, int64_t start_ns,
                                fpc_token *out, fpc_token_failure *failure) {
    json_t *json;
    fpc_status status = fpc_cloud_json(response, who, &json, failure);
    if (status != FPC_OK) return status;
    const char *token = fpc_cloud_json_text(json, "access_token");
    double on = fpc_cloud_json_number(json, "expires_on"), in = fpc_cloud_json_number(json, "expires_in");
    if (token == NULL || !fpc_cloud_is_token(token)) {
        status = fpc_http_odd_answer(response, who, "access_token", failure);
    } else if ((out->password = fpc_secret_dup(token)) == NULL) {
        status = fpc_token_no_memory(failure);
    } else {
        /* expires_in may count from when the token was made, which is earlier if the service kept it */
        double until = isnan(on) ? -1 : fpc_http_valid_until(response, on, start_ns);
        double during = isnan(in) ? -1 : fpc_http_valid_for(response, in, start_ns);
        out->valid_for_s = until < 0 ? during : during < 0 ? until : fmin(until, during);
    }
    fpc_cloud_json_delete(json);
    return status;
}

fpc_status fpc_cloud_read_file(const char *path, fpc_secret_buffer *out, fpc_token_failure *failure) {
    *failure = (fpc_token_failure){0};
    fpc_status status = fpc_secret_read_file(out, path, FPC_CLOUD_MAX_FILE, &failure->error);
    if (status != FPC_OK) return status;
    size_t skip = strspn(out->bytes, " \t\r\n"), length = out->length;
    while (length > skip && strchr(" \t\r\n", out->bytes[length - 1]) != NULL) length--;
    memmove(out->bytes, out->bytes + skip, length - skip);
    out->length = length - skip;
    out->bytes[out->length] = '\0';
    if (out->length == 0) return fpc_token_fail(failure, false, FPC_INVALID, "%.200s is empty", path);
    return FPC_OK;
}
