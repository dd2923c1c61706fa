/* jwt.c -- three parts with dots in between; the second is JSON in base64url. */
#include "token/jwt.h"

#include "secret.h"
#include "token/cloud.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PAYLOAD 65536

static int value_of(char c) {
    static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *at = c == '\0' ? NULL : strchr(ALPHABET, c);
    return at == NULL ? -1 : (int)(at - ALPHABET);
}

/* Without padding, as JWTs are; false for any byte that is not of the alphabet. */
static bool decode(const char *text, size_t len, fpc_secret_buffer *out) {
    unsigned bits = 0;
    int count = 0;
    for (size_t i = 0; i < len; i++) {
        int value = value_of(text[i]);
        if (value < 0) return false;
        bits = bits << 6 | (unsigned)value;
        count += 6;
        if (count < 8) continue;
        count -= 8;
        char byte = (char)(bits >> count);
        if (!fpc_secret_append(out, &byte, 1)) return false;
        bits &= (1U << count) - 1;
    }
    return out->length > 0;
}

bool fpc_jwt_expiry(const char *token, double *seconds) {
    const char *payload = strchr(token, '.');
    const char *end = payload == NULL ? NULL : strchr(payload + 1, '.');
    if (end == NULL || strchr(end + 1, '.') != NULL || end - payload > MAX_PAYLOAD) return false;
    fpc_secret_buffer text = {0};
    double expiry = NAN;
    if (decode(payload + 1, (size_t)(end - payload - 1), &text)) {
        json_t *root = json_loadb(text.bytes, text.length, 0, NULL);
        const json_t *exp = json_object_get(root, "exp");
        if (json_is_number(exp)) expiry = json_number_value(exp);
        fpc_cloud_json_delete(root);
    }
    fpc_secret_buffer_clear(&text);
    if (!(expiry > 0)) return false;
    *seconds = expiry;
    return true;
}
