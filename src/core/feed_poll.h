/* feed_poll.h -- one question to the change feed, and reading its answer.
 *
 *   position   the snapshot of the last poll that was applied; NULL: none yet
 *
 * The answer lives until fpc_feed_answer_clear().  Thread rule: one thread at a time. */
#ifndef FPC_FEED_POLL_H
#define FPC_FEED_POLL_H

#include "fpcache/conn.h"
#include "fpcache/feed.h"

typedef struct fpc_feed_answer {
    fpc_result *result;
    char *snapshot;                              /* malloc'ed; becomes the position */
    char incarnation[FPC_FEED_INCARNATION_SIZE]; /* "": the cache was emptied and no incarnation has begun */
    char started[40];                            /* when the server started, as text to compare */
    bool fell_behind, rotation_due;
    bool is_on; /* false: the feed is switched off, so nobody has to tell what changes */
} fpc_feed_answer;

/* One round trip.  FPC_INVALID when the answer is not one of the poll statement, or the session is not READ
 * COMMITTED; then the answer is clear already. */
fpc_status fpc_feed_ask(fpc_conn *conn, const fpc_statement *poll, const char *position,
                        fpc_deadline deadline, fpc_feed_answer *answer, fpc_error *err);
void fpc_feed_answer_clear(fpc_feed_answer *answer);

typedef struct fpc_feed_change {
    const char *space; /* NULL: every namespace */
    size_t space_length;
    const char *keys; /* a bytea[] (see feed_keys.h); NULL: every key */
    size_t keys_length;
} fpc_feed_change;

int fpc_feed_answer_rows(const fpc_feed_answer *answer);
/* False: this row is no change. */
bool fpc_feed_answer_change(const fpc_feed_answer *answer, int row, fpc_feed_change *out);

/* The first two numbers of a position, as a text that is cut to `size`. */
void fpc_feed_bounds(const char *position, char *out, size_t size);

/* Whether the server's transactions go back from one snapshot to a later one: it is another server, or was
 * restored. */
bool fpc_feed_goes_back(const char *position, const char *later);

#endif
