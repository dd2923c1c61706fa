/* keeper.c -- the callers' side: giving out, waiting, refusing.
 *
 * A waiter sleeps on a descriptor of its own, so that whatever ends other waits of its thread (an interrupt,
 * the end of the feed) ends this one too. */
#include "keeper.h"
#include "secret.h"

#include "fpcache/fork.h"
#include "fpcache/wait.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TIRED_WAIT_S 10.0 /* at most, for a newer token while there is one that should still do */

/* --- Life --- */

static int new_event(void) {
    return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void make_readable(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) { /* full: it is readable already */
    }
}

void fpc_token_keeper_free(fpc_token_keeper *keeper) {
    fpc_token_source_delete(keeper->source);
    fpc_token_clear(&keeper->token);
    if (keeper->origin.destroy != NULL) keeper->origin.destroy(keeper->origin.arg);
    close_fd(&keeper->stop_fd);
    close_fd(&keeper->wake_fd);
    pthread_cond_destroy(&keeper->ended);
    pthread_mutex_destroy(&keeper->lock);
    free(keeper);
}

static void init_ended(fpc_token_keeper *keeper) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper->ended, &attributes);
    pthread_condattr_destroy(&attributes);
}

fpc_status fpc_token_keeper_new(const char *kind, const fpc_token_origin *origin, fpc_token_keeper **out,
                                fpc_error *err) {
    fpc_token_keeper *keeper = calloc(1, sizeof *keeper);
    if (keeper == NULL) {
        if (origin->destroy != NULL) origin->destroy(origin->arg);
        return fpc_fail(err, FPC_NOMEM, "token");
    }
    snprintf(keeper->kind, sizeof keeper->kind, "%s", kind);
    keeper->origin = *origin;
    atomic_init(&keeper->holders, 1);
    pthread_mutex_init(&keeper->lock, NULL);
    init_ended(keeper);
    keeper->fork_generation = fpc_fork_generation();
    keeper->stop_fd = keeper->wake_fd = -1;
    fpc_status status = FPC_OK;
    if (origin->make != NULL) status = origin->make(origin->arg, &keeper->source, err);
    double max_age_s = keeper->source == NULL ? 0 : keeper->source->class->max_age_s;
    fpc_token_schedule_init(&keeper->schedule, max_age_s, (uint64_t)fpc_clock_ns() ^ (uint64_t)getpid());
    if (status == FPC_OK)
        *out = keeper;
    else
        fpc_token_keeper_free(keeper);
    return status;
}

void fpc_token_keeper_lock(fpc_token_keeper *keeper) {
    unsigned generation = fpc_fork_generation();
    if (keeper->fork_generation != generation) {
        /* A thread of the parent may have held the lock, in the midst of changing the token; it does not
         * exist here.  What the source keeps open is the parent's: it is left alone, and another one made. */
        bool is_whole = pthread_mutex_trylock(&keeper->lock) == 0;
        if (is_whole) pthread_mutex_unlock(&keeper->lock);
        pthread_mutex_init(&keeper->lock, NULL);
        init_ended(keeper);
        if (!is_whole) {
            memset(&keeper->token, 0, sizeof keeper->token);
            fpc_token_schedule_init(&keeper->schedule, keeper->schedule.max_age_s, keeper->schedule.random);
            keeper->failures = keeper->refreshes = keeper->refusals = 0;
        }
        keeper->schedule.is_fetching = keeper->has_thread = keeper->has_ended = false;
        keeper->schedule.random ^= (uint64_t)getpid() << 32; /* not in step with the parent */
        keeper->source = NULL;
        keeper->waiters = NULL;
        close_fd(&keeper->stop_fd);
        close_fd(&keeper->wake_fd);
        keeper->fork_generation = generation;
    }
    pthread_mutex_lock(&keeper->lock);
}

void fpc_token_keeper_unlock(fpc_token_keeper *keeper) {
    pthread_mutex_unlock(&keeper->lock);
}

void fpc_token_keeper_end(fpc_token_keeper *keeper) {
    fpc_token_keeper_lock(keeper);
    bool has_thread = keeper->has_thread;
    pthread_t thread = keeper->thread;
    if (has_thread) make_readable(keeper->stop_fd);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec++;
    int waited = 0;
    while (has_thread && !keeper->has_ended && waited != ETIMEDOUT) {
        waited = pthread_cond_timedwait(&keeper->ended, &keeper->lock, &until);
    }
    keeper->is_abandoned = has_thread && !keeper->has_ended; /* it hangs in a name lookup, say */
    bool is_abandoned = keeper->is_abandoned;
    fpc_token_keeper_unlock(keeper);
    if (is_abandoned) {
        pthread_detach(thread);
        return;
    }
    if (has_thread) pthread_join(thread, NULL);
    fpc_token_keeper_free(keeper);
}

/* --- Waiting --- */

static void wake_waiters(fpc_token_keeper *keeper) {
    for (fpc_token_waiter *w = keeper->waiters; w != NULL; w = w->next) make_readable(w->fd);
}

/* Waits until something moved.  Lock held on entry and on return. */
static fpc_status wait_moved(fpc_token_keeper *keeper, fpc_deadline until, fpc_error *err) {
    fpc_token_waiter self = {.next = keeper->waiters, .fd = new_event()};
    if (self.fd < 0) return fpc_fail(err, FPC_NOMEM, "could not make an eventfd: %s", strerror(errno));
    keeper->waiters = &self;
    fpc_token_keeper_unlock(keeper);
    fpc_status status = fpc_wait_fd(self.fd, POLLIN, until, err);
    fpc_token_keeper_lock(keeper);
    fpc_token_waiter **at = &keeper->waiters;
    while (*at != &self) at = &(*at)->next;
    *at = self.next;
    close(self.fd);
    return status == FPC_TIMEOUT ? FPC_OK : status; /* the caller looks at the clock himself */
}

void fpc_token_keeper_take(fpc_token_keeper *keeper, int64_t asked, fpc_token *token) {
    fpc_token_clear(&keeper->token);
    keeper->token = *token;
    memset(token, 0, sizeof *token);
    fpc_token_schedule_succeed(&keeper->schedule, asked, keeper->token.valid_for_s);
    keeper->refreshes++;
    wake_waiters(keeper);
}

void fpc_token_keeper_take_failure(fpc_token_keeper *keeper, const fpc_token_failure *failure) {
    keeper->failure = *failure;
    fpc_secret_redact(keeper->failure.error.message); /* it may quote others */
    fpc_token_schedule_fail(&keeper->schedule, fpc_clock_boot_ns(), failure);
    keeper->failures++;
    wake_waiters(keeper);
}

/* --- Giving out --- */

static char *copy_text(const char *text, bool *ok) {
    char *copy = text == NULL ? NULL : strdup(text);
    if (text != NULL && copy == NULL) *ok = false;
    return copy;
}

static fpc_status give_out(const fpc_token_keeper *keeper, fpc_token *out, uint64_t *generation,
                           fpc_error *err) {
    const fpc_token *token = &keeper->token;
    bool ok = true;
    *out = (fpc_token){.password = copy_text(token->password, &ok),
                       .valid_for_s = token->valid_for_s,
                       .host = copy_text(token->host, &ok),
                       .user = copy_text(token->user, &ok)};
    *generation = keeper->schedule.generation;
    if (ok) return FPC_OK;
    fpc_token_clear(out);
    return fpc_fail(err, FPC_NOMEM, "token");
}

/* There is none to give. */
static fpc_status none(const fpc_token_keeper *keeper, int64_t now, fpc_error *err) {
    if (keeper->schedule.failures == 0) {
        if (keeper->origin.make == NULL)
            return fpc_fail(err, FPC_AUTH, "%s has given no %spassword yet", keeper->kind,
                            keeper->schedule.generation > 0 ? "other " : "");
        if (keeper->schedule.generation > 0 && now >= keeper->schedule.end_ns)
            return fpc_fail(err, FPC_CONNECT,
                            "the passwords from %s have ended when they come; is a clock wrong?",
                            keeper->kind);
        return fpc_fail(err, FPC_CONNECT, "no password from %s in time", keeper->kind);
    }
    fpc_status status = keeper->failure.error.status;
    double wait_s = (double)(fpc_token_schedule_next(&keeper->schedule) - now) / (double)FPC_NS_PER_SECOND;
    char next[48] = "";
    if (wait_s >= 1 && wait_s < 1e6) snprintf(next, sizeof next, " (next try in %.0f s)", wait_s);
    return fpc_fail(err, status == FPC_TIMEOUT || status == FPC_INTERRUPTED ? FPC_CONNECT : status,
                    "no password from %s: %.400s%s", keeper->kind, keeper->failure.error.message, next);
}

/* Half of the time there is: the other half is for the login. */
static fpc_deadline half_way(fpc_deadline deadline) {
    int64_t now = fpc_clock_ns();
    fpc_deadline most = fpc_deadline_in(TIRED_WAIT_S);
    fpc_deadline half = deadline == FPC_NEVER ? most : now + (deadline - now) / 2;
    return half < most ? half : most;
}

/* Whether the next fetch begins before the deadline, or has begun. */
static bool comes_before(const fpc_token_schedule *s, int64_t now, fpc_deadline deadline) {
    int64_t next = fpc_token_schedule_next(s);
    return s->is_fetching || deadline == FPC_NEVER || next - now <= deadline - fpc_clock_ns();
}

/* A token that is not of generation `not_this`.  Lock held. */
static fpc_status obtain(fpc_token_keeper *keeper, uint64_t not_this, fpc_deadline deadline, fpc_token *out,
                         uint64_t *generation, fpc_error *err) {
    fpc_token_schedule *s = &keeper->schedule;
    fpc_deadline patience = half_way(deadline);
    uint64_t failures_before = keeper->failures;
    fpc_status status = FPC_OK;
    for (;;) {
        /* 1. Is there one to give out? */
        int64_t now = fpc_clock_boot_ns();
        bool is_other = s->generation != not_this;
        fpc_token_worth worth = is_other ? fpc_token_schedule_worth(s, now) : FPC_TOKEN_DEAD;
        bool is_pulled = keeper->origin.make == NULL;
        if (worth == FPC_TOKEN_GOOD || (is_pulled && is_other && s->generation > 0)) break;
        /* 2. Is there another one to come? */
        s->is_wanted = true;
        bool has_failed = keeper->failures > failures_before;
        if (is_pulled ||
            (worth == FPC_TOKEN_DEAD && ((has_failed && keeper->failure.permanent) ||
                                         fpc_deadline_passed(deadline) || !comes_before(s, now, deadline)))) {
            status = none(keeper, now, err);
            break;
        }
        bool is_pausing = !s->is_fetching && fpc_token_schedule_next(s) > now;
        if (worth == FPC_TOKEN_TIRED && (has_failed || is_pausing || fpc_deadline_passed(patience))) break;
        /* 3. Wait for it. */
        status = fpc_token_keeper_start(keeper, err);
        if (status == FPC_OK)
            status = wait_moved(keeper, worth == FPC_TOKEN_TIRED ? patience : deadline, err);
        if (status != FPC_OK) break;
    }
    return status == FPC_OK ? give_out(keeper, out, generation, err) : status;
}

fpc_status fpc_token_keeper_get(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_token *out,
                                uint64_t *generation, fpc_error *err) {
    fpc_token_keeper_lock(keeper);
    fpc_status status = obtain(keeper, 0, deadline, out, generation, err);
    /* The token may be there without a thread: in a child of fork(2). */
    if (status == FPC_OK && keeper->origin.make != NULL && !keeper->has_thread) {
        fpc_error ignored; /* whoever has to wait for the next token tries again, and tells */
        fpc_token_keeper_start(keeper, &ignored);
    }
    fpc_token_keeper_unlock(keeper);
    return status;
}

fpc_status fpc_token_keeper_refused(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_token *out,
                                    uint64_t *generation, fpc_error *err) {
    fpc_token_keeper_lock(keeper);
    if (*generation == keeper->schedule.generation && keeper->schedule.refused != *generation)
        keeper->refusals++;
    fpc_status status;
    if (fpc_token_schedule_refused(&keeper->schedule, *generation, fpc_clock_boot_ns()) == FPC_TOKEN_USELESS)
        status = fpc_fail(err, FPC_AUTH, "new passwords from %s were refused too", keeper->kind);
    else
        status = obtain(keeper, *generation, deadline, out, generation, err);
    fpc_token_keeper_unlock(keeper);
    return status;
}

void fpc_token_keeper_accepted(fpc_token_keeper *keeper, uint64_t generation) {
    fpc_token_keeper_lock(keeper);
    fpc_token_schedule_accepted(&keeper->schedule, generation);
    fpc_token_keeper_unlock(keeper);
}

fpc_status fpc_token_keeper_refresh(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_error *err) {
    fpc_token token = {0};
    uint64_t generation;
    fpc_token_keeper_lock(keeper);
    keeper->schedule.must_be_fresh = true;
    if (!keeper->schedule.is_fetching) keeper->schedule.not_before_ns = 0;
    fpc_status status = obtain(keeper, keeper->schedule.generation, deadline, &token, &generation, err);
    fpc_token_keeper_unlock(keeper);
    fpc_token_clear(&token);
    return status;
}

void fpc_token_keeper_get_stats(fpc_token_keeper *keeper, fpc_token_stats *out) {
    memset(out, 0, sizeof *out);
    fpc_token_keeper_lock(keeper);
    const fpc_token_schedule *s = &keeper->schedule;
    snprintf(out->source, sizeof out->source, "%s", keeper->kind);
    out->generation = s->generation;
    out->expires_in_s = s->generation == 0 || s->end_ns == FPC_NEVER
                            ? INFINITY
                            : (double)(s->end_ns - fpc_clock_boot_ns()) / (double)FPC_NS_PER_SECOND;
    out->refreshes = keeper->refreshes;
    out->failures = keeper->failures;
    out->refusals = keeper->refusals;
    out->is_fetching = s->is_fetching;
    if (keeper->token.host != NULL) snprintf(out->host, sizeof out->host, "%s", keeper->token.host);
    if (keeper->token.user != NULL) snprintf(out->user, sizeof out->user, "%s", keeper->token.user);
    if (s->failures > 0) {
        snprintf(out->last_error, sizeof out->last_error, "%s: %.480s",
                 fpc_status_name(keeper->failure.error.status), keeper->failure.error.message);
    }
    fpc_token_keeper_unlock(keeper);
}

const char *fpc_token_keeper_kind(const fpc_token_keeper *keeper) {
    return keeper->kind;
}

/* --- Pulled --- */

fpc_token_keeper *fpc_token_keeper_new_pulled(const char *name) {
    static const fpc_token_origin PULLED = {NULL, NULL, NULL};
    fpc_token_keeper *keeper = NULL;
    fpc_token_keeper_new(name, &PULLED, &keeper, NULL);
    if (keeper != NULL) keeper->schedule.is_wanted = true;
    return keeper;
}

bool fpc_token_keeper_wants(fpc_token_keeper *keeper) {
    fpc_token_keeper_lock(keeper);
    bool wants = fpc_token_schedule_next(&keeper->schedule) <= fpc_clock_boot_ns();
    fpc_token_keeper_unlock(keeper);
    return wants;
}

void fpc_token_keeper_give(fpc_token_keeper *keeper, fpc_token *token) {
    fpc_token_keeper_lock(keeper);
    fpc_token_keeper_take(keeper, fpc_clock_boot_ns(), token);
    fpc_token_keeper_unlock(keeper);
}

void fpc_token_keeper_give_up(fpc_token_keeper *keeper, const fpc_token_failure *failure) {
    fpc_token_keeper_lock(keeper);
    fpc_token_keeper_take_failure(keeper, failure);
    fpc_token_keeper_unlock(keeper);
}
