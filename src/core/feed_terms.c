/* feed_terms.c -- the terms of copies, and whether they hold.
 *
 * The order of reading is that of every answer (see feed.c): `known_until` first.  The count of all moves
 * comes before the stamp, so that a stamp that was compared at a count need not be compared again while the
 * count is the same: it is a line of memory for itself. */
#include "feed_internal.h"
#include "fpcache/terms.h"

#include <stdlib.h>

#define FIRST_ROOM 64 /* slots */

static bool make_room(fpc_terms *terms, size_t slot) {
    size_t room = terms->room < FIRST_ROOM ? FIRST_ROOM : terms->room;
    while (room <= slot) {
        if (room > SIZE_MAX / 2 / sizeof *terms->of) return false;
        room *= 2;
    }
    fpc_term *of = realloc(terms->of, room * sizeof *of);
    if (of == NULL) return false;
    for (size_t i = terms->room; i < room; i++) of[i] = (fpc_term){.ends = INT64_MIN}; /* has come */
    terms->of = of;
    terms->room = room;
    return true;
}

bool fpc_terms_put(fpc_terms *terms, size_t slot, uint64_t hash, uint64_t stamp, fpc_deadline ends) {
    if (slot >= terms->room && !make_room(terms, slot)) return false;
    terms->of[slot] = (fpc_term){.ends = ends, .stamp = stamp, .spot = hash};
    return true;
}

bool fpc_terms_hold(fpc_terms *terms, const fpc_feed *feed, size_t slot) {
    if (feed == NULL || slot >= terms->room) return false;
    fpc_term *term = &terms->of[slot];
    int64_t now = fpc_feed_latest_now();
    if (now >= term->ends || !fpc_feed_is_fresh_at(feed, now)) return false;
    uint64_t moves = fpc_feed_stamps_moves(feed->stamps); /* never 0 */
    if (moves != term->seen) {
        if (fpc_feed_stamps_get(feed->stamps, term->spot) != term->stamp) return false;
        term->seen = moves;
    }
    terms->held++;
    return true;
}

void fpc_terms_clear(fpc_terms *terms) {
    free(terms->of);
    *terms = (fpc_terms){0};
}
