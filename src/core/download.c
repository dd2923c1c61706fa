/* download.c -- one multi handle, an easy handle for each download under way; the others wait in a list, in
 * the order of arrival or until their next try is due. */
#include "fpcache/download.h"

#include "fpcache/wait.h"
#include "http.h"
#include "http_curl.h"
#include "version.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define TICK_MS       100 /* how often to look for an interrupt */
#define MAX_REDIRECTS 5L
#define TYPE_SIZE     128
#define TAG_SIZE      256

typedef struct item {
    fpc_download shown;
    char *url, *path;
    int fd; /* -1: memory */
    char *body;
    size_t capacity;
    char type[TYPE_SIZE], etag[TAG_SIZE], modified[TAG_SIZE];
    char words[CURL_ERROR_SIZE];
    bool too_large, no_memory;
    int file_error;
    double pause_s;
    int64_t due_ns; /* its next try */
    CURL *easy;     /* under way */
    const fpc_downloads *of;
    struct item *next;
} item;

struct fpc_downloads {
    fpc_downloads_options options;
    char *ca_file;
    struct curl_slist *headers;
    CURLM *multi;
    item *waiting, *running, *ended, *handed_out;
    int running_count;
    size_t left;
    uint64_t last_id;
    uint64_t chance;
};

static void free_item(item *one) {
    if (one == NULL) return;
    if (one->fd >= 0) close(one->fd);
    if (one->path != NULL && one->shown.error.status != FPC_OK) unlink(one->path);
    free(one->url);
    free(one->path);
    free(one->body);
    free(one);
}

/* --- the set --- */

fpc_status fpc_downloads_new(const fpc_downloads_options *options, fpc_downloads **out, fpc_error *err) {
    if (options->parallel < 1 || options->parallel > 1000 || options->tries < 1 || options->stall_s < 1)
        return fpc_fail(err, FPC_INVALID, "downloads: a number is out of range");
    fpc_status status = fpc_http_prepare(err);
    if (status != FPC_OK) return status;
    fpc_downloads *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "downloads");
    self->options = *options;
    self->chance = (uint64_t)fpc_clock_ns() ^ (uint64_t)getpid();
    self->multi = curl_multi_init();
    if (options->ca_file != NULL) self->ca_file = strdup(options->ca_file);
    bool ok = self->multi != NULL && (options->ca_file == NULL || self->ca_file != NULL);
    for (const char *const *line = options->headers; ok && line != NULL && *line != NULL; line++) {
        struct curl_slist *longer = curl_slist_append(self->headers, *line);
        ok = longer != NULL;
        if (ok) self->headers = longer;
    }
    if (!ok) {
        fpc_downloads_delete(self);
        return fpc_fail(err, FPC_NOMEM, "downloads");
    }
    curl_multi_setopt(self->multi, CURLMOPT_MAXCONNECTS, (long)options->parallel);
    *out = self;
    return FPC_OK;
}

static void free_list(fpc_downloads *self, item *list) {
    while (list != NULL) {
        item *one = list;
        list = one->next;
        if (one->easy != NULL) {
            curl_multi_remove_handle(self->multi, one->easy);
            curl_easy_cleanup(one->easy);
        }
        one->shown.error.status = FPC_CLOSED; /* its file is not whole */
        free_item(one);
    }
}

void fpc_downloads_delete(fpc_downloads *self) {
    if (self == NULL) return;
    free_list(self, self->waiting);
    free_list(self, self->running);
    free_list(self, self->ended);
    free_item(self->handed_out);
    curl_multi_cleanup(self->multi);
    for (struct curl_slist *line = self->headers; line != NULL; line = line->next) {
        OPENSSL_cleanse(line->data, strlen(line->data)); /* it may be a token */
    }
    curl_slist_free_all(self->headers);
    free(self->ca_file);
    free(self);
}

static void append(item **list, item *one) {
    while (*list != NULL) list = &(*list)->next;
    one->next = NULL;
    *list = one;
}

fpc_status fpc_downloads_add(fpc_downloads *self, const char *url, const char *path, uint64_t *id,
                             fpc_error *err) {
    item *one = calloc(1, sizeof *one);
    if (one == NULL) return fpc_fail(err, FPC_NOMEM, "downloads");
    one->fd = -1;
    one->of = self;
    one->url = strdup(url);
    if (one->url != NULL && path != NULL) {
        one->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (one->fd < 0) {
            int error = errno;
            free_item(one);
            return fpc_fail(err, FPC_INVALID, "cannot write %s: %s", path, strerror(error));
        }
        one->path = strdup(path);
    }
    if (one->url == NULL || (path != NULL && one->path == NULL)) {
        if (path != NULL && one->fd >= 0) unlink(path);
        free_item(one);
        return fpc_fail(err, FPC_NOMEM, "downloads");
    }
    one->shown.id = *id = ++self->last_id;
    one->pause_s = self->options.first_pause_s;
    append(&self->waiting, one);
    self->left++;
    return FPC_OK;
}

size_t fpc_downloads_left(const fpc_downloads *self) {
    return self->left;
}

/* --- one try --- */

static bool grow(item *one, size_t wanted) {
    if (wanted <= one->capacity) return true;
    size_t capacity = one->capacity < 8192 ? 8192 : one->capacity;
    while (capacity < wanted) capacity *= 2;
    char *bytes = realloc(one->body, capacity);
    if (bytes == NULL) return false;
    one->body = bytes;
    one->capacity = capacity;
    return true;
}

static bool write_all(item *one, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t done = write(one->fd, bytes, len);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) {
            one->file_error = errno;
            return false;
        }
        bytes += done;
        len -= (size_t)done;
    }
    return true;
}

static size_t take_body(char *bytes, size_t size, size_t count, void *data) {
    item *one = data;
    size_t len = size * count, have = one->shown.length;
    one->too_large = len > one->of->options.max_bytes - have;
    if (one->too_large) return 0;
    if (one->fd >= 0) {
        if (!write_all(one, bytes, len)) return 0;
    } else {
        one->no_memory = !grow(one, have + len + 1);
        if (one->no_memory) return 0;
        memcpy(one->body + have, bytes, len);
    }
    one->shown.length = have + len;
    return len;
}

/* The value of a header line if it has this name. */
static void take_value(const char *line, size_t len, const char *name, char *to, size_t size) {
    size_t at = strlen(name);
    if (len < at || strncasecmp(line, name, at) != 0) return;
    while (at < len && (line[at] == ' ' || line[at] == '\t')) at++;
    while (len > at && strchr(" \t\r\n", line[len - 1]) != NULL) len--;
    snprintf(to, size, "%.*s", (int)(len - at), line + at);
}

static size_t take_header(char *bytes, size_t size, size_t count, void *data) {
    item *one = data;
    size_t len = size * count;
    if (len > 5 && memcmp(bytes, "HTTP/", 5) == 0) /* the last answer counts, after redirects */
        one->type[0] = one->etag[0] = one->modified[0] = '\0';
    take_value(bytes, len, "Content-Type:", one->type, sizeof one->type);
    take_value(bytes, len, "ETag:", one->etag, sizeof one->etag);
    take_value(bytes, len, "Last-Modified:", one->modified, sizeof one->modified);
    return len;
}

static void set_protocols(CURL *easy, const char *url) {
    bool secure = strncasecmp(url, "https://", 8) == 0;
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, secure ? "https" : "http,https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTPS | (secure ? 0 : CURLPROTO_HTTP)));
#endif
}

static void set_options(const fpc_downloads *self, item *one) {
    CURL *easy = one->easy;
    const fpc_downloads_options *options = &self->options;
    fpc_http_set_basics(easy, self->ca_file);
    set_protocols(easy, one->url);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, MAX_REDIRECTS);
    curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, ""); /* whatever libcurl can unpack */
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "fpcache/" FPC_VERSION);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(options->timeout_s * 1000));
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)options->stall_s);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, self->headers);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, one->words);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, one);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, one);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, one);
    curl_easy_setopt(easy, CURLOPT_URL, one->url);
}

static void move(item **from, item **to, item *one) {
    while (*from != one) from = &(*from)->next;
    *from = one->next;
    append(to, one);
}

static void end(fpc_downloads *self, item **list, item *one) {
    if (one->fd >= 0 && close(one->fd) != 0 && one->shown.error.status == FPC_OK)
        fpc_fail(&one->shown.error, FPC_INVALID, "cannot write %s: %s", one->path, strerror(errno));
    one->fd = -1;
    move(list, &self->ended, one);
}

/* Begins a try of one that waits. */
static void start(fpc_downloads *self, item *one) {
    one->shown.tries++;
    one->shown.http_status = 0;
    one->shown.length = 0;
    one->too_large = one->no_memory = false;
    one->words[0] = '\0';
    one->easy = curl_easy_init();
    bool is_empty = one->fd < 0 || (ftruncate(one->fd, 0) == 0 && lseek(one->fd, 0, SEEK_SET) == 0);
    if (one->easy != NULL) set_options(self, one);
    if (!is_empty || one->easy == NULL || curl_multi_add_handle(self->multi, one->easy) != CURLM_OK) {
        curl_easy_cleanup(one->easy);
        one->easy = NULL;
        fpc_fail(&one->shown.error, FPC_NOMEM, "downloads");
        end(self, &self->waiting, one);
        return;
    }
    move(&self->waiting, &self->running, one);
    self->running_count++;
}

/* --- its end --- */

static fpc_status judge_answer(item *one, const char *where, bool *permanent) {
    int status = one->shown.http_status;
    if (status >= 200 && status < 300) return FPC_OK;
    *permanent = !fpc_http_may_pass(status);
    fpc_status kind = status == 401   ? FPC_AUTH
                      : status == 403 ? FPC_DENIED
                      : *permanent    ? FPC_INVALID
                                      : FPC_SERVER;
    return fpc_fail(&one->shown.error, kind, "%s answered %d", where, status);
}

static fpc_status judge(const fpc_downloads *self, item *one, CURLcode code, bool *permanent) {
    char where[200];
    fpc_error *err = &one->shown.error;
    fpc_http_name_url(one->url, where, sizeof where);
    *permanent = true;
    if (one->too_large)
        return fpc_fail(err, FPC_INVALID, "%s has more than %zu bytes", where, self->options.max_bytes);
    if (one->file_error != 0)
        return fpc_fail(err, FPC_INVALID, "cannot write %s: %s", one->path, strerror(one->file_error));
    if (one->no_memory || code == CURLE_OUT_OF_MEMORY) return fpc_fail(err, FPC_NOMEM, "downloads");
    if (code == CURLE_TOO_MANY_REDIRECTS)
        return fpc_fail(err, FPC_INVALID, "%s is a chain of redirects", where);
    if (code == CURLE_OK) return judge_answer(one, where, permanent);
    fpc_status kind = fpc_http_network_status(code, permanent);
    char reason[CURL_ERROR_SIZE];
    snprintf(reason, sizeof reason, "%s", one->words[0] != '\0' ? one->words : curl_easy_strerror(code));
    fpc_secret_redact(reason);
    return fpc_fail(err, kind, "%s: %.250s", where, reason);
}

/* Half of the pause is fixed, half is chance, so that many clients do not come back at once. */
static double next_pause(fpc_downloads *self, item *one, double asked_for) {
    self->chance = self->chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    double pause = one->pause_s * (0.5 + 0.5 * (double)(self->chance >> 40) / (double)(1 << 24));
    one->pause_s = 2 * one->pause_s;
    if (one->pause_s > self->options.longest_pause_s) one->pause_s = self->options.longest_pause_s;
    return asked_for > pause ? asked_for : pause;
}

static void finish(fpc_downloads *self, item *one, CURLcode code) {
    long status = 0;
    curl_off_t asked_for = 0;
    curl_easy_getinfo(one->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(one->easy, CURLINFO_RETRY_AFTER, &asked_for);
    curl_multi_remove_handle(self->multi, one->easy);
    curl_easy_cleanup(one->easy);
    one->easy = NULL;
    self->running_count--;
    one->shown.http_status = (int)status;
    bool permanent = false;
    one->shown.error.status = judge(self, one, code, &permanent);
    bool again = one->shown.error.status != FPC_OK && !permanent && one->shown.tries < self->options.tries &&
                 (double)asked_for <= self->options.longest_pause_s;
    if (again) {
        one->due_ns = fpc_deadline_in(next_pause(self, one, (double)asked_for));
        move(&self->running, &self->waiting, one);
    } else {
        end(self, &self->running, one);
    }
}

/* --- work --- */

/* Begins what may begin; the moment at which the next one may. */
static fpc_deadline start_due(fpc_downloads *self) {
    fpc_deadline soonest = FPC_NEVER;
    item *next;
    for (item *one = self->waiting; one != NULL && self->running_count < self->options.parallel; one = next) {
        next = one->next;
        if (fpc_deadline_passed(one->due_ns))
            start(self, one);
        else if (one->due_ns < soonest)
            soonest = one->due_ns;
    }
    return soonest;
}

static void collect(fpc_downloads *self) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(self->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) continue;
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result; /* gone when the handle is removed */
        item *one = NULL;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&one);
        finish(self, one, code);
    }
}

static void hand_out(fpc_downloads *self, const fpc_download **out) {
    item *one = self->ended;
    self->ended = one->next;
    self->handed_out = one;
    self->left--;
    fpc_download *shown = &one->shown;
    bool has_body = shown->error.status == FPC_OK && one->path == NULL;
    if (has_body && !grow(one, shown->length + 1)) { /* an empty one */
        fpc_fail(&shown->error, FPC_NOMEM, "downloads");
        has_body = false;
    }
    if (has_body) one->body[shown->length] = '\0';
    shown->body = has_body ? one->body : NULL;
    shown->type = one->type;
    shown->tag = one->etag[0] != '\0' ? one->etag : one->modified;
    *out = shown;
}

fpc_status fpc_downloads_wait(fpc_downloads *self, fpc_deadline deadline, const fpc_download **out,
                              fpc_error *err) {
    free_item(self->handed_out);
    self->handed_out = NULL;
    *out = NULL;
    while (self->left > 0) {
        int running = 0;
        fpc_deadline soonest = start_due(self);
        CURLMcode bad = curl_multi_perform(self->multi, &running);
        if (bad == CURLM_OK) collect(self);
        if (self->ended != NULL) {
            hand_out(self, out);
            return FPC_OK;
        }
        if (fpc_interrupt_raised()) return fpc_fail(err, FPC_INTERRUPTED, "interrupted");
        if (fpc_deadline_passed(deadline))
            return fpc_fail(err, FPC_TIMEOUT, "the downloads are not done yet");
        int ms = fpc_deadline_poll_ms(soonest < deadline ? soonest : deadline);
        if (ms < 0 || ms > TICK_MS) ms = TICK_MS;
        if (bad == CURLM_OK) bad = curl_multi_poll(self->multi, NULL, 0, ms, NULL);
        if (bad != CURLM_OK) return fpc_fail(err, FPC_SERVER, "libcurl: %s", curl_multi_strerror(bad));
    }
    return FPC_OK;
}
