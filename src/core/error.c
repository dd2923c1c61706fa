/* error.c -- statuses and their messages. */
#include "fpcache/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const STATUS_NAMES[FPC_STATUS_COUNT] = {
    [FPC_OK] = "ok",           [FPC_CONNECT] = "connect",
    [FPC_AUTH] = "auth",       [FPC_TIMEOUT] = "timeout",
    [FPC_BUSY] = "busy",       [FPC_SCHEMA] = "schema",
    [FPC_DENIED] = "denied",   [FPC_INVALID] = "invalid",
    [FPC_CLOSED] = "closed",   [FPC_CONFLICT] = "conflict",
    [FPC_UNKNOWN] = "unknown", [FPC_SERVER] = "server",
    [FPC_NOMEM] = "memory",    [FPC_INTERRUPTED] = "interrupted",
    [FPC_FULL] = "full",
};

const char *fpc_status_name(fpc_status status) {
    if ((int)status < 0 || status >= FPC_STATUS_COUNT) return "unknown";
    return STATUS_NAMES[status];
}

fpc_status fpc_fail(fpc_error *err, fpc_status status, const char *format, ...) {
    if (err == NULL) return status;
    err->status = status;
    err->sqlstate[0] = '\0';
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return status;
}

void fpc_error_prefix(fpc_error *err, const char *format, ...) {
    if (err == NULL) return;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof err->message) return;
    snprintf(err->message + n, sizeof err->message - (size_t)n, "%s", old);
}
