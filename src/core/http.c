/* http.c -- requests by libcurl's multi interface, which lets us wait for our own descriptor as well.
 *
 * One easy handle serves all requests of an http: it keeps the connection.  An http lives no longer than one
 * fetch, so no connection is left for a child of fork(2) to share. */
#include "http.h"

#include "fpcache/os.h"
#include "fpcache/wait.h"
#include "http_curl.h"
#include "token/failure.h"
#include "version.h"

#include <curl/curl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define REQUEST_SECONDS   30.0
#define MAX_BODY          ((size_t)1024 * 1024)
#define MAX_HEADERS       ((size_t)64 * 1024)
#define INTERRUPT_TICK_MS 100 /* how often to look for an interrupt */

struct fpc_http {
    fpc_http_options options;
    char *ca_file;
    char agent[128];
    CURLM *multi;
    CURL *easy;
};

/* What the callbacks fill in. */
struct transfer {
    fpc_http_response *response;
    size_t max_body;
    bool too_large, no_memory;
};

static CURLcode initialised;

static void initialise(void) {
    initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
}

fpc_status fpc_http_prepare(fpc_error *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialise);
    if (initialised == CURLE_OK) return FPC_OK;
    return fpc_fail(err, FPC_SERVER, "libcurl cannot be used: %s", curl_easy_strerror(initialised));
}

fpc_status fpc_http_open(const fpc_http_options *options, fpc_http **out, fpc_token_failure *failure) {
    fpc_error err;
    if (fpc_http_prepare(&err) != FPC_OK) return fpc_token_fail(failure, true, err.status, "%s", err.message);
    fpc_http *http = calloc(1, sizeof *http);
    if (http == NULL) return fpc_token_no_memory(failure);
    http->options = *options;
    http->ca_file = fpc_secret_dup(options->ca_file);
    http->multi = curl_multi_init();
    http->easy = curl_easy_init();
    if (http->multi == NULL || http->easy == NULL || (options->ca_file != NULL && http->ca_file == NULL)) {
        fpc_http_close(http);
        return fpc_token_no_memory(failure);
    }
    fpc_http_name_auth(http, options->auth);
    *out = http;
    return FPC_OK;
}

void fpc_http_name_auth(fpc_http *http, const char *auth) {
    snprintf(http->agent, sizeof http->agent, "fpcache/" FPC_VERSION " os/linux%s%s",
             auth == NULL ? "" : " auth/", auth == NULL ? "" : auth);
}

void fpc_http_close(fpc_http *http) {
    if (http == NULL) return;
    curl_easy_cleanup(http->easy);
    curl_multi_cleanup(http->multi);
    fpc_secret_free(http->ca_file);
    free(http);
}

/* --- what the server says --- */

static size_t take_body(char *bytes, size_t size, size_t count, void *data) {
    struct transfer *transfer = data;
    size_t len = size * count;
    fpc_secret_buffer *body = &transfer->response->body;
    if (len > transfer->max_body - body->length) {
        transfer->too_large = true;
        return 0;
    }
    if (fpc_secret_append(body, bytes, len)) return len;
    transfer->no_memory = true;
    return 0;
}

static size_t take_header(char *bytes, size_t size, size_t count, void *data) {
    struct transfer *transfer = data;
    size_t len = size * count;
    fpc_secret_buffer *headers = &transfer->response->headers;
    if (len > 5 && memcmp(bytes, "HTTP/", 5) == 0) headers->length = 0; /* after a "100 Continue" */
    if (len > MAX_HEADERS - headers->length) {
        transfer->too_large = true;
        return 0;
    }
    if (fpc_secret_append(headers, bytes, len)) return len;
    transfer->no_memory = true;
    return 0;
}

char *fpc_http_response_header(const fpc_http_response *response, const char *name) {
    const char *line = response->headers.bytes, *found = NULL;
    size_t name_len = strlen(name), found_len = 0;
    while (line != NULL && *line != '\0') {
        size_t len = strcspn(line, "\n");
        if (len > name_len && line[name_len] == ':' && strncasecmp(line, name, name_len) == 0) {
            found = line + name_len + 1;
            found_len = len - name_len - 1;
        }
        line += len + (line[len] == '\n');
    }
    if (found == NULL) return NULL;
    while (found_len > 0 && (*found == ' ' || *found == '\t')) found++, found_len--;
    while (found_len > 0 && strchr(" \t\r", found[found_len - 1]) != NULL) found_len--;
    return fpc_secret_copy(found, found_len);
}

/* Seconds since 1970 of an HTTP date; 0: it is none. */
static double http_date(const char *text) {
    time_t date = text == NULL ? -1 : curl_getdate(text, NULL);
    return date <= 0 ? 0 : (double)date;
}

/* The header's seconds, or its date by the server's own clock. */
static double retry_after(const char *text, double now) {
    if (text == NULL || *text == '\0') return 0;
    double seconds = 0;
    if (text[strspn(text, "0123456789")] == '\0')
        seconds = strlen(text) > 9 ? 1e9 : strtod(text, NULL);
    else
        seconds = http_date(text) - now;
    return seconds > 0 ? seconds : 0;
}

static void read_headers(fpc_http_response *response) {
    char *date = fpc_http_response_header(response, "Date");
    response->date = http_date(date);
    fpc_secret_free(date);
    char *retry = fpc_http_response_header(response, "Retry-After");
    response->retry_after_s = retry_after(retry, response->date > 0 ? response->date : fpc_os_wall_clock());
    fpc_secret_free(retry);
}

void fpc_http_response_clear(fpc_http_response *response) {
    fpc_secret_buffer_clear(&response->body);
    fpc_secret_buffer_clear(&response->headers);
    memset(response, 0, sizeof *response);
}

/* --- asking --- */

/* Adds "name: value"; false when out of memory.  The list is wiped by free_headers(). */
static bool add_header(struct curl_slist **list, const char *name, const char *value) {
    fpc_secret_buffer line = {0};
    struct curl_slist *longer = NULL;
    if (fpc_secret_append_text(&line, name) && fpc_secret_append_text(&line, ": ") &&
        fpc_secret_append_text(&line, value))
        longer = curl_slist_append(*list, line.bytes);
    fpc_secret_buffer_clear(&line);
    if (longer == NULL) return false;
    *list = longer;
    return true;
}

static void free_headers(struct curl_slist *list) {
    for (struct curl_slist *item = list; item != NULL; item = item->next) {
        OPENSSL_cleanse(item->data, strlen(item->data));
    }
    curl_slist_free_all(list);
}

static void set_protocols(CURL *easy, bool local) {
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, local ? "http,https" : "https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTPS | (local ? CURLPROTO_HTTP : 0)));
#endif
}

/* What is the same for every request, and then the request itself. */
static void set_options(fpc_http *http, const fpc_http_request *request, struct transfer *transfer,
                        struct curl_slist *headers, char *words) {
    CURL *easy = http->easy;
    curl_easy_reset(easy); /* keeps the connections */
    fpc_http_set_basics(easy, http->ca_file);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, http->agent);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, words);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    set_protocols(easy, request->local);
    if (request->local) curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    if (request->user != NULL) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
        curl_easy_setopt(easy, CURLOPT_USERNAME, request->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, request->password);
    }
    if (strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)(request->body == NULL ? 0 : request->body_len));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body == NULL ? "" : request->body);
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    }
}

static bool make_headers(const fpc_http_request *request, struct curl_slist **list) {
    bool ok = add_header(list, "Accept", "application/json");
    for (int i = 0; ok && i < FPC_HTTP_HEADERS && request->headers[i].value != NULL; i++)
        ok = add_header(list, request->headers[i].name, request->headers[i].value);
    if (ok && request->body != NULL)
        ok =
            add_header(list, "Content-Type",
                       request->body_type == NULL ? "application/x-www-form-urlencoded" : request->body_type);
    struct curl_slist *longer =
        ok ? curl_slist_append(*list, "Expect:") : NULL; /* do not ask before sending */
    if (longer != NULL) *list = longer;
    return longer != NULL;
}

static fpc_status network_failed(CURLcode code, const struct transfer *transfer, bool local,
                                 const char *where, const char *words, fpc_token_failure *failure) {
    if (transfer->no_memory || code == CURLE_OUT_OF_MEMORY) return fpc_token_no_memory(failure);
    if (transfer->too_large)
        return fpc_token_fail(failure, false, FPC_SERVER, "%s sent an answer of more than %zu bytes", where,
                              transfer->max_body);
    bool permanent;
    fpc_status status = fpc_http_network_status(code, &permanent);
    if (local && code == CURLE_COULDNT_RESOLVE_HOST) permanent = true; /* this machine has no such service */
    char reason[CURL_ERROR_SIZE];
    snprintf(reason, sizeof reason, "%s", *words != '\0' ? words : curl_easy_strerror(code));
    fpc_secret_redact(reason);
    return fpc_token_fail(failure, permanent, status, "no answer from %s: %.300s", where, reason);
}

/* Lets libcurl work until the transfer, the deadline or the stop. */
static fpc_status run(fpc_http *http, fpc_deadline deadline, const char *where, CURLcode *result,
                      fpc_token_failure *failure) {
    int stop_fd = http->options.stop_fd;
    for (;;) {
        int running = 0, left = 0;
        CURLMcode bad = curl_multi_perform(http->multi, &running);
        if (bad != CURLM_OK)
            return fpc_token_fail(failure, false, FPC_SERVER, "libcurl: %s", curl_multi_strerror(bad));
        CURLMsg *message = curl_multi_info_read(http->multi, &left);
        if (message != NULL && message->msg == CURLMSG_DONE) {
            *result = message->data.result;
            return FPC_OK;
        }
        struct curl_waitfd stop = {.fd = stop_fd, .events = CURL_WAIT_POLLIN};
        int ms = fpc_deadline_poll_ms(deadline);
        if (stop_fd < 0 && (ms < 0 || ms > INTERRUPT_TICK_MS)) ms = INTERRUPT_TICK_MS;
        bad = curl_multi_poll(http->multi, &stop, stop_fd < 0 ? 0 : 1, ms < 0 ? 60000 : ms, NULL);
        if (bad != CURLM_OK)
            return fpc_token_fail(failure, false, FPC_SERVER, "libcurl: %s", curl_multi_strerror(bad));
        if (stop_fd < 0 ? fpc_interrupt_raised() : stop.revents != 0)
            return fpc_token_fail(failure, false, FPC_INTERRUPTED, "interrupted while asking %s", where);
        if (fpc_deadline_passed(deadline))
            return fpc_token_fail(failure, false, FPC_TIMEOUT, "%s did not answer in time", where);
    }
}

fpc_status fpc_http_send(fpc_http *http, const fpc_http_request *request, fpc_http_response *response,
                         fpc_token_failure *failure) {
    char where[160], words[CURL_ERROR_SIZE] = "";
    struct curl_slist *headers = NULL;
    struct transfer transfer = {response, request->max_body == 0 ? MAX_BODY : request->max_body, false,
                                false};
    fpc_deadline deadline = fpc_deadline_in(request->timeout_s > 0 ? request->timeout_s : REQUEST_SECONDS);
    if (deadline > http->options.deadline) deadline = http->options.deadline;
    fpc_http_name_url(request->url, where, sizeof where);
    if (strncasecmp(request->url, "https://", 8) != 0 &&
        !(request->local && fpc_http_is_local(request->url, false)))
        return fpc_token_fail(failure, true, FPC_INVALID, "%s: only https:// is spoken there", where);
    response->started = fpc_os_wall_clock();
    response->started_ns = fpc_clock_ns();
    CURLcode code = CURLE_OK;
    fpc_status status = FPC_NOMEM;
    if (!make_headers(request, &headers)) {
        fpc_token_no_memory(failure);
    } else {
        set_options(http, request, &transfer, headers, words);
        if (curl_multi_add_handle(http->multi, http->easy) == CURLM_OK) {
            status = run(http, deadline, where, &code, failure);
            curl_multi_remove_handle(http->multi, http->easy);
        } else {
            fpc_token_no_memory(failure);
        }
    }
    if (status == FPC_OK && code != CURLE_OK)
        status = network_failed(code, &transfer, request->local, where, words, failure);
    if (status == FPC_OK && response->body.bytes == NULL && !fpc_secret_append(&response->body, "", 0))
        status = fpc_token_no_memory(failure);
    if (status == FPC_OK) {
        long number = 0;
        curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &number);
        response->status = (int)number;
        read_headers(response);
    }
    curl_easy_reset(http->easy); /* forgets our pointers and its copies of the password */
    free_headers(headers);
    return status;
}

double fpc_http_valid_for(const fpc_http_response *response, double seconds, int64_t start_ns) {
    return seconds + (double)(response->started_ns - start_ns) / (double)FPC_NS_PER_SECOND;
}

double fpc_http_valid_until(const fpc_http_response *response, double expiry, int64_t start_ns) {
    double ours = expiry - response->started;
    double theirs = response->date > 0 ? expiry - response->date : ours;
    double left = ours < theirs ? ours : theirs;
    if (left <= 0) left = ours > theirs ? ours : theirs;
    return left <= 0 ? -1 : fpc_http_valid_for(response, left, start_ns);
}
