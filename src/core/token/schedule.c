/* schedule.c -- points before the end of a token, pauses after failures.
 *
 * Invariant: a token that was not refused stays worth something until its end, whatever fails meanwhile. */
#include "schedule.h"

#include "fpcache/clock.h"

#include <math.h>

#define SOFT_MOST_S (20 * 60.0) /* the soft point is half the life before the end, but no more than this */
#define HARD_MOST_S 120.0       /* and the hard point a sixth; the login itself takes time too */
#define JITTER      0.1         /* processes that were started together do not fetch together */
#define LEAST_AGE_S                                                                                          \
    1.0 /* a token that ends at once, by a wrong clock say, is no reason to ask without pause */
#define UNKNOWN_LIFE_S (15 * 60.0) /* a token of unknown end is replaced after this */

#define PAUSE_FIRST_S     1.0 /* after a failure; doubled each time */
#define PAUSE_MOST_S      60.0
#define PAUSE_PERMANENT_S 60.0 /* the same for failures that somebody has to put right */
#define PAUSE_LONGEST_S   300.0

static int64_t after(int64_t now, double seconds) {
    return now + (int64_t)(seconds * (double)FPC_NS_PER_SECOND);
}

/* From low to high. */
static double drawn(fpc_token_schedule *s, double low, double high) {
    s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return low + (high - low) * ((double)(s->random >> 40) / (double)(1 << 24));
}

static double doubled(double first, unsigned times, double most) {
    return fmin(first * ldexp(1, times < 30 ? (int)times : 30), most);
}

void fpc_token_schedule_init(fpc_token_schedule *s, double max_age_s, uint64_t seed) {
    *s = (fpc_token_schedule){.max_age_s = max_age_s, .random = seed};
}

fpc_token_worth fpc_token_schedule_worth(const fpc_token_schedule *s, int64_t now) {
    if (s->generation == 0 || s->refused == s->generation || now >= s->end_ns) return FPC_TOKEN_DEAD;
    if (now >= s->hard_ns) return FPC_TOKEN_TIRED;
    if (s->max_age_s > 0 && now >= after(s->asked_ns, s->max_age_s)) return FPC_TOKEN_TIRED;
    return FPC_TOKEN_GOOD;
}

int64_t fpc_token_schedule_next(const fpc_token_schedule *s) {
    if (s->is_fetching) return FPC_NEVER;
    int64_t due = s->is_wanted ? 0 : s->generation == 0 ? FPC_NEVER : s->soft_ns;
    if (s->generation > 0) {
        double least_s = s->max_age_s > 0 ? fmin(s->max_age_s, LEAST_AGE_S) : LEAST_AGE_S;
        int64_t paced = after(s->asked_ns, least_s);
        if (due < paced) due = paced;
        /* These come as often as they may: see fpc_token_schedule_refused(). */
        if ((s->is_wanted && s->must_be_fresh) || s->refused == s->generation) due = 0;
    }
    return due > s->not_before_ns ? due : s->not_before_ns;
}

bool fpc_token_schedule_begin(fpc_token_schedule *s) {
    s->is_fetching = true;
    return s->must_be_fresh;
}

void fpc_token_schedule_succeed(fpc_token_schedule *s, int64_t asked, double valid_for_s) {
    s->is_fetching = s->is_wanted = s->must_be_fresh = false;
    s->failures = 0;
    s->not_before_ns = 0;
    s->generation++;
    s->refused = 0;
    s->asked_ns = asked;
    bool has_end = valid_for_s >= 0 && valid_for_s < 1e9;
    s->life_s = has_end ? valid_for_s : 0;
    if (has_end) {
        double soft_s = fmin(valid_for_s / 2, SOFT_MOST_S) * drawn(s, 1 - JITTER, 1 + JITTER);
        s->end_ns = after(asked, valid_for_s);
        s->soft_ns = after(s->end_ns, -soft_s);
        s->hard_ns = after(s->end_ns, -fmin(valid_for_s / 6, HARD_MOST_S));
    } else {
        s->end_ns = s->hard_ns = FPC_NEVER;
        /* Who wants it young asks for it himself. */
        s->soft_ns =
            s->max_age_s > 0 ? FPC_NEVER : after(asked, UNKNOWN_LIFE_S * drawn(s, 1 - JITTER, 1 + JITTER));
    }
}

void fpc_token_schedule_fail(fpc_token_schedule *s, int64_t now, const fpc_token_failure *failure) {
    s->is_fetching = s->is_wanted = false;
    s->refused = 0; /* it may work after all, and if not, that is told again */
    double pause_s;
    if (s->max_age_s > 0) {
        pause_s = s->max_age_s; /* asking costs little */
    } else if (failure->permanent) {
        pause_s = doubled(PAUSE_PERMANENT_S, s->failures, PAUSE_LONGEST_S);
    } else {
        /* A token that lives for seconds only cannot wait for a minute. */
        double most_s =
            s->life_s > 0 ? fmin(fmax(s->life_s / 10, PAUSE_FIRST_S), PAUSE_MOST_S) : PAUSE_MOST_S;
        pause_s = doubled(PAUSE_FIRST_S, s->failures, most_s);
    }
    pause_s *= drawn(s, 0.5, 1);
    pause_s = fmax(pause_s, fmin(failure->retry_after_s, PAUSE_LONGEST_S));
    s->failures++;
    s->not_before_ns = after(now, pause_s);
}

fpc_token_remedy fpc_token_schedule_refused(fpc_token_schedule *s, uint64_t generation, int64_t now) {
    if (generation != s->generation) return FPC_TOKEN_NEWER;
    if (s->refused == generation || s->is_fetching) {
        s->refused = generation;
        return FPC_TOKEN_AWAIT;
    }
    if (now < s->next_forced_ns) return FPC_TOKEN_USELESS;
    s->refused = generation;
    s->must_be_fresh = true;
    s->next_forced_ns = after(now, doubled(PAUSE_FIRST_S, s->forced, PAUSE_MOST_S) * drawn(s, 0.5, 1));
    s->forced++;
    return FPC_TOKEN_AWAIT;
}

void fpc_token_schedule_accepted(fpc_token_schedule *s, uint64_t generation) {
    if (generation != s->generation) return;
    s->forced = 0;
    s->next_forced_ns = 0;
}
