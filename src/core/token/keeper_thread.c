/* keeper_thread.c -- the fetching side: sleep until the schedule says so, fetch, tell.
 *
 * The lock is never held while the source is asked. */
#include "keeper.h"

#include "fpcache/wait.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define FETCH_S     60.0                     /* all requests of one fetch together */
#define LONGEST_NAP (60 * FPC_NS_PER_SECOND) /* poll(2) does not count the time that the machine slept */

static bool is_readable(int fd) {
    struct pollfd look = {.fd = fd, .events = POLLIN};
    return poll(&look, 1, 0) > 0;
}

/* Sleeps until then, until the schedule changed, or the end. */
static void nap(const fpc_token_keeper *keeper, int64_t next) {
    int64_t left = next - fpc_clock_boot_ns();
    if (next == FPC_NEVER || left > LONGEST_NAP) left = LONGEST_NAP;
    struct pollfd fds[2] = {{.fd = keeper->stop_fd, .events = POLLIN},
                            {.fd = keeper->wake_fd, .events = POLLIN}};
    poll(fds, 2, left <= 0 ? 0 : (int)(left / 1000000) + 1); /* EINTR: too early does no harm */
    uint64_t count;
    if (fds[1].revents != 0 && read(keeper->wake_fd, &count, sizeof count) < 0) { /* nobody else reads it */
    }
}

/* Lock not held. */
static fpc_status ask(fpc_token_keeper *keeper, bool fresh, fpc_token *token, fpc_token_failure *failure) {
    memset(failure, 0, sizeof *failure);
    fpc_token_fetch how = {.deadline = fpc_deadline_in(FETCH_S), .stop_fd = keeper->stop_fd, .fresh = fresh};
    return keeper->source->class->fetch(keeper->source, &how, token, failure);
}

static void fetch(fpc_token_keeper *keeper) {
    fpc_token token = {0};
    fpc_token_failure failure;
    bool fresh = fpc_token_schedule_begin(&keeper->schedule);
    fpc_token_keeper_unlock(keeper);
    int64_t asked = fpc_clock_boot_ns();
    fpc_status status = ask(keeper, fresh, &token, &failure);
    fpc_token_keeper_lock(keeper);
    if (status == FPC_OK)
        fpc_token_keeper_take(keeper, asked, &token);
    else
        fpc_token_keeper_take_failure(keeper, &failure);
}

static void *run(void *arg) {
    fpc_token_keeper *keeper = arg;
    fpc_wait_stop_by(keeper->stop_fd);
    fpc_token_keeper_lock(keeper);
    while (!is_readable(keeper->stop_fd)) {
        int64_t next = fpc_token_schedule_next(&keeper->schedule);
        if (next <= fpc_clock_boot_ns()) {
            fetch(keeper);
            continue;
        }
        fpc_token_keeper_unlock(keeper);
        nap(keeper, next);
        fpc_token_keeper_lock(keeper);
    }
    keeper->has_ended = true;
    bool is_abandoned = keeper->is_abandoned;
    pthread_cond_signal(&keeper->ended);
    fpc_token_keeper_unlock(keeper);
    if (is_abandoned) fpc_token_keeper_free(keeper);
    return NULL;
}

/* In a child of fork(2) another source is needed.  It is made by the caller's thread: it reads the
 * environment, which the caller may change when nobody else reads it.  What it says is known by the next try
 * too. */
static fpc_status make_source(fpc_token_keeper *keeper, fpc_error *err) {
    fpc_token_failure failure = {.permanent = true};
    fpc_status status = keeper->origin.make(keeper->origin.arg, &keeper->source, &failure.error);
    if (status == FPC_OK) return FPC_OK;
    keeper->source = NULL;
    failure.permanent = status != FPC_NOMEM;
    fpc_token_keeper_take_failure(keeper, &failure);
    return fpc_fail(err, status, "no password from %s: %.400s", keeper->kind, keeper->failure.error.message);
}

fpc_status fpc_token_keeper_start(fpc_token_keeper *keeper, fpc_error *err) {
    uint64_t one = 1;
    if (keeper->has_thread) {
        if (write(keeper->wake_fd, &one, sizeof one) < 0) { /* full: it is readable already */
        }
        return FPC_OK;
    }
    if (keeper->source == NULL && make_source(keeper, err) != FPC_OK) return keeper->failure.error.status;
    if (keeper->stop_fd < 0) keeper->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (keeper->wake_fd < 0) keeper->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int failure = keeper->stop_fd < 0 || keeper->wake_fd < 0
                      ? errno
                      : fpc_thread_start(&keeper->thread, "fpcache-token", run, keeper);
    if (failure != 0)
        return fpc_fail(err, FPC_NOMEM, "could not start the token's thread: %s", strerror(failure));
    keeper->has_thread = true;
    return FPC_OK;
}
