/* pipeline_thread.c -- the I/O thread of the process: one for all engines.
 *
 * It polls what all of them rest on, and gives a turn to each that has something to do, one after the other:
 * none gets a second one before the others that are ready had theirs.  poll(2) is the only place where it
 * waits, so a stalled server holds up nobody else.
 *
 * An engine comes by a list under the lock, with room for its descriptors, so that the thread never has to
 * ask for memory.  It leaves by its last turn.  The thread ends with the last engine; who comes then starts
 * another one.  The child of a fork has none. */
#include "pipeline_io.h"
#include "thread.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Between the thread and those who start engines; under the lock, which is never held while waiting. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    bool running;
    int wake_fd;           /* while it runs: readable when somebody came */
    fpc_io *arrived;       /* a list */
    size_t engines;        /* the thread's, and those that arrived */
    size_t room;           /* descriptors that the thread can poll, with `larger` if there is one */
    struct pollfd *larger; /* for the thread to take in place of its own */
} shared;

/* What the thread has for itself. */
typedef struct rounds {
    int wake_fd;
    fpc_io *engines; /* a list */
    struct pollfd *fds;
} rounds;

/* --- fork(2) --- */

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}

static void in_parent(void) {
    pthread_mutex_unlock(&lock);
}

/* The parent's engines, and what its thread had for itself, stay where they are: in whatever state. */
static void in_child(void) {
    if (shared.running) close(shared.wake_fd);
    free(shared.larger);
    memset(&shared, 0, sizeof shared);
    pthread_mutex_init(&lock, NULL);
}

static void install(void) {
    pthread_atfork(before_fork, in_parent, in_child);
}

/* --- Who comes and goes --- */

static fpc_status make_room(fpc_error *err) {
    size_t needed = 1 + (shared.engines + 1) * FPC_IO_FDS;
    if (needed <= shared.room) return FPC_OK;
    struct pollfd *larger = malloc(2 * needed * sizeof *larger);
    if (larger == NULL) return fpc_fail(err, FPC_NOMEM, "could not start the pipeline: no memory");
    free(shared.larger);
    shared.larger = larger;
    shared.room = 2 * needed;
    return FPC_OK;
}

static void *run(void *wake_fd);

static fpc_status start_thread(fpc_error *err) {
    pthread_t thread;
    int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd < 0)
        return fpc_fail(err, FPC_NOMEM, "could not start the pipeline: no descriptors (ulimit -n)");
    shared.wake_fd = wake_fd;
    int failure = fpc_thread_start(&thread, "fpcache-io", run, NULL);
    if (failure != 0) {
        close(wake_fd);
        return fpc_fail(err, FPC_NOMEM, "could not start the pipeline's thread: %s", strerror(failure));
    }
    pthread_detach(thread);
    shared.running = true;
    return FPC_OK;
}

fpc_status fpc_io_start(fpc_io *io, fpc_error *err) {
    uint64_t one = 1;
    pthread_once(&once, install);
    pthread_mutex_lock(&lock);
    fpc_status status = make_room(err);
    if (status == FPC_OK && !shared.running) status = start_thread(err);
    if (status == FPC_OK) {
        io->next = shared.arrived;
        shared.arrived = io;
        shared.engines++;
        if (write(shared.wake_fd, &one, sizeof one) < 0) { /* full: it is readable already */
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* Takes over those who came.  False: there is nobody left, and the thread has ended for all others. */
static bool take_arrived(rounds *self) {
    pthread_mutex_lock(&lock);
    self->wake_fd = shared.wake_fd;
    while (shared.arrived != NULL) {
        fpc_io *io = shared.arrived;
        shared.arrived = io->next;
        io->next = self->engines;
        self->engines = io;
    }
    if (shared.larger != NULL) {
        free(self->fds);
        self->fds = shared.larger;
        shared.larger = NULL;
    }
    bool goes_on = self->engines != NULL && self->fds != NULL; /* room comes with the first engine */
    if (!goes_on) {
        close(shared.wake_fd);
        shared.running = false;
        shared.room = 0;
    }
    pthread_mutex_unlock(&lock);
    return goes_on;
}

static void count_one_gone(void) {
    pthread_mutex_lock(&lock);
    shared.engines--;
    pthread_mutex_unlock(&lock);
}

/* --- The thread --- */

static void sleep_for_all(rounds *self) {
    fpc_deadline until = FPC_NEVER;
    uint64_t wakes;
    size_t count = 1;
    self->fds[0] = (struct pollfd){.fd = self->wake_fd, .events = POLLIN};
    for (const fpc_io *io = self->engines; io != NULL; io = io->next) {
        if (io->fd_count > 0) memcpy(self->fds + count, io->fds, (size_t)io->fd_count * sizeof *io->fds);
        count += (size_t)io->fd_count;
        if (io->sleeps_until < until) until = io->sleeps_until;
    }
    poll(self->fds, count, fpc_deadline_poll_ms(until)); /* EINTR: nobody is ready, one round too many */
    if (self->fds[0].revents != 0 && read(self->wake_fd, &wakes, sizeof wakes) < 0) { /* nobody else reads */
    }
}

static bool is_ready(const fpc_io *io, const struct pollfd *polled, int64_t now) {
    if (now >= io->sleeps_until) return true;
    for (int i = 0; i < io->fd_count; i++) {
        if (polled[i].revents != 0) return true;
    }
    return false;
}

static void give_turns(rounds *self) {
    const struct pollfd *polled = self->fds + 1;
    int64_t now = fpc_clock_ns();
    for (fpc_io **at = &self->engines; *at != NULL;) {
        fpc_io *io = *at, *next = io->next;
        const struct pollfd *its = polled;
        polled += io->fd_count;
        if (!is_ready(io, its, now) || fpc_io_turn(io, its)) {
            at = &io->next;
        } else {
            *at = next;
            count_one_gone();
        }
    }
}

static void *run(void *unused) {
    (void)unused;
    rounds self = {0};
    while (take_arrived(&self)) {
        sleep_for_all(&self);
        give_turns(&self);
    }
    free(self.fds);
    return NULL;
}
