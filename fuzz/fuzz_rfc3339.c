/* fuzz_rfc3339.c -- any text as a point in time: a finite number, or none. */
#include "rfc3339.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *text = malloc(size + 1); /* of exactly this size: reading on is seen */
    if (text == NULL) return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    double seconds = 0;
    if (fpc_rfc3339_parse(text, &seconds) && !isfinite(seconds)) abort();
    free(text);
    return 0;
}
