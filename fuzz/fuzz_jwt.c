/* fuzz_jwt.c -- any text as a JWT: an end after 1970, or none. */
#include "token/jwt.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *text = malloc(size + 1);
    if (text == NULL) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    double seconds = 0;
    if (fpc_jwt_expiry(text, &seconds) && !(seconds > 0)) abort();
    free(text);
    return 0;
}
