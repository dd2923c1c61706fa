/* secret.c -- memory for passwords and tokens.
 *
 * A buffer never grows by realloc(3): that would leave the old bytes behind, unwiped. */
#include "secret.h"

#include "fpcache/os.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 4096 /* of a file that is read */

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

/* Room for `len` bytes and the '\0'. */
static bool reserve(fpc_secret_buffer *buffer, size_t len) {
    if (buffer->failed) return false;
    size_t needed = buffer->length + len + 1;
    if (needed <= buffer->capacity) return true;
    size_t capacity = needed < 512 ? 512 : 2 * needed;
    char *larger = malloc(capacity);
    if (larger == NULL) {
        buffer->failed = true;
        return false;
    }
    if (buffer->bytes != NULL) {
        memcpy(larger, buffer->bytes, buffer->length);
        OPENSSL_cleanse(buffer->bytes, buffer->capacity);
        free(buffer->bytes);
    }
    buffer->bytes = larger;
    buffer->capacity = capacity;
    return true;
}

bool fpc_secret_append(fpc_secret_buffer *buffer, const char *bytes, size_t len) {
    if (!reserve(buffer, len)) return false;
    if (len > 0) memcpy(buffer->bytes + buffer->length, bytes, len);
    buffer->length += len;
    buffer->bytes[buffer->length] = '\0';
    return true;
}

bool fpc_secret_append_text(fpc_secret_buffer *buffer, const char *text) {
    return fpc_secret_append(buffer, text, strlen(text));
}

bool fpc_secret_appendf(fpc_secret_buffer *buffer, const char *format, ...) {
    char piece[256];
    va_list args;
    va_start(args, format);
    vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    bool done = fpc_secret_append_text(buffer, piece);
    OPENSSL_cleanse(piece, sizeof piece);
    return done;
}

char *fpc_secret_take(fpc_secret_buffer *buffer) {
    char *taken = fpc_secret_append(buffer, "", 0) ? buffer->bytes : NULL; /* an empty one gives "" */
    if (taken != NULL) *buffer = (fpc_secret_buffer){0};
    fpc_secret_buffer_clear(buffer);
    return taken;
}

/* Reads to the end of the file; an errno, EFBIG when there is more than `max`. */
static int read_all(int fd, fpc_secret_buffer *buffer, size_t max) {
    size_t start = buffer->length;
    for (;;) {
        size_t room = max + 1 - (buffer->length - start);
        if (room > PIECE) room = PIECE;
        if (!reserve(buffer, room)) return ENOMEM;
        ssize_t n = read(fd, buffer->bytes + buffer->length, room);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        buffer->length += (size_t)n;
        buffer->bytes[buffer->length] = '\0';
        if (buffer->length - start > max) return EFBIG;
        if (n == 0) return 0;
    }
}

fpc_status fpc_secret_read_file(fpc_secret_buffer *buffer, const char *path, size_t max, fpc_error *err) {
    size_t start = buffer->length;
    /* A pipe or a terminal could make the open or the read wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return fpc_os_fail(err, errno, "could not read %.200s", path);
    struct stat st;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    int why = regular ? read_all(fd, buffer, max) : 0;
    close(fd);
    if (!regular) return fpc_fail(err, FPC_INVALID, "%.200s is no ordinary file", path);
    if (why == EFBIG)
        return fpc_fail(err, FPC_INVALID, "%.200s is longer than the %zu bytes allowed", path, max);
    if (why != 0) return fpc_os_fail(err, why, "could not read %.200s", path);
    if (memchr(buffer->bytes + start, '\0', buffer->length - start) != NULL)
        return fpc_fail(err, FPC_INVALID, "%.200s holds a NUL byte: it is no text", path);
    return FPC_OK;
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
