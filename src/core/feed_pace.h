/* feed_pace.h -- how far apart the feed's polls are while they succeed: close while something happens,
 * further and further apart when nothing does, and never so far that the feed would get stale by it.
 *
 * A pure function of seconds; any thread. */
#ifndef FPC_FEED_PACE_H
#define FPC_FEED_PACE_H

#include <math.h>
#include <stdbool.h>

/* The seconds from the begin of a poll to that of the next; `last_s` is what this said before it, `busy`
 * whether it told a change.  At most a third of `max_staleness_s`, however long `interval_s` is. */
static inline double fpc_feed_pause(double last_s, bool busy, double interval_s, double max_staleness_s) {
    return fmin(busy ? interval_s : last_s * 2, max_staleness_s / 3);
}

#endif
