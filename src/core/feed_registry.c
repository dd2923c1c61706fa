/* feed_registry.c -- one feed for each database, schema and login of the process.
 *
 * After fork(2) the child forgets the parent's feeds without touching them: their thread does not exist
 * there, and a lock may be held for ever.  Their memory is not freed in the child. */
#include "feed_internal.h"

#include <math.h>
#include <string.h>

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static fpc_feed *first;              /* under the lock */
static unsigned registry_generation; /* of fork(2); under the lock */

static void lock_registry(void) {
    unsigned generation = fpc_fork_generation();
    if (registry_generation != generation) {
        pthread_mutex_init(&registry_lock, NULL); /* another thread of the parent may have held it */
        first = NULL;
        registry_generation = generation;
    }
    pthread_mutex_lock(&registry_lock);
}

static fpc_feed *find(const fpc_conninfo *info, const char *schema) {
    fpc_feed *feed = first;
    while (feed != NULL && !(strcmp(feed->schema, schema) == 0 && fpc_conninfo_equal(feed->info, info))) {
        feed = feed->next;
    }
    return feed;
}

static bool is_span(double seconds) {
    return seconds > 0 && seconds < 1e9; /* not NaN */
}

static fpc_status check(const fpc_feed_options *options, fpc_error *err) {
    if (!is_span(options->interval_s))
        return fpc_fail(err, FPC_INVALID, "feed interval: a positive number of seconds");
    if (!is_span(options->max_staleness_s))
        return fpc_fail(err, FPC_INVALID, "max_staleness: a positive number of seconds");
    if (!is_span(options->connect_timeout_s))
        return fpc_fail(err, FPC_INVALID, "connect_timeout: a positive number of seconds");
    if (!(options->filter_fpr >= 0 && options->filter_fpr < 1))
        return fpc_fail(err, FPC_INVALID, "filter_fpr: at least 0 and below 1");
    return FPC_OK;
}

/* What a later opener may still change. */
static void join(fpc_feed *feed, const fpc_feed_options *options) {
    int64_t staleness = (int64_t)(options->max_staleness_s * (double)FPC_NS_PER_SECOND);
    if (staleness < atomic_load(&feed->max_staleness_ns)) atomic_store(&feed->max_staleness_ns, staleness);
    if (options->filter) atomic_store(&feed->want_filter, true);
    fpc_feed_wake(feed);
}

fpc_status fpc_feed_open(const fpc_conninfo *info, const char *quoted_schema, const fpc_feed_options *options,
                         fpc_feed **out, fpc_error *err) {
    fpc_status status = check(options, err);
    if (status != FPC_OK) return status;
    lock_registry();
    fpc_feed *feed = find(info, quoted_schema);
    if (feed != NULL) {
        feed->references++;
        join(feed, options);
    } else {
        status = fpc_feed_make(info, quoted_schema, options, &feed, err);
        if (status == FPC_OK) {
            feed->next = first;
            first = feed;
        }
    }
    pthread_mutex_unlock(&registry_lock);
    if (status == FPC_OK) *out = feed;
    return status;
}

void fpc_feed_close(fpc_feed *feed) {
    if (feed == NULL || fpc_feed_is_inherited(feed)) return;
    lock_registry();
    bool is_last = --feed->references == 0;
    if (is_last) {
        fpc_feed **at = &first;
        while (*at != NULL && *at != feed) at = &(*at)->next;
        *at = feed->next;
    }
    pthread_mutex_unlock(&registry_lock);
    if (is_last) fpc_feed_end(feed);
}
