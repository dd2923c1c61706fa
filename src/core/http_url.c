/* http_url.c -- forms, and which hosts are local. */
#include "http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <string.h>
#include <strings.h>

bool fpc_http_encode(fpc_secret_buffer *to, const char *text) {
    static const char HEX[] = "0123456789ABCDEF", PLAIN[] = "abcdefghijklmnopqrstuvwxyz"
                                                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";
    while (*text != '\0') {
        size_t plain = strspn(text, PLAIN);
        if (!fpc_secret_append(to, text, plain)) return false;
        text += plain;
        if (*text == '\0') break;
        unsigned char byte = (unsigned char)*text++;
        char escape[3] = {'%', HEX[byte >> 4], HEX[byte & 15]};
        if (!fpc_secret_append(to, escape, sizeof escape)) return false;
    }
    return fpc_secret_append(to, "", 0);
}

bool fpc_http_form_add(fpc_secret_buffer *form, const char *name, const char *value) {
    return (form->length == 0 || fpc_secret_append(form, "&", 1)) && fpc_http_encode(form, name) &&
           fpc_secret_append(form, "=", 1) && fpc_http_encode(form, value);
}

static bool is_local_address(const char *host, bool loopback_only) {
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        unsigned first = ntohl(v4.s_addr) >> 24, two = ntohl(v4.s_addr) >> 16;
        return first == 127 || (!loopback_only && two == 0xA9FE);
    }
    if (inet_pton(AF_INET6, host, &v6) != 1) return false;
    if (IN6_IS_ADDR_LOOPBACK(&v6)) return true;
    static const unsigned char AWS[4] = {0xFD, 0x00, 0x0E, 0xC2};
    return !loopback_only && (IN6_IS_ADDR_LINKLOCAL(&v6) || memcmp(v6.s6_addr, AWS, sizeof AWS) == 0);
}

bool fpc_http_is_local(const char *url, bool loopback_only) {
    bool local = false;
    char *text = NULL;
    CURLU *parts = curl_url();
    if (parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &text, 0) == CURLUE_OK) {
        char host[128] = "";
        size_t len = strlen(text);
        bool bracketed = len > 2 && text[0] == '[' && text[len - 1] == ']';
        if (len < sizeof host) {
            memcpy(host, text + bracketed, len - 2 * (size_t)bracketed);
            host[len - 2 * (size_t)bracketed] = '\0';
        }
        local = strcasecmp(host, "localhost") == 0 || is_local_address(host, loopback_only) ||
                (!loopback_only && strcasecmp(host, "metadata.google.internal") == 0);
    }
    curl_free(text);
    curl_url_cleanup(parts);
    return local;
}
