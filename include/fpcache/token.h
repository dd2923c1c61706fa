/* token.h -- keeps the password of new connections fresh.
 *
 *   keeper      has the last token of one source, and a thread that fetches the next one in time; the thread
 *               starts at the first use, and again in a child of fork(2)
 *   generation  the number of a token: 1, 2, ...  Who was refused says with which
 *   pulled      a keeper without a source and a thread: its owner fetches when it is wanted, and gives
 *
 * Tokens are fetched well before they end (half of their life, 20 minutes at most), by one fetch at a time
 * whoever asks, again after a pause when that failed; what is still good is given out meanwhile.
 * Sessions that are open do not notice.
 * Owner: a keeper is shared and counts its holders.  No report and no message holds a password.
 * Thread rule: any thread.  fork(2): a keeper may be used in the child too; its first call there must have
 * returned before a second thread uses it. */
#ifndef FPCACHE_TOKEN_H
#define FPCACHE_TOKEN_H

#include "fpcache/token_source.h"

#include <stdint.h>

typedef struct fpc_token_keeper fpc_token_keeper;

typedef struct fpc_token_stats {
    char source[32];     /* the kind */
    uint64_t generation; /* 0: there was no token yet */
    double expires_in_s; /* below 0: ended; infinite: not known, or there is none */
    uint64_t refreshes, failures,
        refusals; /* fetches that succeeded or failed; tokens that the server refused */
    bool is_fetching;
    char host[256], user[256]; /* as the source says; "" where it does not */
    char last_error[512];      /* "code: words" of the latest fetch; "" when it succeeded */
} fpc_token_stats;

/* The keeper of the source of that kind with these settings: the one in use in this process, or a new one.
 * Fetches nothing yet.  Errors as fpc_token_source_new(). */
fpc_status fpc_token_keeper_open(const char *kind, const fpc_token_setting *settings, size_t count,
                                 fpc_token_keeper **out, fpc_error *err);
/* One more holder. */
fpc_token_keeper *fpc_token_keeper_share(fpc_token_keeper *keeper);
/* The last one ends the thread, within a second, whatever it waits for.  NULL is allowed. */
void fpc_token_keeper_close(fpc_token_keeper *keeper);

const char *fpc_token_keeper_kind(const fpc_token_keeper *keeper);

/* A copy of the token for one login; the caller clears it.  Waits only where the last one has ended or is
 * about to; FPC_CONNECT when there is none by the deadline, else why its fetch failed. */
fpc_status fpc_token_keeper_get(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_token *out,
                                uint64_t *generation, fpc_error *err);
/* The same after the server refused the token of *generation: another one.  FPC_AUTH when it makes no sense
 * to fetch one, since those before were refused too. */
fpc_status fpc_token_keeper_refused(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_token *out,
                                    uint64_t *generation, fpc_error *err);
/* The server let this token in. */
void fpc_token_keeper_accepted(fpc_token_keeper *keeper, uint64_t generation);

/* Fetches now, whatever the last token is worth, and waits for it. */
fpc_status fpc_token_keeper_refresh(fpc_token_keeper *keeper, fpc_deadline deadline, fpc_error *err);

void fpc_token_keeper_get_stats(fpc_token_keeper *keeper, fpc_token_stats *out);

/* --- Pulled keepers --- */

/* `name` is for reports.  NULL: out of memory.  Asked for a token, such a keeper gives the last one, however
 * old it is. */
fpc_token_keeper *fpc_token_keeper_new_pulled(const char *name);
/* Whether the owner should fetch now. */
bool fpc_token_keeper_wants(fpc_token_keeper *keeper);
/* What he fetched: takes over the strings.  valid_for_s counts from now. */
void fpc_token_keeper_give(fpc_token_keeper *keeper, fpc_token *token);
void fpc_token_keeper_give_up(fpc_token_keeper *keeper, const fpc_token_failure *failure);

#endif
