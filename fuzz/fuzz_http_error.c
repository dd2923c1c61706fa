/* fuzz_http_error.c -- any bytes as the body of a refusal: the words stay in their bounds, on one line. */
#include "http_error.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *bytes = malloc(size == 0 ? 1 : size); /* of exactly this size: reading on is seen */
    if (bytes == NULL) return 0;
    memcpy(bytes, data, size);
    fpc_http_problem problem;
    fpc_http_problem_read(bytes, size, &problem);
    if (strlen(problem.code) >= sizeof problem.code || strpbrk(problem.message, "\r\n") != NULL) abort();
    if (strstr(problem.message, "eyJx") != NULL || strstr(problem.message, "dapi0") != NULL) abort();
    free(bytes);
    return 0;
}
