/* download.h -- many bodies by HTTP and HTTPS at once, each tried again while that may help.
 *
 * Words of this header:
 *   downloads   a set of GETs, some of them under way, the others waiting for their turn
 *   sink        where a body goes: memory, or a file of the caller's
 *   try         one request; a download ends after its last try
 *
 * Tried again: a lost connection, a timeout, a stall, a status of 408, 425, 429, 499 or 5xx (not 501), after
 * a pause that doubles (with some chance in it) and is at least what Retry-After asks for, if that is no
 * longer than the longest pause.  TLS is verified (at least 1.2); redirects are followed, five of them, never
 * from https to http; packed bodies are unpacked; ~/.netrc and logins inside URLs are not used; proxies as in
 * the environment.  The work is done inside fpc_downloads_wait(), there are no threads.
 * Owner: strings are copied.  What fpc_downloads_wait() hands out lives until the next call.
 * Errors of a download: FPC_CONNECT, FPC_TIMEOUT, FPC_INVALID (the URL cannot be used, a status of 4xx, a
 * body that is too large), FPC_AUTH (401), FPC_DENIED (403), FPC_SERVER (5xx), FPC_NOMEM.  Messages name host
 * and path, never the query.
 * Thread rule: one thread at a time.  fork(2): a child must not use the downloads of its parent. */
#ifndef FPCACHE_DOWNLOAD_H
#define FPCACHE_DOWNLOAD_H

#include "fpcache/clock.h"
#include "fpcache/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct fpc_downloads fpc_downloads;

typedef struct fpc_downloads_options {
    int parallel;               /* at once; 1 to 1000 */
    int tries;                  /* at least 1 */
    double timeout_s;           /* of one try, whole body included; 0: none */
    double stall_s;             /* without a byte, then the try has failed; at least 1 */
    double first_pause_s;       /* before the second try */
    double longest_pause_s;     /* between two tries */
    size_t max_bytes;           /* of one body, unpacked */
    const char *ca_file;        /* who vouches for servers; NULL: $CURL_CA_BUNDLE and so on, or the system */
    const char *const *headers; /* lines "Name: value", ends with NULL; NULL: none */
} fpc_downloads_options;

typedef struct fpc_download {
    uint64_t id;
    fpc_error error; /* status FPC_OK: the body is there */
    int http_status; /* of the last try; 0: no answer came */
    int tries;
    const char *body; /* of the sink memory, ends with '\0'; NULL for a file, and when it failed */
    size_t length;    /* of the body */
    const char *type; /* Content-Type, or "" */
    const char *tag;  /* ETag, else Last-Modified, else "": changes with the body */
} fpc_download;

/* FPC_INVALID when a number is out of range, FPC_SERVER when libcurl cannot be used, FPC_NOMEM. */
fpc_status fpc_downloads_new(const fpc_downloads_options *options, fpc_downloads **out, fpc_error *err);
/* Ends what is under way.  NULL is allowed. */
void fpc_downloads_delete(fpc_downloads *downloads);

/* Adds one.  `path` names a file that must not be there; it is made (mode 0600), and removed when the
 * download fails; NULL: memory.  FPC_INVALID when the file cannot be made. */
fpc_status fpc_downloads_add(fpc_downloads *downloads, const char *url, const char *path, uint64_t *id,
                             fpc_error *err);

/* Those that were added and not yet handed out. */
size_t fpc_downloads_left(const fpc_downloads *downloads);

/* Hands out one that has ended, or NULL when none is left.  FPC_TIMEOUT when none ended until the deadline,
 * FPC_INTERRUPTED within 0.1 s of an interrupt. */
fpc_status fpc_downloads_wait(fpc_downloads *downloads, fpc_deadline deadline, const fpc_download **out,
                              fpc_error *err);

#endif
