/* text.h -- a growing string that may hold secrets: whatever it leaves behind is wiped.
 *
 * Adding never fails by itself: when memory runs out the text is marked, and the end of the work asks once.
 * Owner: the caller; zeroed memory is an empty text.  Thread rule: one thread at a time. */
#ifndef FPC_TEXT_H
#define FPC_TEXT_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct fpc_text {
    char *bytes; /* ends with '\0' once something was added; NULL before */
    size_t length, capacity;
    bool failed; /* memory ran out: the content is not complete */
} fpc_text;

void fpc_text_add(fpc_text *text, const char *bytes, size_t length);
void fpc_text_adds(fpc_text *text, const char *string);
/* For short pieces: at most 255 bytes of what the format makes. */
void fpc_text_addf(fpc_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Percent-encoded as RFC 3986 says: all but letters, digits and -_.~ becomes %XX in capitals. */
void fpc_text_add_escaped(fpc_text *text, const char *string);

/* The string, now the caller's (free it with fpc_secret_free()), and an empty text; NULL when memory ran out.
 */
char *fpc_text_take(fpc_text *text);

/* Wipes and frees; the text is empty afterwards. */
void fpc_text_clear(fpc_text *text);

/* Appends a file's bytes.  FPC_INVALID when it cannot be read, is longer than `max` or holds a NUL byte; the
 * message names the path, never the content. */
fpc_status fpc_text_read_file(fpc_text *text, const char *path, size_t max, fpc_error *err);

/* Wipes a string and frees it; NULL is allowed. */
void fpc_secret_free(char *string);

#endif
