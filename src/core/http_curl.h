/* http_curl.h -- what all our uses of libcurl have in common.
 *
 * Thread rule: a handle belongs to one thread. */
#ifndef FPC_HTTP_CURL_H
#define FPC_HTTP_CURL_H

#include "fpcache/error.h"

#include <curl/curl.h>
#include <stdbool.h>

/* Settings of every request: no signals, no ~/.netrc, no login inside a URL, HTTP/1.1, TLS verified and at
 * least 1.2.  `ca_file` NULL: $CURL_CA_BUNDLE, $SSL_CERT_FILE and $SSL_CERT_DIR, or libcurl's own. */
void fpc_http_set_basics(CURL *easy, const char *ca_file);

/* What a failure of the network is to the caller, and whether trying again is in vain. */
fpc_status fpc_http_network_status(CURLcode code, bool *permanent);

/* Whether an answer with this status may be another one soon. */
bool fpc_http_may_pass(int status);

/* The URL without its scheme, login and query, for messages; at most `size` bytes with the '\0'. */
void fpc_http_name_url(const char *url, char *where, size_t size);

#endif
