/* failure.c -- filling in why a fetch failed. */
#include "failure.h"

#include <stdarg.h>
#include <stdio.h>

fpc_status fpc_token_fail(fpc_token_failure *failure, bool permanent, fpc_status status, const char *format,
                          ...) {
    if (failure == NULL) return status;
    char words[sizeof failure->error.message];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    failure->permanent = permanent;
    failure->retry_after_s = 0;
    return fpc_fail(&failure->error, status, "%s", words);
}

fpc_status fpc_token_no_memory(fpc_token_failure *failure) {
    return fpc_token_fail(failure, false, FPC_NOMEM, "token");
}
