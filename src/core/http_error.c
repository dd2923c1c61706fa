/* http_error.c -- the shapes in which servers of several clouds say what went wrong. */
#include "http_error.h"

#include "http_curl.h"
#include "token/failure.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Copies as one line; what does not fit is cut. */
static void put(char *to, size_t size, const char *text, size_t len) {
    size_t n = 0;
    for (size_t i = 0; i < len && n + 1 < size; i++) {
        unsigned char byte = (unsigned char)text[i];
        bool blank = byte <= ' ' || byte == 0x7F;
        if (blank && (n == 0 || to[n - 1] == ' ')) continue;
        to[n++] = blank ? ' ' : (char)byte;
    }
    while (n > 0 && to[n - 1] == ' ') n--;
    to[n] = '\0';
}

/* The text of a member, or of the first of several names that is there. */
static void take(const json_t *object, const char *const *names, char *to, size_t size) {
    for (; *names != NULL && *to == '\0'; names++) {
        const json_t *member = json_object_get(object, *names);
        if (json_is_string(member)) put(to, size, json_string_value(member), json_string_length(member));
        if (json_is_integer(member)) snprintf(to, size, "%lld", (long long)json_integer_value(member));
    }
}

static void read_object(const json_t *object, fpc_http_problem *out) {
    static const char *const CODES[] = {"error_code", "errorCode", "scimType", "Code",
                                        "code",       "status",    NULL};
    static const char *const WORDS[] = {
        "message", "error_description", "errorSummary", "errorMessage", "detail", "Message", NULL};
    static const char *const ERROR[] = {"error", NULL};
    static const char *const NESTED[] = {"error", "Error", NULL};
    for (size_t i = 0; NESTED[i] != NULL; i++) {
        const json_t *inner = json_object_get(object, NESTED[i]);
        if (json_is_object(inner)) read_object(inner, out);
    }
    take(object, WORDS, out->message, sizeof out->message);
    if (out->message[0] != '\0') take(object, ERROR, out->code, sizeof out->code); /* OAuth's code */
    take(object, CODES, out->code, sizeof out->code);
    take(object, ERROR, out->message, sizeof out->message); /* the old API's words */
}

/* What stands between <tag ...> and the next "<"; false: there is no such tag. */
static bool take_tag(const char *body, size_t len, const char *tag, char *to, size_t size) {
    size_t tag_len = strlen(tag);
    for (size_t i = 0; i + tag_len + 1 < len; i++) {
        if (body[i] != '<' || strncasecmp(body + i + 1, tag, tag_len) != 0) continue;
        const char *from = memchr(body + i, '>', len - i);
        if (from == NULL) return false;
        from++;
        size_t rest = len - (size_t)(from - body);
        const char *end = memchr(from, '<', rest);
        put(to, size, from, end == NULL ? rest : (size_t)(end - from));
        return to[0] != '\0';
    }
    return false;
}

/* "CODE: message" */
static void read_plain(const char *body, size_t len, fpc_http_problem *out) {
    size_t code = 0;
    while (code < len && (isupper((unsigned char)body[code]) || body[code] == '_')) code++;
    if (code < 2 || code + 1 >= len || body[code] != ':' || body[code + 1] != ' ') return;
    put(out->code, sizeof out->code, body, code);
    put(out->message, sizeof out->message, body + code + 2, len - code - 2);
}

void fpc_http_problem_read(const char *body, size_t len, fpc_http_problem *out) {
    memset(out, 0, sizeof *out);
    json_t *root = json_loadb(body, len, JSON_ALLOW_NUL, NULL);
    if (json_is_object(root)) {
        read_object(root, out);
    } else if (root == NULL && len > 0) {
        if (take_tag(body, len, "Code>", out->code, sizeof out->code)) /* XML of AWS */
            take_tag(body, len, "Message>", out->message, sizeof out->message);
        else if (!take_tag(body, len, "pre", out->message, sizeof out->message) &&
                 !take_tag(body, len, "title", out->message, sizeof out->message))
            read_plain(body, len, out);
    }
    json_decref(root);
    fpc_secret_redact(out->code);
    fpc_secret_redact(out->message);
}

static const char *reason_of(int status) {
    switch (status) {
    case 400: return "bad request";
    case 401: return "not logged in";
    case 403: return "permission denied";
    case 404: return "not found";
    case 409: return "conflict";
    case 429: return "too many requests";
    case 499: return "cancelled";
    case 500: return "internal error";
    case 501: return "not implemented";
    case 503: return "unavailable";
    case 504: return "deadline exceeded";
    default: return "no reason given";
    }
}

static bool is_passing(int status, const char *code) {
    static const char *const CODES[] = {"RESOURCE_EXHAUSTED",      "REQUEST_LIMIT_EXCEEDED", "ABORTED",
                                        "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED",      "INVALID_STATE"};
    for (size_t i = 0; i < sizeof CODES / sizeof *CODES; i++)
        if (strcmp(code, CODES[i]) == 0) return true;
    return fpc_http_may_pass(status);
}

static fpc_status redirected(const fpc_http_response *response, const char *who, fpc_token_failure *failure) {
    char *to = fpc_http_response_header(response, "Location");
    char where[200] = "";
    bool private_link = to != NULL && strstr(to, "private-link-validation-error") != NULL;
    if (to != NULL) put(where, sizeof where, to, strcspn(to, "?#"));
    fpc_secret_redact(where);
    fpc_secret_free(to);
    if (private_link)
        return fpc_token_fail(failure, true, FPC_DENIED,
                              "%s answered %d: this network may not reach it (Private Link)", who,
                              response->status);
    return fpc_token_fail(failure, true, FPC_INVALID,
                          "%s answered %d: a redirect to \"%s\", which is not followed; is the host right?",
                          who, response->status, where);
}

fpc_status fpc_http_refused(const fpc_http_response *response, const char *who, fpc_token_failure *failure) {
    int http = response->status;
    if (http >= 300 && http < 400) return redirected(response, who, failure);
    fpc_http_problem problem;
    fpc_http_problem_read(response->body.bytes, response->body.length, &problem);
    bool passing = is_passing(http, problem.code);
    fpc_status status = http == 401   ? FPC_AUTH
                        : http == 403 ? FPC_DENIED
                        : passing     ? FPC_SERVER
                                      : FPC_INVALID;
    const char *message = problem.message[0] != '\0' ? problem.message : reason_of(http);
    fpc_token_fail(failure, !passing, status, "%s answered %d%s%s: %s", who, http,
                   problem.code[0] == '\0' ? "" : " ", problem.code, message);
    if (failure != NULL) failure->retry_after_s = response->retry_after_s;
    return status;
}

fpc_status fpc_http_odd_answer(const fpc_http_response *response, const char *who, const char *what,
                               fpc_token_failure *failure) {
    return fpc_token_fail(failure, false, FPC_SERVER, "%s answered %d without %s that can be read", who,
                          response->status, what);
}
