/* file_lock.c -- one holder at a time, among processes of one machine.
 *
 * flock() and not fcntl(): it belongs to the opening of the file, so it can be inherited and is
 * not lost when some other code closes another opening of the same file.  flock() has no
 * deadline, so we try, and look again after a short pause. */
#include "fpcache/file_lock.h"

#include "fpcache/os.h"
#include "fpcache/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAUSE_S 0.01

struct fpc_file_lock {
    int fd;
};

/* Whether `path` still names the file that `fd` has open. */
static bool still_there(int fd, const char *path) {
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

fpc_status fpc_file_lock_new(const char *path, bool shared, fpc_deadline deadline, fpc_file_lock **out,
                             fpc_error *err) {
    fpc_file_lock *lock = malloc(sizeof *lock);
    if (lock == NULL) return fpc_fail(err, FPC_NOMEM, "file lock");
    for (;;) {
        lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (lock->fd < 0) {
            fpc_status status = fpc_os_fail(err, errno, "could not open the lock file %s", path);
            free(lock);
            return status;
        }
        int failed = flock(lock->fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB);
        if (failed == 0 && still_there(lock->fd, path)) {
            *out = lock;
            return FPC_OK;
        }
        int why = failed == 0 ? EWOULDBLOCK : errno;
        close(lock->fd);
        if (why != EWOULDBLOCK && why != EINTR) {
            free(lock);
            return fpc_os_fail(err, why, "could not lock %s", path);
        }
        if (failed != 0 && fpc_deadline_passed(deadline)) {
            free(lock);
            return fpc_fail(err, FPC_BUSY, "%s is locked by another process", path);
        }
        if (failed != 0 && fpc_interrupt_raised()) {
            free(lock);
            return fpc_fail(err, FPC_INTERRUPTED, "interrupted while waiting for %s", path);
        }
        if (failed != 0) fpc_os_sleep(PAUSE_S);
    }
}

int fpc_file_lock_fd(const fpc_file_lock *lock) {
    return lock->fd;
}

void fpc_file_lock_delete(fpc_file_lock *lock) {
    if (lock == NULL) return;
    close(lock->fd); /* never LOCK_UN: that would end it for whoever inherited it, too */
    free(lock);
}
