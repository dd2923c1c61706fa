/* http_curl.c -- the settings that no request may lack. */
#include "http_curl.h"

#include "secret.h"

#include <stdlib.h>
#include <string.h>

#define CONNECT_SECONDS 10.0

static const char *set_variable(const char *name) {
    const char *value = getenv(name);
    return value != NULL && *value != '\0' ? value : NULL;
}

static void set_roots(CURL *easy, const char *ca_file) {
    const char *file = ca_file;
    if (file == NULL) file = set_variable("CURL_CA_BUNDLE");
    if (file == NULL) file = set_variable("SSL_CERT_FILE");
    const char *dir = ca_file == NULL ? set_variable("SSL_CERT_DIR") : NULL;
    if (file != NULL) curl_easy_setopt(easy, CURLOPT_CAINFO, file);
    if (ca_file != NULL) curl_easy_setopt(easy, CURLOPT_CAPATH, NULL); /* this bundle alone */
    if (dir != NULL) curl_easy_setopt(easy, CURLOPT_CAPATH, dir);
}

void fpc_http_set_basics(CURL *easy, const char *ca_file) {
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(CONNECT_SECONDS * 1000));
#if LIBCURL_VERSION_NUM >= 0x075700
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a stop must not wait for a slow name server */
#endif
    set_roots(easy, ca_file);
}

fpc_status fpc_http_network_status(CURLcode code, bool *permanent) {
    *permanent = false;
    switch (code) {
    case CURLE_OUT_OF_MEMORY: return FPC_NOMEM;
    case CURLE_OPERATION_TIMEDOUT: return FPC_TIMEOUT;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_LOGIN_DENIED:
    case CURLE_SSL_CACERT_BADFILE: *permanent = true; return FPC_INVALID;
    case CURLE_PEER_FAILED_VERIFICATION: *permanent = true; return FPC_CONNECT;
    case CURLE_WEIRD_SERVER_REPLY: return FPC_SERVER;
    default: return FPC_CONNECT;
    }
}

bool fpc_http_may_pass(int status) {
    return status == 408 || status == 425 || status == 429 || status == 499 ||
           (status >= 500 && status != 501);
}

void fpc_http_name_url(const char *url, char *where, size_t size) {
    const char *host = strstr(url, "://");
    host = host == NULL ? url : host + 3;
    size_t len = strcspn(host, "?#");
    const char *at = memchr(host, '@', strcspn(host, "/?#"));
    if (at != NULL) {
        len -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    if (len >= size) len = size - 1;
    memcpy(where, host, len);
    where[len] = '\0';
    fpc_secret_redact(where);
}
