/* filter_threads_test.c -- readers must never miss a present key while the writer moves entries about.
 * In both layouts.  Small filters, nearly full: each add moves several entries, and readers meet the moves
 * often. */
#include "fpcache/filter.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define STEPS 40000
#else
#define STEPS 200000
#endif
#define READERS 2

static bool compact; /* the layout of the filters */

typedef struct shared {
    fpc_filter *filter;
    _Atomic uint64_t present; /* keys 0 ... present - 1 are in the filter, for good */
    _Atomic int stop;
    _Atomic uint64_t denied, asked;
} shared;

static fpc_filter *make(uint64_t capacity, unsigned bits, bool grow) {
    unsigned most = compact ? FPC_FILTER_MAX_COMPACT_BITS : FPC_FILTER_MAX_BITS;
    fpc_filter_options options = {.capacity = capacity,
                                  .fingerprint_bits = bits < most ? bits : most,
                                  .grow = grow,
                                  .compact = compact};
    fpc_filter *filter;
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
    return filter;
}

static void *read_one_by_one(void *arg) {
    shared *s = arg;
    uint64_t denied = 0;
    while (!atomic_load(&s->stop)) {
        uint64_t present = atomic_load(&s->present);
        for (uint64_t key = 0; key < present; key++) denied += !fpc_filter_contains_hash(s->filter, key);
        atomic_fetch_add(&s->asked, present);
    }
    atomic_fetch_add(&s->denied, denied);
    return NULL;
}

static void *read_in_batches(void *arg) {
    shared *s = arg;
    uint64_t denied = 0, keys[200];
    bool found[200];
    while (!atomic_load(&s->stop)) {
        uint64_t present = atomic_load(&s->present);
        for (uint64_t at = 0; at < present; at += 200) {
            uint64_t n = present - at < 200 ? present - at : 200;
            for (uint64_t i = 0; i < n; i++) keys[i] = at + i;
            denied += n - fpc_filter_contains_hash_many(s->filter, keys, n, found);
        }
        fpc_filter_stats stats;
        fpc_filter_get_stats(s->filter, &stats); /* readers may ask this too */
        atomic_fetch_add(&s->asked, present);
    }
    atomic_fetch_add(&s->denied, denied);
    return NULL;
}

static void run(shared *s, void (*write)(shared *)) {
    pthread_t readers[READERS];
    assert_int_equal(pthread_create(&readers[0], NULL, read_one_by_one, s), 0);
    assert_int_equal(pthread_create(&readers[1], NULL, read_in_batches, s), 0);
    while (atomic_load(&s->asked) == 0 && atomic_load(&s->present) > 0) sched_yield(); /* they run */
    write(s);
    atomic_store(&s->stop, 1);
    for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
    assert_int_equal(s->denied, 0);
    assert_true(s->asked > 0);
    fpc_filter_delete(s->filter);
}

/* Fills up and empties the room left beside the present keys, again and again. */
static void churn(shared *s) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(s->filter, &stats);
    uint64_t room = stats.capacity - stats.size, first = UINT64_C(1) << 40, last = first;
    for (int step = 0; step < STEPS; step++) {
        if (last - first < room) {
            assert_int_equal(fpc_filter_add_hash(s->filter, last++), FPC_OK);
        } else {
            for (uint64_t i = 0; i < room / 2; i++) assert_true(fpc_filter_remove_hash(s->filter, first++));
        }
    }
}

static void moves_deny_nothing(uint64_t capacity, unsigned bits) {
    shared s = {.filter = make(capacity, bits, false)};
    uint64_t present = capacity * 8 / 10;
    for (uint64_t key = 0; key < present; key++) assert_int_equal(fpc_filter_add_hash(s.filter, key), FPC_OK);
    atomic_store(&s.present, present);
    run(&s, churn);
}

static void small_filter(void **unused) {
    (void)unused;
    moves_deny_nothing(400, 11);
}

static void wide_fingerprints(void **unused) {
    (void)unused;
    moves_deny_nothing(400, 28); /* nearly every second entry straddles two words */
}

static void narrow_fingerprints_with_overflow(void **unused) {
    (void)unused;
    moves_deny_nothing(700, 6);
}

/* Adds keys that readers then count on; the filter doubles several times.  Waits for the readers now and
 * then, or they would not see it grow. */
static void add_for_good(shared *s) {
    for (uint64_t key = 0; key < STEPS / 20; key++) {
        assert_int_equal(fpc_filter_add_hash(s->filter, key), FPC_OK);
        atomic_store(&s->present, key + 1);
        uint64_t asked = atomic_load(&s->asked);
        while (key % 100 == 0 && atomic_load(&s->asked) == asked) sched_yield();
    }
}

static void growing_filter(void **unused) {
    (void)unused;
    shared s = {.filter = make(300, 11, true)};
    run(&s, add_for_good);
}

/* Copies beyond the four slots of a key go in and out of the stash beside the present ones. */
static void stash_in_and_out(shared *s) {
    for (int step = 0; step < STEPS / 40; step++) {
        for (int copy = 0; copy < 6; copy++) {
            assert_int_equal(fpc_filter_add_hash(s->filter, (uint64_t)(step % 90)), FPC_OK);
        }
        for (int copy = 0; copy < 6; copy++) {
            assert_true(fpc_filter_remove_hash(s->filter, (uint64_t)(step % 90)));
        }
    }
}

static void overflow_comes_and_goes(void **unused) {
    (void)unused;
    shared s = {.filter = make(400, 11, false)};
    for (uint64_t key = 0; key < 100; key++) {
        for (int copy = 0; copy < 3; copy++) fpc_filter_add_hash(s.filter, key);
    }
    atomic_store(&s.present, 100);
    run(&s, stash_in_and_out);
}

/* A present key gets a second copy, which goes again, while other keys come and go: so its last copy sits now
 * in one window or table and now in another, without ever having been moved. */
static void copies_come_and_go(shared *s) {
    uint64_t fillers[64] = {0}, next = UINT64_C(1) << 40, state = 1;
    for (int step = 0; step < STEPS; step++) {
        state = state * UINT64_C(6364136223846793005) + 1;
        uint64_t key = (state >> 33) % 60, filler = (state >> 45) % 64;
        if (fillers[filler] != 0) {
            assert_true(fpc_filter_remove_hash(s->filter, fillers[filler]));
            fillers[filler] = 0;
        } else if (fpc_filter_add_hash(s->filter, next) == FPC_OK) {
            fillers[filler] = next++;
        }
        if (fpc_filter_add_hash(s->filter, key) == FPC_OK)
            assert_true(fpc_filter_remove_hash(s->filter, key));
    }
}

static void copies(uint64_t capacity, bool grow) {
    shared s = {.filter = make(capacity, 28, grow)};
    for (uint64_t key = 0; key < 60; key++) assert_int_equal(fpc_filter_add_hash(s.filter, key), FPC_OK);
    atomic_store(&s.present, 60);
    run(&s, copies_come_and_go);
}

static void copies_in_one_table(void **unused) {
    (void)unused;
    copies(100, false);
}

static void copies_in_several_tables(void **unused) {
    (void)unused;
    copies(16, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_filter),
        cmocka_unit_test(wide_fingerprints),
        cmocka_unit_test(narrow_fingerprints_with_overflow),
        cmocka_unit_test(growing_filter),
        cmocka_unit_test(overflow_comes_and_goes),
        cmocka_unit_test(copies_in_one_table),
        cmocka_unit_test(copies_in_several_tables),
    };
    int failed = cmocka_run_group_tests_name("filter, threads", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter, threads, compact", tests, NULL, NULL);
}
