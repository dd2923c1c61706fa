/* feed_filter_test.c -- filters that are swapped under lookups, and the stamps.  Built with -DFPC_TSAN=ON it
 * also proves that nothing is read and written at the same time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "feed_filter.h"
#include "feed_stamps.h"

#define WRITERS  3
#define KEYS     20000 /* of each writer */
#define CAPACITY 100   /* so that filters also grow under lookups */

static fpc_feed_filter filter;
static atomic_bool committed[WRITERS][KEYS]; /* the table */
static atomic_int running, denied, loads;

static uint64_t hash_of(int writer, int key) {
    return ((uint64_t)writer * KEYS + (uint64_t)key + 1) * UINT64_C(0x9E3779B97F4A7C15);
}

/* Commits keys and announces them; each must be there from then on, and so must earlier ones. */
static void *write_keys(void *arg) {
    int me = (int)(intptr_t)arg;
    for (int i = 0; i < KEYS; i++) {
        /* A load or more in each quarter, however the scheduler treats the loader. */
        while (atomic_load(&loads) < i / (KEYS / 4)) sched_yield();
        uint64_t hash = hash_of(me, i);
        atomic_store(&committed[me][i], true);
        fpc_feed_filter_add(&filter, &hash, 1);
        for (int back = 0; back <= i && back < 500; back += 50) {
            if (!fpc_feed_filter_may_contain(&filter, hash_of(me, i - back))) atomic_fetch_add(&denied, 1);
        }
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* Loads the table again and again. */
static void *load(void *arg) {
    (void)arg;
    while (atomic_load(&running) > 0) {
        fpc_filter_options options = {.capacity = CAPACITY, .grow = true};
        if (fpc_feed_filter_begin(&filter, &options, NULL) != FPC_OK) return "no filter";
        for (int w = 0; w < WRITERS; w++) {
            for (int i = 0; i < KEYS; i++) {
                uint64_t hash = hash_of(w, i);
                if (atomic_load(&committed[w][i])) fpc_feed_filter_load(&filter, &hash, 1);
            }
        }
        if (!fpc_feed_filter_finish(&filter)) return "given up";
        fpc_feed_filter_tidy(&filter);
        atomic_fetch_add(&loads, 1);
    }
    return NULL;
}

static void announced_key_is_never_denied(void **state) {
    (void)state;
    pthread_t writers[WRITERS], loader;
    fpc_feed_filter_init(&filter);
    atomic_store(&running, WRITERS);
    assert_int_equal(pthread_create(&loader, NULL, load, NULL), 0);
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&writers[i], NULL, write_keys, (void *)(intptr_t)i), 0);
    }
    for (int i = 0; i < WRITERS; i++) pthread_join(writers[i], NULL);
    void *failure;
    pthread_join(loader, &failure);
    assert_null(failure);
    assert_int_equal(atomic_load(&denied), 0);
    assert_true(atomic_load(&loads) > 2);
    fpc_feed_filter_tidy(&filter);
    assert_null(filter.dropped); /* with no lookup under way everything is freed */
    fpc_feed_filter_destroy(&filter);
}

static void without_a_filter_everything_may_exist(void **state) {
    (void)state;
    fpc_filter_options options = {.capacity = CAPACITY};
    uint64_t one = 1, two = 2;
    fpc_feed_filter_init(&filter);
    assert_true(fpc_feed_filter_may_contain(&filter, 1));
    assert_false(fpc_feed_filter_finish(&filter));
    assert_int_equal(fpc_feed_filter_load(&filter, &one, 1), FPC_NOMEM);
    assert_int_equal(fpc_feed_filter_begin(&filter, &options, NULL), FPC_OK);
    assert_true(fpc_feed_filter_may_contain(&filter, 1)); /* not whole yet */
    fpc_feed_filter_add(&filter, &one, 1);
    assert_true(fpc_feed_filter_finish(&filter));
    assert_true(fpc_feed_filter_may_contain(&filter, one));
    assert_false(fpc_feed_filter_may_contain(&filter, two));
    fpc_feed_filter_drop_all(&filter);
    assert_true(fpc_feed_filter_may_contain(&filter, two));
    fpc_feed_filter_destroy(&filter);
}

static void full_filter_is_given_up(void **state) {
    (void)state;
    fpc_filter_options options = {.capacity = CAPACITY}; /* that does not grow */
    fpc_feed_filter_init(&filter);
    assert_int_equal(fpc_feed_filter_begin(&filter, &options, NULL), FPC_OK);
    assert_true(fpc_feed_filter_finish(&filter));
    for (uint64_t hash = 1; hash < 10 * CAPACITY; hash++) {
        uint64_t mixed = hash * UINT64_C(0x9E3779B97F4A7C15);
        fpc_feed_filter_add(&filter, &mixed, 1);
        assert_true(fpc_feed_filter_may_contain(&filter, mixed));
    }
    assert_false(fpc_feed_filter_is_loaded(&filter));
    fpc_feed_filter_destroy(&filter);
}

static void filter_in_a_lookup_is_not_freed(void **state) {
    (void)state;
    fpc_filter_options options = {.capacity = CAPACITY};
    fpc_feed_filter_init(&filter);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(fpc_feed_filter_begin(&filter, &options, NULL), FPC_OK);
        assert_true(fpc_feed_filter_finish(&filter));
    }
    assert_non_null(filter.dropped);
    atomic_fetch_add(&filter.shards[7].readers, 1); /* a lookup that sleeps */
    fpc_feed_filter_tidy(&filter);
    assert_non_null(filter.dropped);
    atomic_fetch_sub(&filter.shards[7].readers, 1);
    atomic_fetch_add(&filter.shards[3].readers, 1); /* one that began after the swap */
    fpc_feed_filter_tidy(&filter);
    assert_null(filter.dropped);
    atomic_fetch_sub(&filter.shards[3].readers, 1);
    fpc_feed_filter_destroy(&filter);
}

/* Of one hash. */
static void move(fpc_feed_stamps *stamps, uint64_t hash, int64_t now) {
    fpc_feed_stamps_move(stamps, &hash, 1, now);
}

static void stamps_count_their_moves(void **state) {
    (void)state;
    fpc_feed_stamps *stamps = fpc_feed_stamps_new();
    assert_non_null(stamps);
    uint64_t first = fpc_feed_stamps_moves(stamps), hashes[2] = {7, 8};
    assert_true(first > 0);
    fpc_feed_stamps_move(stamps, hashes, 2, 1);
    uint64_t second = fpc_feed_stamps_moves(stamps);
    assert_true(second > first);
    fpc_feed_stamps_move_all(stamps, 1);
    assert_true(fpc_feed_stamps_moves(stamps) > second);
    free(stamps);
}

static void stamps_know_when_they_moved(void **state) {
    (void)state;
    fpc_feed_stamps *stamps = fpc_feed_stamps_new();
    assert_non_null(stamps);
    fpc_feed_stamps_move_all(stamps, 100);
    assert_false(fpc_feed_stamps_rest_since(stamps, 7, 100)); /* at the same moment: perhaps before */
    assert_true(fpc_feed_stamps_rest_since(stamps, 7, 101));
    move(stamps, 7, 200);
    move(stamps, 7, 150); /* another thread was slower to tell */
    assert_false(fpc_feed_stamps_rest_since(stamps, 7, 200));
    assert_true(fpc_feed_stamps_rest_since(stamps, 7, 201));
    assert_true(fpc_feed_stamps_rest_since(stamps, 8, 101));
    fpc_feed_stamps_move_all(stamps, 300);
    assert_false(fpc_feed_stamps_rest_since(stamps, 7, 250));
    assert_false(fpc_feed_stamps_rest_since(stamps, 8, 250));
    free(stamps);
}

static void stamps_move_and_fit_a_double(void **state) {
    (void)state;
    fpc_feed_stamps *stamps = fpc_feed_stamps_new();
    assert_non_null(stamps);
    uint64_t before = fpc_feed_stamps_get(stamps, 5), other = fpc_feed_stamps_get(stamps, 6);
    assert_true(before > 0);
    move(stamps, 5 + FPC_STAMP_SPOTS * 77, 1); /* the same spot */
    assert_true(fpc_feed_stamps_get(stamps, 5) != before);
    assert_true(fpc_feed_stamps_get(stamps, 6) == other);
    fpc_feed_stamps_move_all(stamps, 1);
    assert_true(fpc_feed_stamps_get(stamps, 6) != other);
    atomic_store(&stamps->epoch, FPC_STAMP_MAX_EPOCH);
    atomic_store(&stamps->counters[5], UINT32_MAX);
    uint64_t most = fpc_feed_stamps_get(stamps, 5);
    assert_true(most < UINT64_C(1) << 53 && (uint64_t)(double)most == most);
    fpc_feed_stamps_move_all(stamps, 1);
    move(stamps, 5, 1);
    assert_true(fpc_feed_stamps_get(stamps, 5) > 0);
    free(stamps);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(announced_key_is_never_denied),
                                       cmocka_unit_test(without_a_filter_everything_may_exist),
                                       cmocka_unit_test(full_filter_is_given_up),
                                       cmocka_unit_test(filter_in_a_lookup_is_not_freed),
                                       cmocka_unit_test(stamps_count_their_moves),
                                       cmocka_unit_test(stamps_know_when_they_moved),
                                       cmocka_unit_test(stamps_move_and_fit_a_double)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
