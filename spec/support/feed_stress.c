/* feed_stress.c -- a C host with many threads on one feed, for spec/feed_threads_spec.lua; build it with
 * -DFPC_TSAN=ON to have every access watched.
 *
 *   feed_stress SECONDS|fork URL SCHEMA, then the texts of statements.feed(): session poll rotate
 *               begin_incarnation load_session load_count load_begin load_incarnation load_declare load_fetch
 *
 * Writers insert and delete keys of their own through a pool, announce them, and check at once that what they
 * wrote is not denied and that a stamp taken before is not current any more.  Lookups go on beside, others
 * open and close the feed, and one thread says "everything changed" now and then, so that filters come and
 * go.  The exit code is 0 when no promise was broken.  With "fork" it asks instead what a child of fork(2) is
 * told. */
#include "fpcache/pool.h"
#include "fpcache/terms.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WRITERS 3
#define LOOKERS 2
#define KEYS    200 /* of each writer */

static const char *schema;
static fpc_feed_options options = {.interval_s = 0.005,
                                   .max_staleness_s = 2,
                                   .connect_timeout_s = 5,
                                   .filter = true,
                                   .filter_capacity = 100,
                                   .prepared = true};
static fpc_conninfo *info;
static fpc_pool *pool;
static fpc_feed *feed;
static uint64_t seed;
static atomic_bool over;
static atomic_int denied, old_stamps, failures;
static atomic_ulong writes, looks, absents;

static void run(const fpc_statement *statement, const char *key) {
    fpc_params params;
    fpc_error err;
    fpc_result *result = NULL;
    fpc_params_init(&params);
    fpc_params_bytes(&params, key, strlen(key));
    if (fpc_pool_exec(pool, statement, &params, fpc_deadline_in(10), &result, &err) != FPC_OK) {
        fprintf(stderr, "%s\n", err.message);
        atomic_fetch_add(&failures, 1);
    }
    fpc_result_delete(result);
}

static fpc_statement *make(const char *format) {
    static const uint32_t TYPES[] = {FPC_OID_BYTEA};
    char sql[1000];
    snprintf(sql, sizeof sql, format, schema, schema);
    return fpc_statement_new(sql, TYPES, 1, false);
}

static void *write_keys(void *arg) {
    int me = (int)(intptr_t)arg;
    unsigned random = (unsigned)me;
    bool exists[KEYS] = {false};
    fpc_terms terms = {0};
    fpc_statement *insert =
        make("WITH told AS (INSERT INTO %s.fpcache_feed (namespace, keys) VALUES ('', ARRAY[$1])) "
             "INSERT INTO %s.fpcache_entries (key, value) VALUES ($1, 'v') ON CONFLICT DO NOTHING");
    fpc_statement *delete =
        make("WITH told AS (INSERT INTO %s.fpcache_feed (namespace, keys) VALUES ('', ARRAY[$1])) "
             "DELETE FROM %s.fpcache_entries WHERE key = $1");
    while (!atomic_load(&over)) {
        char key[32];
        int i = rand_r(&random) % KEYS;
        snprintf(key, sizeof key, "w%d-%d", me, i);
        uint64_t hash = fpc_feed_hash(seed, key, strlen(key));
        bool absent;
        uint64_t stamp, new_stamp;
        fpc_feed_look(feed, hash, &absent, &stamp);
        if (!fpc_terms_put(&terms, (size_t)i, hash, stamp, FPC_NEVER)) atomic_fetch_add(&failures, 1);
        fpc_terms_hold(&terms, feed, (size_t)i); /* what it sees must not be taken for true later */
        if (exists[i] && absent) atomic_fetch_add(&denied, 1);
        exists[i] = rand_r(&random) % 3 > 0;
        run(exists[i] ? insert : delete, key);
        fpc_feed_wrote(feed, hash);
        fpc_feed_look(feed, hash, &absent, &new_stamp);
        if (exists[i] && absent) atomic_fetch_add(&denied, 1);
        if (stamp != 0 && fpc_feed_is_current(feed, hash, stamp)) atomic_fetch_add(&old_stamps, 1);
        if (stamp != 0 && fpc_terms_hold(&terms, feed, (size_t)i)) atomic_fetch_add(&old_stamps, 1);
        atomic_fetch_add(&writes, 1);
    }
    fpc_terms_clear(&terms);
    fpc_statement_delete(insert);
    fpc_statement_delete(delete);
    return NULL;
}

static void *look(void *arg) {
    unsigned random = 77 + (unsigned)(intptr_t)arg;
    while (!atomic_load(&over)) {
        bool absent;
        uint64_t stamp, hash = fpc_feed_hash(seed, (const char *)&random, sizeof random);
        rand_r(&random);
        fpc_feed_look(feed, hash, &absent, &stamp);
        fpc_feed_is_current(feed, hash, stamp);
        if (absent) atomic_fetch_add(&absents, 1);
        atomic_fetch_add(&looks, 1);
    }
    return NULL;
}

static void pause_ms(int ms) {
    struct timespec time = {.tv_nsec = ms * 1000000L};
    nanosleep(&time, NULL);
}

static void *disturb(void *arg) {
    (void)arg;
    while (!atomic_load(&over)) {
        fpc_feed *same = NULL;
        if (fpc_feed_open(info, schema, &options, &same, NULL) != FPC_OK || same != feed) {
            atomic_fetch_add(&failures, 1);
        }
        fpc_feed_stats stats;
        fpc_feed_get_stats(same, &stats);
        fpc_feed_wait_fresh(same, fpc_deadline_in(0.05), NULL);
        fpc_feed_missed(same, 2000);
        fpc_feed_close(same);
        pause_ms(30);
        fpc_feed_wrote_all(feed);
    }
    return NULL;
}

/* In the child: the parent's feed answers nothing and may be closed; one of its own works. */
static const char *check_child(void) {
    fpc_error err;
    bool absent;
    uint64_t stamp;
    fpc_feed_stats stats;
    fpc_feed_look(feed, 1, &absent, &stamp);
    if (absent || stamp != 0) return "the parent's feed answered";
    fpc_feed_wrote(feed, 1);
    fpc_feed_wrote_all(feed);
    fpc_feed_get_stats(feed, &stats);
    if (stats.feed != FPC_FEED_OFF) return "the parent's feed says that it works";
    if (fpc_feed_wait_fresh(feed, fpc_deadline_in(1), &err) != FPC_CLOSED) return "it could be waited for";
    fpc_feed_close(feed);
    fpc_feed *own = NULL;
    if (fpc_feed_open(info, schema, &options, &own, &err) != FPC_OK || own == feed)
        return "no feed of its own";
    if (fpc_feed_wait_fresh(own, fpc_deadline_in(10), &err) != FPC_OK) return "its own does not work";
    fpc_feed_look(own, 1, &absent, &stamp);
    if (!absent || stamp == 0) return "its own does not answer";
    fpc_feed_close(own);
    return NULL;
}

static int try_fork(void) {
#ifdef __SANITIZE_THREAD__ /* it knows no new threads after a fork of a process with many */
    return 0;
#endif
    pid_t child = fork();
    if (child == 0) {
        const char *failure = check_child();
        if (failure != NULL) fprintf(stderr, "child: %s\n", failure);
        _exit(failure == NULL ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    bool parent_goes_on = fpc_feed_wait_fresh(feed, fpc_deadline_in(10), NULL) == FPC_OK;
    return status == 0 && parent_goes_on ? 0 : 1;
}

/* Whether enough has happened for the counts to tell something. */
static bool was_exercised(void) {
    fpc_feed_stats stats;
    fpc_feed_get_stats(feed, &stats);
    return atomic_load(&writes) > 50 && atomic_load(&absents) > 0 && stats.reloads > 0;
}

int main(int argc, char **argv) {
    if (argc != 14) return 2;
    schema = argv[3];
    options.sql = (fpc_feed_sql){.session = argv[4],
                                 .poll = argv[5],
                                 .rotate = argv[6],
                                 .begin_incarnation = argv[7],
                                 .load_session = argv[8],
                                 .load = {argv[9], argv[10], argv[11], argv[12], argv[13]}};
    fpc_error err;
    info = fpc_conninfo_new();
    if (fpc_conninfo_parse(info, argv[2], &err) != FPC_OK) return 2;
    fpc_pool_options pool_options = {
        .max_connections = WRITERS, .connect_timeout_s = 5, .conn = {.prepared = true}};
    pool = fpc_pool_new(fpc_conninfo_copy(info), &pool_options);
    seed = fpc_feed_seed("", 0);
    if (fpc_feed_open(info, schema, &options, &feed, &err) != FPC_OK ||
        fpc_feed_wait_fresh(feed, fpc_deadline_in(10), &err) != FPC_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 2;
    }
    if (strcmp(argv[1], "fork") == 0) {
        int code = try_fork();
        fpc_feed_close(feed);
        fpc_pool_delete(pool);
        fpc_conninfo_delete(info);
        return code;
    }
    pthread_t threads[WRITERS + LOOKERS + 1];
    int count = 0;
    for (int i = 0; i < WRITERS; i++)
        pthread_create(&threads[count++], NULL, write_keys, (void *)(intptr_t)i);
    for (int i = 0; i < LOOKERS; i++) pthread_create(&threads[count++], NULL, look, (void *)(intptr_t)i);
    pthread_create(&threads[count++], NULL, disturb, NULL);
    fpc_deadline end = fpc_deadline_in(atof(argv[1])), latest = fpc_deadline_in(atof(argv[1]) + 30);
    while (!fpc_deadline_passed(end) || (!was_exercised() && !fpc_deadline_passed(latest))) pause_ms(20);
    atomic_store(&over, true);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    fpc_feed_stats stats;
    fpc_feed_get_stats(feed, &stats);
    bool is_enough = was_exercised();
    fpc_feed_close(feed);
    fpc_pool_delete(pool);
    fpc_conninfo_delete(info);
    printf(
        "%lu writes, %lu looks (%lu absent), %llu polls, %llu loads; denied %d, old stamps %d, failures %d\n",
        writes, looks, absents, (unsigned long long)stats.polls, (unsigned long long)stats.reloads + 1,
        denied, old_stamps, failures);
    return denied == 0 && old_stamps == 0 && failures == 0 && is_enough ? 0 : 1;
}
