/* schedule.h -- when to fetch the next token, and what the last one is still worth.
 *
 *   soft point  from here on the next token is fetched, and meanwhile the last one is given out
 *   hard point  from here on the last one is given out only if the next one cannot be had
 *   end         from here on the server refuses it
 *
 * Pure: every time is the caller's, in nanoseconds of one clock that also counts sleep (fpc_clock_boot_ns()).
 * Thread rule: one thread at a time. */
#ifndef FPC_TOKEN_SCHEDULE_H
#define FPC_TOKEN_SCHEDULE_H

#include "fpcache/token_source.h"

#include <stdint.h>

typedef struct fpc_token_schedule {
    double max_age_s;    /* fixed: whoever asks wants a token no older than this; 0: the points decide */
    uint64_t random;     /* for the jitter */
    uint64_t generation; /* of the last token; 0: there was none yet */
    int64_t asked_ns;    /* when its fetch began */
    int64_t soft_ns, hard_ns, end_ns;
    double life_s; /* of the last token, as far as its source could tell; else 0 */
    bool is_fetching;
    bool is_wanted;        /* somebody waits for the next one */
    bool must_be_fresh;    /* the last one was refused, or somebody wants another one whatever it is worth */
    int64_t not_before_ns; /* the next fetch, after a failure */
    unsigned failures;     /* in a row */
    uint64_t refused;      /* the generation that the server refused and that is to be replaced; 0: none */
    unsigned forced;       /* fetches because of that, in a row, without a login in between */
    int64_t next_forced_ns;
} fpc_token_schedule;

typedef enum fpc_token_worth {
    FPC_TOKEN_GOOD,  /* give it out */
    FPC_TOKEN_TIRED, /* only if the next one cannot be had */
    FPC_TOKEN_DEAD   /* there is none, it has ended or was refused */
} fpc_token_worth;

typedef enum fpc_token_remedy {
    FPC_TOKEN_NEWER,  /* there is a newer one: try that */
    FPC_TOKEN_AWAIT,  /* one is being fetched, or will be */
    FPC_TOKEN_USELESS /* new ones were refused too, a moment ago */
} fpc_token_remedy;

void fpc_token_schedule_init(fpc_token_schedule *s, double max_age_s, uint64_t seed);

fpc_token_worth fpc_token_schedule_worth(const fpc_token_schedule *s, int64_t now);
/* When the next fetch is to begin, which may be past; FPC_NEVER while one is under way. */
int64_t fpc_token_schedule_next(const fpc_token_schedule *s);

/* A fetch begins; whether it must be a fresh one (see fpc_token_fetch). */
bool fpc_token_schedule_begin(fpc_token_schedule *s);
/* It ended with a token, having begun at `asked`; valid_for_s as in fpc_token. */
void fpc_token_schedule_succeed(fpc_token_schedule *s, int64_t asked, double valid_for_s);
void fpc_token_schedule_fail(fpc_token_schedule *s, int64_t now, const fpc_token_failure *failure);

/* The server refused a login with that generation, or let it in. */
fpc_token_remedy fpc_token_schedule_refused(fpc_token_schedule *s, uint64_t generation, int64_t now);
void fpc_token_schedule_accepted(fpc_token_schedule *s, uint64_t generation);

#endif
