/* sigv4.c -- AWS's signature version 4.
 *
 * 1. canonical request: the parts of the request that count, one a line, in one way of writing them
 * 2. string to sign: what is signed for whom and when, and the hash of 1
 * 3. key: the secret, bound to the day, the region and the service by a chain of HMACs
 * 4. signature: the HMAC of 2 under 3
 * The names are those of AWS's description of the process. */
#include "token/sigv4.h"

#include "http.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ALGORITHM "AWS4-HMAC-SHA256"
#define HASH      32
#define EMPTY_HASH                                                                                           \
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" /* SHA-256 of nothing                 \
                                                                        */
#define DAY_LENGTH 8

static void write_date(int64_t now, char date[FPC_SIGV4_DATE_SIZE]) {
    time_t seconds = (time_t)now;
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(date, FPC_SIGV4_DATE_SIZE, "%Y%m%dT%H%M%SZ", &utc);
}

static void to_hex(const unsigned char hash[HASH], char hex[2 * HASH + 1]) {
    for (size_t i = 0; i < HASH; i++) snprintf(hex + 2 * i, 3, "%02x", hash[i]);
}

static bool sha256_hex(const char *bytes, size_t length, char hex[2 * HASH + 1]) {
    unsigned char hash[HASH];
    if (EVP_Digest(bytes, length, hash, NULL, EVP_sha256(), NULL) != 1) return false;
    to_hex(hash, hex);
    return true;
}

static bool hmac(const unsigned char *key, size_t key_length, const char *bytes, size_t length,
                 unsigned char out[HASH]) {
    unsigned size = HASH;
    return HMAC(EVP_sha256(), key, (int)key_length, (const unsigned char *)bytes, length, out, &size) != NULL;
}

bool fpc_sigv4_key(const fpc_sigv4 *with, const char *day, unsigned char key[HASH]) {
    fpc_secret_buffer first = {0};
    fpc_secret_append_text(&first, "AWS4");
    fpc_secret_append_text(&first, with->secret);
    unsigned char a[HASH], b[HASH];
    bool done = !first.failed && hmac((unsigned char *)first.bytes, first.length, day, strlen(day), a) &&
                hmac(a, HASH, with->region, strlen(with->region), b) &&
                hmac(b, HASH, with->service, strlen(with->service), a) &&
                hmac(a, HASH, "aws4_request", strlen("aws4_request"), key);
    OPENSSL_cleanse(a, sizeof a);
    OPENSSL_cleanse(b, sizeof b);
    fpc_secret_buffer_clear(&first);
    return done;
}

static void add_scope(const fpc_sigv4 *with, const char *date, fpc_secret_buffer *out) {
    fpc_secret_append(out, date, DAY_LENGTH);
    fpc_secret_append_text(out, "/");
    fpc_secret_append_text(out, with->region);
    fpc_secret_append_text(out, "/");
    fpc_secret_append_text(out, with->service);
    fpc_secret_append_text(out, "/aws4_request");
}

/* Steps 2 to 4; `signature` in hex. */
static fpc_status sign(const fpc_sigv4 *with, const char *date, fpc_secret_buffer *canonical,
                       char signature[2 * HASH + 1], fpc_error *err) {
    char request_hash[2 * HASH + 1], day[DAY_LENGTH + 1];
    unsigned char key[HASH], mac[HASH];
    fpc_secret_buffer to_sign = {0};
    snprintf(day, sizeof day, "%.8s", date);
    bool done = !canonical->failed && sha256_hex(canonical->bytes, canonical->length, request_hash);
    if (done) {
        fpc_secret_appendf(&to_sign, ALGORITHM "\n%s\n", date);
        add_scope(with, date, &to_sign);
        fpc_secret_appendf(&to_sign, "\n%s", request_hash);
        done = !to_sign.failed && fpc_sigv4_key(with, day, key) &&
               hmac(key, HASH, to_sign.bytes, to_sign.length, mac);
    }
    bool failed = canonical->failed || to_sign.failed;
    if (done) to_hex(mac, signature);
    OPENSSL_cleanse(key, sizeof key);
    fpc_secret_buffer_clear(&to_sign);
    if (done) return FPC_OK;
    return failed ? fpc_fail(err, FPC_NOMEM, "signature")
                  : fpc_fail(err, FPC_SERVER, "OpenSSL could not compute an AWS signature (SHA-256)");
}

static void add_parameter(fpc_secret_buffer *query, const char *name, const char *value) {
    if (query->length > 0) fpc_secret_append_text(query, "&");
    fpc_http_encode(query, name);
    fpc_secret_append_text(query, "=");
    fpc_http_encode(query, value);
}

static void add_query(const fpc_sigv4 *with, const char *date, const fpc_sigv4_field *fields, size_t count,
                      int seconds, fpc_secret_buffer *query) {
    fpc_secret_buffer credential = {0};
    fpc_secret_append_text(&credential, with->key_id);
    fpc_secret_append_text(&credential, "/");
    add_scope(with, date, &credential);
    for (size_t i = 0; i < count; i++) add_parameter(query, fields[i].name, fields[i].value);
    add_parameter(query, "X-Amz-Algorithm", ALGORITHM);
    add_parameter(query, "X-Amz-Credential", credential.failed ? "" : credential.bytes);
    add_parameter(query, "X-Amz-Date", date);
    char number[16];
    snprintf(number, sizeof number, "%d", seconds);
    add_parameter(query, "X-Amz-Expires", number);
    if (with->session != NULL) add_parameter(query, "X-Amz-Security-Token", with->session);
    add_parameter(query, "X-Amz-SignedHeaders", "host");
    query->failed |= credential.failed;
    fpc_secret_buffer_clear(&credential);
}

fpc_status fpc_sigv4_presign(const fpc_sigv4 *with, const char *host, const fpc_sigv4_field *fields,
                             size_t count, int seconds, fpc_secret_buffer *out, fpc_error *err) {
    char date[FPC_SIGV4_DATE_SIZE], signature[2 * HASH + 1];
    fpc_secret_buffer query = {0}, canonical = {0};
    write_date(with->now, date);
    add_query(with, date, fields, count, seconds, &query);
    if (!query.failed) {
        fpc_secret_append_text(&canonical, "GET\n/\n");
        fpc_secret_append(&canonical, query.bytes, query.length);
        fpc_secret_append_text(&canonical, "\nhost:");
        fpc_secret_append_text(&canonical, host);
        fpc_secret_append_text(&canonical, "\n\nhost\n" EMPTY_HASH);
    }
    canonical.failed |= query.failed;
    fpc_status status = sign(with, date, &canonical, signature, err);
    if (status == FPC_OK) {
        fpc_secret_append_text(out, host);
        fpc_secret_append_text(out, "/?");
        fpc_secret_append(out, query.bytes, query.length);
        fpc_secret_appendf(out, "&X-Amz-Signature=%s", signature);
        if (out->failed) status = fpc_fail(err, FPC_NOMEM, "signature");
    }
    OPENSSL_cleanse(signature, sizeof signature);
    fpc_secret_buffer_clear(&query);
    fpc_secret_buffer_clear(&canonical);
    return status;
}

fpc_status fpc_sigv4_authorize(const fpc_sigv4 *with, const char *host, const char *body, size_t length,
                               char date[FPC_SIGV4_DATE_SIZE], fpc_secret_buffer *out, fpc_error *err) {
    char body_hash[2 * HASH + 1], signature[2 * HASH + 1];
    const char *names = with->session != NULL ? "content-type;host;x-amz-date;x-amz-security-token"
                                              : "content-type;host;x-amz-date";
    fpc_secret_buffer canonical = {0};
    write_date(with->now, date);
    if (!sha256_hex(body, length, body_hash)) return fpc_fail(err, FPC_SERVER, "OpenSSL has no SHA-256");
    fpc_secret_append_text(&canonical, "POST\n/\n\ncontent-type:" FPC_SIGV4_FORM "\nhost:");
    fpc_secret_append_text(&canonical, host);
    fpc_secret_appendf(&canonical, "\nx-amz-date:%s\n", date);
    if (with->session != NULL) {
        fpc_secret_append_text(&canonical, "x-amz-security-token:");
        fpc_secret_append_text(&canonical, with->session);
        fpc_secret_append_text(&canonical, "\n");
    }
    fpc_secret_appendf(&canonical, "\n%s\n%s", names, body_hash);
    fpc_status status = sign(with, date, &canonical, signature, err);
    if (status == FPC_OK) {
        fpc_secret_append_text(out, ALGORITHM " Credential=");
        fpc_secret_append_text(out, with->key_id);
        fpc_secret_append_text(out, "/");
        add_scope(with, date, out);
        fpc_secret_appendf(out, ", SignedHeaders=%s, Signature=%s", names, signature);
        if (out->failed) status = fpc_fail(err, FPC_NOMEM, "signature");
    }
    OPENSSL_cleanse(signature, sizeof signature);
    fpc_secret_buffer_clear(&canonical);
    return status;
}
