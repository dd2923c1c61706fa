/* error.h -- why a call failed: a stable code for programs, words for people.
 *
 * Words of this header:
 *   status   what a function returns; FPC_OK (0) or the kind of failure
 *   error    a status with its message, in memory of the caller
 *
 * Every function that can fail takes an `fpc_error *` (NULL is allowed) and fills it only
 * when it fails.  Messages never hold a password, a token or a value of the cache.
 * Thread rule: an fpc_error belongs to one thread; the functions share nothing. */
#ifndef FPCACHE_ERROR_H
#define FPCACHE_ERROR_H

typedef enum fpc_status {
    FPC_OK = 0,
    FPC_CONNECT,     /* no server, or the connection was lost; a read may be repeated */
    FPC_AUTH,        /* the server refused this user or password */
    FPC_TIMEOUT,     /* the deadline passed; a write may still have happened */
    FPC_BUSY,        /* every connection of the pool stayed in use until the deadline */
    FPC_SCHEMA,      /* fpcache's tables are missing, too old or too new */
    FPC_DENIED,      /* the role lacks a right */
    FPC_INVALID,     /* the caller's key, value or option cannot be used */
    FPC_CLOSED,      /* the object was closed */
    FPC_CONFLICT,    /* deadlock or serialization failure: the transaction may be repeated */
    FPC_UNKNOWN,     /* the connection was lost after a write was sent: it may have happened */
    FPC_SERVER,      /* any other error of the server */
    FPC_NOMEM,       /* out of memory */
    FPC_INTERRUPTED, /* fpc_interrupt_raise() was called */
    FPC_FULL,        /* a filter has no room; it is unchanged */
    FPC_STATUS_COUNT
} fpc_status;

typedef struct fpc_error {
    fpc_status status;
    char sqlstate[6];  /* the server's five-letter code, or "" when the server said nothing */
    char message[512]; /* one line, without the code */
} fpc_error;

/* The stable name of a status, such as "timeout"; never NULL. */
const char *fpc_status_name(fpc_status status);

/* Fills `err` (NULL is allowed) from a printf format and returns `status`, so that a caller
 * can write `return fpc_fail(err, FPC_NOMEM, "filter");`.  Clears the SQLSTATE. */
fpc_status fpc_fail(fpc_error *err, fpc_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "could not X: " style words before the message of `err`. */
void fpc_error_prefix(fpc_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
