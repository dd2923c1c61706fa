/* wait.c -- waits end by readiness, deadline or interrupt, whichever is first.
 *
 * The flag is the truth.  The eventfd is polled beside the descriptor and only wakes: a flag alone
 * could be raised between its test and the poll(2), which would then sleep on.  Raising sets the flag
 * first, so whoever empties the eventfd and finds the flag set must fill it again for the others.
 *
 * A forked child gets an eventfd of its own; it would wake and empty its parent's otherwise. */
#include "fpcache/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static atomic_int interrupt_fd = -1;
static atomic_bool interrupt_flag;

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) {
    int old = atomic_load(&interrupt_fd);
    if (old < 0) return;
    int own = eventfd(atomic_load(&interrupt_flag), EFD_CLOEXEC | EFD_NONBLOCK);
    if (own < 0 || dup3(own, old, O_CLOEXEC) < 0) { /* no descriptors left: raising does nothing here */
        atomic_store(&interrupt_fd, -1);
        close(old);
    }
    if (own >= 0) close(own);
}

static void install(void) {
    pthread_atfork(NULL, NULL, in_child);
}

fpc_status fpc_interrupt_enable(fpc_error *err) {
    pthread_once(&once, install);
    if (atomic_load(&interrupt_fd) >= 0) return FPC_OK;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return fpc_fail(err, FPC_NOMEM, "could not make an eventfd: %s", strerror(errno));
    int none = -1;
    if (!atomic_compare_exchange_strong(&interrupt_fd, &none, fd)) close(fd); /* somebody was faster */
    return FPC_OK;
}

static void fill(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) { /* full: whoever waits is woken already */
    }
}

static void empty(int fd) {
    uint64_t count;
    if (read(fd, &count, sizeof count) < 0) { /* it was empty */
    }
    if (atomic_load(&interrupt_flag)) fill(fd);
}

void fpc_interrupt_raise(void) {
    int saved_errno = errno;
    int fd = atomic_load(&interrupt_fd);
    if (fd >= 0) {
        atomic_store(&interrupt_flag, true);
        fill(fd);
    }
    errno = saved_errno;
}

void fpc_interrupt_clear(void) {
    atomic_store(&interrupt_flag, false);
    int fd = atomic_load(&interrupt_fd);
    if (fd >= 0) empty(fd);
}

bool fpc_interrupt_raised(void) {
    return atomic_load(&interrupt_flag);
}

static _Thread_local int stop_fd = -1; /* of a thread of ours: takes the place of the interrupt */

void fpc_wait_stop_by(int fd) {
    stop_fd = fd;
}

bool fpc_wait_stopped(void) {
    if (stop_fd < 0) return fpc_interrupt_raised();
    struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
    return poll(&stop, 1, 0) > 0;
}

fpc_status fpc_wait_fd(int fd, short events, fpc_deadline deadline, fpc_error *err) {
    if (fd < 0)
        return fpc_fail(err, FPC_CONNECT, "there is no connection to wait for"); /* poll would skip it */
    bool has_stop = stop_fd >= 0;
    struct pollfd fds[2] = {{.fd = fd, .events = events},
                            {.fd = has_stop ? stop_fd : atomic_load(&interrupt_fd), .events = POLLIN}};
    for (;;) {
        if (!has_stop && fpc_interrupt_raised()) return fpc_fail(err, FPC_INTERRUPTED, "interrupted");
        int ready = poll(fds, 2, fpc_deadline_poll_ms(deadline)); /* poll skips a negative fd */
        if (ready > 0 && has_stop && fds[1].revents != 0) return fpc_fail(err, FPC_INTERRUPTED, "stopped");
        if (ready > 0 && fds[0].revents != 0) return FPC_OK;
        if (ready < 0 && errno != EINTR) {
            return fpc_fail(err, FPC_CONNECT, "could not wait for the connection: %s", strerror(errno));
        }
        if (!has_stop && fpc_interrupt_raised()) continue;
        if (ready > 0) empty(fds[1].fd); /* left over from an interrupt that was cleared */
        if (fpc_deadline_passed(deadline)) return fpc_fail(err, FPC_TIMEOUT, "the deadline passed");
    }
}
