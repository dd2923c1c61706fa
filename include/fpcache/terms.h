/* terms.h -- when copies of values may still be given out: what a near cache asks at each of its hits.
 *
 * Words of this header, beside those of feed.h:
 *   slot   the number of a copy, small, given by who keeps the copy, and used again for another
 *   terms  the spot and the stamp of the copy's key, and the moment when its life ends
 *
 * Ownership: the memory is the caller's who clears it, 32 bytes for each slot up to the highest that was put.
 * A zeroed fpc_terms has no slot.
 * Thread rule: one thread at a time for each fpc_terms; the feed goes on beside it. */
#ifndef FPCACHE_TERMS_H
#define FPCACHE_TERMS_H

#include "fpcache/feed.h"

typedef struct fpc_term {
    fpc_deadline ends; /* on the monotonic clock */
    uint64_t stamp;
    uint64_t spot;
    uint64_t seen; /* of fpc_terms_hold() */
} fpc_term;

typedef struct fpc_terms {
    fpc_term *of;  /* by slot */
    size_t room;   /* slots */
    uint64_t held; /* how often fpc_terms_hold() was true: the hits */
} fpc_terms;

/* The terms of a new copy, in place of those that the slot had.  `stamp` was taken before the value was asked
 * for.  False when there is no memory: then the slot has those that it had. */
bool fpc_terms_put(fpc_terms *terms, size_t slot, uint64_t hash, uint64_t stamp, fpc_deadline ends);

/* Whether a copy may be given out: its end has not come (which may come FPC_CLOCK_COARSE_LAG early), the feed
 * is fresh and the stamp is what it was.  False for a slot that was never put, and by no feed (NULL). */
bool fpc_terms_hold(fpc_terms *terms, const fpc_feed *feed, size_t slot);

/* Frees all; may be used again. */
void fpc_terms_clear(fpc_terms *terms);

#endif
