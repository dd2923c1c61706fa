/* file_lock.h -- one holder at a time, among processes of one machine.
 *
 * A lock is a file; it is held as long as any process has this opening of the file open.  So a
 * lock that a program inherits (fpc_process_options.keep_fd) is held until that program and all
 * it started are gone, and the kernel lets go of it however they end.
 *
 * Errors: FPC_BUSY when the deadline passed, FPC_INTERRUPTED, else those of fpc_os_*().
 * Thread rule: a lock belongs to one thread at a time; two openings exclude each other even
 * inside one process. */
#ifndef FPCACHE_FILE_LOCK_H
#define FPCACHE_FILE_LOCK_H

#include "fpcache/clock.h"
#include "fpcache/error.h"

#include <stdbool.h>

typedef struct fpc_file_lock fpc_file_lock;

/* Locks the file `path`, made (mode 0600) if it is not there, waiting until `deadline`.  A shared
 * lock excludes only exclusive ones.  When the file was replaced or removed while we waited, the new one is
 * locked.  Free it with fpc_file_lock_delete(). */
fpc_status fpc_file_lock_new(const char *path, bool shared, fpc_deadline deadline, fpc_file_lock **out,
                             fpc_error *err);

/* The open file, for fpc_process_options.keep_fd; it stays the lock's. */
int fpc_file_lock_fd(const fpc_file_lock *lock);

/* Closes the file; NULL is allowed.  The lock ends unless another process inherited it. */
void fpc_file_lock_delete(fpc_file_lock *lock);

#endif
