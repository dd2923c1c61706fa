/* secret.h -- memory for passwords and tokens: wiped before it is given back.
 *
 * Thread rule: one thread at a time for each text and buffer. */
#ifndef FPC_SECRET_H
#define FPC_SECRET_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>

/* A copy of `len` bytes, ended by '\0'; NULL when out of memory.  Give it back with fpc_secret_free(). */
char *fpc_secret_copy(const char *bytes, size_t len);
/* The same of a text; NULL gives NULL. */
char *fpc_secret_dup(const char *text);
/* Wipes a text up to its '\0', and frees it; NULL is allowed. */
void fpc_secret_free(char *text);
/* Frees the text and puts NULL in its place. */
void fpc_secret_clear(char **text);

/* Bytes that grow; always ended by '\0' once something was added.  Zeroed: empty. */
typedef struct fpc_secret_buffer {
    char *bytes;
    size_t length, capacity;
    bool failed; /* memory ran out: something is missing, and nothing more is added */
} fpc_secret_buffer;

/* false: out of memory, and nothing was added.  Who adds much asks `failed` once, at the end. */
bool fpc_secret_append(fpc_secret_buffer *buffer, const char *bytes, size_t len);
bool fpc_secret_append_text(fpc_secret_buffer *buffer, const char *text);
/* For short pieces: at most 255 bytes of what the format makes. */
bool fpc_secret_appendf(fpc_secret_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The text, now the caller's (fpc_secret_free()), and an empty buffer; NULL when memory ran out. */
char *fpc_secret_take(fpc_secret_buffer *buffer);
/* Wipes, frees and empties it. */
void fpc_secret_buffer_clear(fpc_secret_buffer *buffer);

/* Appends a file's bytes.  Fails when it cannot be read, is no ordinary file, is longer than `max` or holds a
 * NUL byte (statuses as in fpcache/os.h); the message names the path, never the content. */
fpc_status fpc_secret_read_file(fpc_secret_buffer *buffer, const char *path, size_t max, fpc_error *err);

/* Overwrites with "***" what looks like a token or its signature: texts of others are shown to people only
 * after this.  Works in place. */
void fpc_secret_redact(char *text);

#endif
