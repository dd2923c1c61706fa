/* wait.h -- waiting for a descriptor, with a deadline, and interrupting such waits.
 *
 * An interrupt is a process-wide request to stop what is being waited for, such as a Ctrl-C.
 * It stays raised until it is cleared, and every wait fails at once meanwhile.  Threads of the library's own
 * are ended by a descriptor of theirs instead.  A child of fork(2) inherits its state; from then on the two
 * raise and clear their own.
 * Thread rule: everything here may be called from any thread; fpc_interrupt_raise() also from
 * a signal handler. */
#ifndef FPCACHE_WAIT_H
#define FPCACHE_WAIT_H

#include "fpcache/clock.h"
#include "fpcache/error.h"

#include <stdbool.h>

/* Waits until `fd` has one of the poll(2) `events`, an error or a hang-up.
 * FPC_TIMEOUT past the deadline, unless it is ready at once; FPC_INTERRUPTED when an interrupt is raised. */
fpc_status fpc_wait_fd(int fd, short events, fpc_deadline deadline, fpc_error *err);

/* From now on this thread's waits end (FPC_INTERRUPTED) as soon as `fd` is readable, and not by the
 * interrupt. */
void fpc_wait_stop_by(int fd);

/* Whether a wait of this thread would end at once: its descriptor is readable, or an interrupt is raised. */
bool fpc_wait_stopped(void);

/* Prepares the interrupt; without it fpc_interrupt_raise() does nothing.  Repeatable.
 * FPC_NOMEM when there is no descriptor left. */
fpc_status fpc_interrupt_enable(fpc_error *err);
void fpc_interrupt_raise(void);
void fpc_interrupt_clear(void);
bool fpc_interrupt_raised(void);

#endif
