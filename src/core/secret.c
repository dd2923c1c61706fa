/* secret.c -- memory for passwords and tokens.
 *
 * A buffer never grows by realloc(3): that would leave the old bytes behind, unwiped. */
#include "secret.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

char *fpc_secret_copy(const char *bytes, size_t len) {
    char *copy = malloc(len + 1);
    if (copy == NULL) return NULL;
    if (len > 0) memcpy(copy, bytes, len);
    copy[len] = '\0';
    return copy;
}

char *fpc_secret_dup(const char *text) {
    return text == NULL ? NULL : fpc_secret_copy(text, strlen(text));
}

void fpc_secret_free(char *text) {
    if (text == NULL) return;
    OPENSSL_cleanse(text, strlen(text));
    free(text);
}

void fpc_secret_clear(char **text) {
    fpc_secret_free(*text);
    *text = NULL;
}

bool fpc_secret_append(fpc_secret_buffer *buffer, const char *bytes, size_t len) {
    size_t needed = buffer->length + len + 1;
    if (needed > buffer->capacity) {
        size_t capacity = needed < 512 ? 512 : 2 * needed;
        char *larger = malloc(capacity);
        if (larger == NULL) return false;
        if (buffer->bytes != NULL) {
            memcpy(larger, buffer->bytes, buffer->length);
            OPENSSL_cleanse(buffer->bytes, buffer->capacity);
            free(buffer->bytes);
        }
        buffer->bytes = larger;
        buffer->capacity = capacity;
    }
    if (len > 0) memcpy(buffer->bytes + buffer->length, bytes, len);
    buffer->length += len;
    buffer->bytes[buffer->length] = '\0';
    return true;
}

bool fpc_secret_append_text(fpc_secret_buffer *buffer, const char *text) {
    return fpc_secret_append(buffer, text, strlen(text));
}

void fpc_secret_buffer_clear(fpc_secret_buffer *buffer) {
    if (buffer->bytes != NULL) {
        OPENSSL_cleanse(buffer->bytes, buffer->capacity);
        free(buffer->bytes);
    }
    memset(buffer, 0, sizeof *buffer);
}

#define TOKEN_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~+/=%"

/* Starts of secrets; what follows is taken up to the first byte that no token has. */
static const char *const MARKS[] = {
    "eyJ",       "dapi",          "dose", "ya29.",          "Bearer ",           "Basic ",
    "X-Amz-",    "FwoG",          "IQoJ", "client_secret=", "client_assertion=", "subject_token=",
    "password=", "access_token=",
};
#define MARK_COUNT (sizeof MARKS / sizeof *MARKS)

/* No word, name or UUID is as long without a mark in between; random secrets are. */
#define LONGEST_WORD 40
#define WORD_BYTES   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+="

/* How many bytes of a secret begin at `text`; 0: none does. */
static size_t secret_at(const char *text) {
    for (size_t i = 0; i < MARK_COUNT; i++) {
        size_t mark = strlen(MARKS[i]);
        if (strncmp(text, MARKS[i], mark) != 0) continue;
        size_t rest = strspn(text + mark, TOKEN_BYTES);
        return mark + rest;
    }
    size_t word = strspn(text, WORD_BYTES);
    return word >= LONGEST_WORD ? strspn(text, TOKEN_BYTES) : 0;
}

void fpc_secret_redact(char *text) {
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        size_t secret = secret_at(from);
        if (secret < 4) { /* shorter than what stands for it */
            *to++ = *from++;
            continue;
        }
        memcpy(to, "***", 3);
        to += 3;
        from += secret;
    }
    *to = '\0';
}
