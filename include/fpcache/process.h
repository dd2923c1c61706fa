/* process.h -- runs another program, without a shell in between.
 *
 * Words of this header:
 *   run      start a program, wait for its end, keep what it wrote
 *   spawn    start a program that goes on living after us: a daemon of its own session
 *
 * The program gets exactly three open files (stdin, stdout, stderr) and, if asked for, the one
 * of `keep_fd`: nothing else of this process leaks into it, even files that lack FD_CLOEXEC.
 * Its signals are all at their defaults and none is blocked.
 *
 * Errors: FPC_INVALID when the program or its directory is not there or cannot be executed,
 * FPC_DENIED when we may not become the user asked for, FPC_TIMEOUT when the deadline passed,
 * FPC_INTERRUPTED, FPC_NOMEM, else FPC_SERVER.  Messages name the program, never its arguments.
 * A program that ran and failed is no error here: look at the result.
 *
 * Thread rule: any thread may call; the caller's environment must not change meanwhile. */
#ifndef FPCACHE_PROCESS_H
#define FPCACHE_PROCESS_H

#include "fpcache/clock.h"
#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fpc_process_options {
    const char *const *argv; /* ends with NULL; argv[0] without a slash is looked for in PATH */
    const char *const *env;  /* "NAME=value" strings ending with NULL, added to ours; NULL: none */
    bool clear_env;          /* start from an empty environment instead of ours */
    const char *dir;         /* working directory; NULL: ours */
    int64_t uid, gid;        /* run as this user and group, with no other groups; -1: as we are */
    const char *input;       /* the program's stdin; NULL: /dev/null */
    size_t input_len;
    int keep_fd;       /* a file that stays open in the program under some number; -1: none */
    size_t max_errors; /* run: keep this much of stderr apart from the output; 0: it is part of it */
} fpc_process_options;

#define FPC_PROCESS_OPTIONS_INIT                                                                             \
    { .uid = -1, .gid = -1, .keep_fd = -1 }

typedef struct fpc_process_result {
    int exit_status; /* 0 to 255; -1 when a signal ended it */
    int signal;      /* 0 when it ended by itself */
    char *output;    /* stdout and stderr as they came; ends with '\0'; never NULL after a run */
    size_t output_len;
    char *errors; /* stderr, when it was to be kept apart; ends with '\0'; else NULL */
    size_t errors_len;
    bool truncated; /* it wrote more than was asked for; the rest was read and dropped */
} fpc_process_result;

/* Runs a program in a process group of its own and waits for its end.  When `deadline` passes, an interrupt
 * is raised or the thread is to stop (wait.h), the whole group is killed.  Keeps the first `max_output` bytes
 * it wrote.  What the program leaves running in the background is not waited for.  Give `result` back with
 * fpc_process_result_clear(), also after a failure (after FPC_TIMEOUT it holds the output so far). */
fpc_status fpc_process_run(const fpc_process_options *options, size_t max_output, fpc_deadline deadline,
                           fpc_process_result *result, fpc_error *err);

/* Wipes and frees what a result holds and empties it; harmless on an empty (zeroed) one. */
void fpc_process_result_clear(fpc_process_result *result);

/* Starts a daemon and returns once it is executing.  It is no child of ours: nobody has to wait
 * for it.  stdin is /dev/null unless `input` is set; stdout and stderr go to the file `log_path`,
 * which is emptied first and opened as the user asked for (never through a symbolic link).
 * Waits for the start no longer than `deadline`. */
fpc_status fpc_process_spawn(const fpc_process_options *options, const char *log_path, fpc_deadline deadline,
                             int64_t *pid, fpc_error *err);

#endif
