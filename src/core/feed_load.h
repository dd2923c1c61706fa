/* feed_load.h -- fills the next filter from a snapshot of the table, in steps between polls.
 *
 * Why no key is missed: the next filter exists, and is told of every change, from before the snapshot is
 * taken.  What was committed by then is in the snapshot; what was not is told by a later poll, or by our own
 * writer.
 *
 * Thread rule: the feed's thread. */
#ifndef FPC_FEED_LOAD_H
#define FPC_FEED_LOAD_H

#include "feed_filter.h"
#include "fpcache/conn.h"
#include "fpcache/feed.h"

typedef struct fpc_feed_load {
    /* -- fixed -- */
    const fpc_conninfo *info;
    const fpc_feed_options *options;
    fpc_statement *const *statements; /* FPC_FEED_LOAD_STEPS of them */
    fpc_feed_filter *filter;
    /* -- of the load under way -- */
    fpc_conn *conn; /* NULL: none is */
    int step;       /* what was sent and not yet answered */
    fpc_deadline deadline;
    int64_t began_ns;
    char incarnation[FPC_FEED_INCARNATION_SIZE];
    uint64_t keys;
} fpc_feed_load;

typedef enum fpc_feed_progress {
    FPC_FEED_LOAD_WAITING,
    FPC_FEED_LOAD_DONE,
    FPC_FEED_LOAD_FAILED
} fpc_feed_progress;

/* Connects, until `deadline`, and sends the first step. */
fpc_status fpc_feed_load_begin(fpc_feed_load *load, fpc_deadline deadline, fpc_error *err);
/* Takes answers until `until` or until all is loaded.  DONE: the next filter is whole, for the incarnation in
 * `load`, and only wants fpc_feed_filter_finish(). */
fpc_feed_progress fpc_feed_load_step(fpc_feed_load *load, fpc_deadline until, fpc_error *err);
/* Gives a load up; there may be none. */
void fpc_feed_load_abandon(fpc_feed_load *load);

static inline bool fpc_feed_load_is_under_way(const fpc_feed_load *load) {
    return load->conn != NULL;
}

#endif
