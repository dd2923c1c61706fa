/* wait.c -- waits end by readiness, deadline or interrupt, whichever is first.
 *
 * The interrupt is an eventfd that is polled beside the descriptor: a flag alone could be
 * raised between its test and the poll(2), which would then sleep on. */
#include "fpcache/wait.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int interrupt_fd = -1;
static atomic_bool interrupt_flag;

fpc_status fpc_interrupt_enable(fpc_error *err) {
    if (atomic_load(&interrupt_fd) >= 0) return FPC_OK;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return fpc_fail(err, FPC_NOMEM, "could not make an eventfd: %s", strerror(errno));
    int none = -1;
    if (!atomic_compare_exchange_strong(&interrupt_fd, &none, fd)) close(fd); /* somebody was faster */
    return FPC_OK;
}

void fpc_interrupt_raise(void) {
    int saved_errno = errno;
    int fd = atomic_load(&interrupt_fd);
    if (fd >= 0) {
        atomic_store(&interrupt_flag, true);
        uint64_t one = 1;
        if (write(fd, &one, sizeof one) < 0) { /* full: it is raised already */
        }
    }
    errno = saved_errno;
}

void fpc_interrupt_clear(void) {
    atomic_store(&interrupt_flag, false);
    int fd = atomic_load(&interrupt_fd);
    uint64_t count;
    if (fd >= 0 && read(fd, &count, sizeof count) < 0) { /* empty: nothing was raised */
    }
}

bool fpc_interrupt_raised(void) {
    return atomic_load(&interrupt_flag);
}

static _Thread_local int stop_fd = -1; /* of a thread of ours: takes the place of the interrupt */

void fpc_wait_stop_by(int fd) {
    stop_fd = fd;
}

fpc_status fpc_wait_fd(int fd, short events, fpc_deadline deadline, fpc_error *err) {
    bool has_stop = stop_fd >= 0;
    struct pollfd fds[2] = {{.fd = fd, .events = events},
                            {.fd = has_stop ? stop_fd : atomic_load(&interrupt_fd), .events = POLLIN}};
    for (;;) {
        if (!has_stop && fpc_interrupt_raised()) return fpc_fail(err, FPC_INTERRUPTED, "interrupted");
        int ready = poll(fds, 2, fpc_deadline_poll_ms(deadline)); /* poll skips a negative fd */
        if (ready > 0 && has_stop && fds[1].revents != 0) return fpc_fail(err, FPC_INTERRUPTED, "stopped");
        if (ready > 0 && fds[0].revents != 0) return FPC_OK;
        if (ready > 0) continue; /* the interrupt */
        if (ready < 0 && errno != EINTR) {
            return fpc_fail(err, FPC_CONNECT, "could not wait for the connection: %s", strerror(errno));
        }
        if (fpc_deadline_passed(deadline)) return fpc_fail(err, FPC_TIMEOUT, "the deadline passed");
    }
}
