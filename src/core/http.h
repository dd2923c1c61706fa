/* http.h -- requests to the servers that give out tokens.
 *
 * Words of this header:
 *   http      the connections kept between the requests of one fetch; open it, ask, close it
 *   local     an address of this machine or of its metadata service (169.254.0.0/16, fe80::/10,
 *             fd00:ec2::/32, metadata.google.internal)
 *
 * Always: TLS is verified (at least 1.2, public roots or the bundle that was named), no redirect is followed,
 * ~/.netrc is not read, only https is spoken.  Proxies as in the environment (https_proxy, no_proxy).
 * Owner: the caller's strings are used during a call and not kept; a response's memory is wiped when it is
 * cleared.
 * Errors: FPC_CONNECT (no server, broken TLS), FPC_TIMEOUT, FPC_INTERRUPTED, FPC_INVALID (the URL or the CA
 * bundle cannot be used), FPC_SERVER (an answer that is no HTTP or too large), FPC_NOMEM.  An answer with any
 * status is no error: see http_error.h.
 * Thread rule: one thread at a time for each http; fpc_http_prepare() before other threads exist. */
#ifndef FPC_HTTP_H
#define FPC_HTTP_H

#include "fpcache/token_source.h"
#include "secret.h"

typedef struct fpc_http fpc_http;

typedef struct fpc_http_options {
    fpc_deadline deadline; /* of all requests together */
    int stop_fd;           /* readable: give up; -1: none, but the process-wide interrupt counts */
    const char *ca_file;   /* NULL: $CURL_CA_BUNDLE, $SSL_CERT_FILE and $SSL_CERT_DIR, or libcurl's own */
    const char *auth;      /* a word for the User-Agent: how we log in, such as "oauth-m2m"; NULL: none */
} fpc_http_options;

typedef struct fpc_http_header {
    const char *name, *value;
} fpc_http_header;

#define FPC_HTTP_HEADERS 8 /* of one request */

typedef struct fpc_http_request {
    const char *method; /* "GET", "POST" or "PUT" */
    const char *url;
    fpc_http_header headers[FPC_HTTP_HEADERS]; /* ends at the first without a value */
    const char *user, *password;               /* HTTP Basic; NULL: none */
    const char *body;                          /* NULL: none */
    size_t body_len;
    const char *body_type; /* Content-Type; NULL: application/x-www-form-urlencoded */
    bool local;            /* a local address: http is allowed, and no proxy is used */
    double timeout_s;      /* of this request; 0: 30 s */
    size_t max_body;       /* bytes of the answer; 0: 1 MiB */
} fpc_http_request;

typedef struct fpc_http_response {
    int status;
    fpc_secret_buffer body;    /* ends with '\0' */
    fpc_secret_buffer headers; /* for fpc_http_response_header() */
    double retry_after_s;      /* as asked for in seconds or as a date; 0: not */
    double date;        /* the server's clock when it answered, seconds since 1970; 0: it did not say */
    double started;     /* our clock when we asked, seconds since 1970 */
    int64_t started_ns; /* the same on the monotonic clock */
} fpc_http_response;

/* Initialises libcurl, once for a process. */
fpc_status fpc_http_prepare(fpc_error *err);

fpc_status fpc_http_open(const fpc_http_options *options, fpc_http **out, fpc_token_failure *failure);
void fpc_http_close(fpc_http *http);                       /* NULL is allowed */
void fpc_http_name_auth(fpc_http *http, const char *auth); /* another word for the User-Agent */

/* Asks and waits for the whole answer.  The response must be zeroed before; clear it in any case. */
fpc_status fpc_http_send(fpc_http *http, const fpc_http_request *request, fpc_http_response *response,
                         fpc_token_failure *failure);
void fpc_http_response_clear(fpc_http_response *response);

/* The last value of a header, without surrounding blanks, copied; NULL when it is absent or memory is short.
 * The caller frees it with fpc_secret_free(). */
char *fpc_http_response_header(const fpc_http_response *response, const char *name);

/* Adds name=value to a form or a query, percent-encoded, after a "&" unless it is the first. */
bool fpc_http_form_add(fpc_secret_buffer *form, const char *name, const char *value);
/* Adds the text percent-encoded: all but A-Z a-z 0-9 - _ . ~ */
bool fpc_http_encode(fpc_secret_buffer *to, const char *text);

/* Whether the URL's host is local; `loopback_only`: is it this machine's own? */
bool fpc_http_is_local(const char *url, bool loopback_only);

/* When a token ends whose end `expiry` (seconds since 1970) this answer gave: seconds from `start_ns` on the
 * monotonic clock.  Trusts neither clock: takes the shorter of what ours and the server's say, but not one
 * by which the new token would be dead already.  Below 0: cannot be told. */
double fpc_http_valid_until(const fpc_http_response *response, double expiry, int64_t start_ns);
/* The same for a token that lives `seconds` from the answer on. */
double fpc_http_valid_for(const fpc_http_response *response, double seconds, int64_t start_ns);

#endif
