/* text.c -- a growing string that may hold secrets.
 *
 * It grows by copying, not by realloc(): that could leave the old bytes behind in freed memory. */
#include "text.h"

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

#define FIRST_CAPACITY 256

/* Room for `more` bytes and the '\0'. */
static bool reserve(fpc_text *text, size_t more) {
    if (text->failed) return false;
    if (more < text->capacity - text->length) return true;
    size_t capacity = text->capacity < FIRST_CAPACITY ? FIRST_CAPACITY : 2 * text->capacity;
    while (capacity - text->length <= more) capacity *= 2;
    char *bigger = malloc(capacity);
    if (bigger == NULL) {
        text->failed = true;
        return false;
    }
    if (text->length > 0) memcpy(bigger, text->bytes, text->length);
    if (text->bytes != NULL) OPENSSL_cleanse(text->bytes, text->capacity);
    free(text->bytes);
    text->bytes = bigger;
    text->capacity = capacity;
    return true;
}

void fpc_text_add(fpc_text *text, const char *bytes, size_t length) {
    if (!reserve(text, length)) return;
    if (length > 0) memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
}

void fpc_text_adds(fpc_text *text, const char *string) {
    fpc_text_add(text, string, strlen(string));
}

void fpc_text_addf(fpc_text *text, const char *format, ...) {
    char piece[256];
    va_list args;
    va_start(args, format);
    vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    fpc_text_adds(text, piece);
    OPENSSL_cleanse(piece, sizeof piece);
}

void fpc_text_add_escaped(fpc_text *text, const char *string) {
    static const char HEX[] = "0123456789ABCDEF";
    for (const unsigned char *at = (const unsigned char *)string; *at != '\0'; at++) {
        bool plain = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
                     strchr("-_.~", *at) != NULL;
        char code[3] = {'%', HEX[*at >> 4], HEX[*at & 15]};
        if (plain)
            fpc_text_add(text, (const char *)at, 1);
        else
            fpc_text_add(text, code, sizeof code);
    }
}

char *fpc_text_take(fpc_text *text) {
    fpc_text_adds(text, ""); /* also an empty text gives a string */
    char *taken = text->failed ? NULL : text->bytes;
    if (taken == NULL)
        fpc_text_clear(text);
    else
        *text = (fpc_text){0};
    return taken;
}

void fpc_text_clear(fpc_text *text) {
    if (text->bytes != NULL) OPENSSL_cleanse(text->bytes, text->capacity);
    free(text->bytes);
    *text = (fpc_text){0};
}

/* Reads to the end of the file; an errno, EFBIG when there is more than `max`. */
static int read_all(int fd, fpc_text *text, size_t max) {
    size_t start = text->length;
    for (;;) {
        size_t room = max + 1 - (text->length - start);
        if (room > 4096) room = 4096;
        if (!reserve(text, room)) return ENOMEM;
        ssize_t n = read(fd, text->bytes + text->length, room);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        text->length += (size_t)n;
        text->bytes[text->length] = '\0';
        if (text->length - start > max) return EFBIG;
        if (n == 0) return 0;
    }
}

fpc_status fpc_text_read_file(fpc_text *text, const char *path, size_t max, fpc_error *err) {
    size_t start = text->length;
    /* A pipe or a terminal could make the open or the read wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return fpc_os_fail(err, errno, "could not read %.200s", path);
    struct stat st;
    int why = 0;
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (regular) why = read_all(fd, text, max);
    close(fd);
    if (!regular) return fpc_fail(err, FPC_INVALID, "%.200s is no ordinary file", path);
    if (why == EFBIG)
        return fpc_fail(err, FPC_INVALID, "%.200s is longer than the %zu bytes allowed", path, max);
    if (why != 0) return fpc_os_fail(err, why, "could not read %.200s", path);
    if (memchr(text->bytes + start, '\0', text->length - start) != NULL)
        return fpc_fail(err, FPC_INVALID, "%.200s holds a NUL byte: it is no text", path);
    return FPC_OK;
}

void fpc_secret_free(char *string) {
    if (string == NULL) return;
    OPENSSL_cleanse(string, strlen(string));
    free(string);
}
