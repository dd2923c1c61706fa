/* os.h -- small facts and acts of the operating system that Lua's library lacks.
 *
 * Paths are the caller's and not kept.  Modes are the low twelve bits (07777).
 * Errors: FPC_INVALID when the path, user or process is not there or is of the wrong kind or
 * already there, FPC_DENIED when the right is missing, FPC_NOMEM, else FPC_SERVER; the message
 * names the path and the system's reason.
 * Thread rule: any thread may call, except that setting the environment belongs to programs with
 * one thread. */
#ifndef FPCACHE_OS_H
#define FPCACHE_OS_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fpc_os_type {
    FPC_OS_FILE,
    FPC_OS_DIRECTORY,
    FPC_OS_LINK,
    FPC_OS_SOCKET,
    FPC_OS_OTHER
} fpc_os_type;

typedef struct fpc_os_stat {
    fpc_os_type type;
    unsigned mode;
    int64_t uid, gid;
    int64_t size;    /* bytes */
    double modified; /* seconds since 1970, with fraction */
} fpc_os_stat;

typedef struct fpc_os_user {
    int64_t uid, gid;
    char name[64];
    char home[1024];
} fpc_os_user;

/* Fills `err` from an errno and the words before the system's reason; returns its status. */
fpc_status fpc_os_fail(fpc_error *err, int why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- time --- */

double fpc_os_wall_clock(void); /* seconds since 1970, with fraction */

/* Sleeps that long; less when a signal arrives.  Negative and NaN do not sleep. */
void fpc_os_sleep(double seconds);

/* --- users and processes --- */

/* The user called `name`, or if that is NULL the one with number `uid`. */
fpc_status fpc_os_user_find(const char *name, int64_t uid, fpc_os_user *out, fpc_error *err);

/* Sends `signal` (0: only asks whether the process is there). */
fpc_status fpc_os_kill(int64_t pid, int signal, fpc_error *err);

/* Fills `out` with random bytes from the kernel. */
fpc_status fpc_os_random(void *out, size_t len, fpc_error *err);

/* Sets an environment variable; NULL removes it. */
fpc_status fpc_os_set_env(const char *name, const char *value, fpc_error *err);

fpc_status fpc_os_host_name(char *out, size_t size, fpc_error *err);

/* --- files --- */

/* What `path` is; `follow`: what a symbolic link points to instead of the link. */
fpc_status fpc_os_stat_path(const char *path, bool follow, fpc_os_stat *out, fpc_error *err);

/* The names in a directory without "." and "..", unordered, each ending with '\0', one after the
 * other in *names, which the caller frees with free(). */
fpc_status fpc_os_list(const char *path, char **names, size_t *count, fpc_error *err);

fpc_status fpc_os_mkdir(const char *path, unsigned mode, fpc_error *err); /* exactly this mode */
fpc_status fpc_os_chmod(const char *path, unsigned mode, fpc_error *err);
fpc_status fpc_os_chown(const char *path, int64_t uid, int64_t gid, fpc_error *err); /* the link itself */
fpc_status fpc_os_rename(const char *from, const char *to, fpc_error *err);
fpc_status fpc_os_unlink(const char *path, fpc_error *err); /* also an empty directory */

/* Makes a directory (mode 0700) that was not there before; `template` ends with XXXXXX, which is
 * replaced in place. */
fpc_status fpc_os_mkdtemp(char *template, fpc_error *err);

/* Removes `path` and all below it.  Never follows a symbolic link, even if others change the tree
 * meanwhile.  A path that is not there is no error. */
fpc_status fpc_os_remove_tree(const char *path, fpc_error *err);

/* Where a symbolic link points to (`real`: the whole path without any link).  The caller frees. */
fpc_status fpc_os_resolve(const char *path, bool real, char **out, fpc_error *err);

/* Whether somebody accepts connections on the unix socket `path`; never waits.  A full queue is a yes. */
bool fpc_os_socket_answers(const char *path);

#endif
