/* feed_terms_test.c -- when copies may be given out, by a clock and a feed of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "feed_internal.h"
#include "fpcache/terms.h"

#include <stdlib.h>
#include <string.h>

#define S         FPC_NS_PER_SECOND
#define LAG       FPC_CLOCK_COARSE_LAG
#define STALENESS (S / 2)
#define END       (2000 * S)

static int64_t now;
static fpc_feed *feed;
static fpc_terms terms;

static int64_t told_time(void) {
    return now;
}

/* A feed that knows all up to now, and a copy in slot 1, of spot 7. */
static int begin(void **state) {
    (void)state;
    fpc_clock_override(told_time);
    now = 1000 * S;
    feed = aligned_alloc(64, (sizeof *feed + 63) / 64 * 64);
    memset(feed, 0, sizeof *feed);
    feed->stamps = fpc_feed_stamps_new();
    feed->fork_generation = fpc_fork_generation();
    atomic_init(&feed->max_staleness_ns, STALENESS);
    atomic_init(&feed->known_until, now);
    terms = (fpc_terms){0};
    assert_true(fpc_terms_put(&terms, 1, 7, fpc_feed_stamp(feed, 7), END));
    return 0;
}

static int finish(void **state) {
    (void)state;
    fpc_terms_clear(&terms);
    free(feed->stamps);
    free(feed);
    fpc_clock_override(NULL);
    return 0;
}

static bool holds(void) {
    return fpc_terms_hold(&terms, feed, 1);
}

static void know_all(void) {
    atomic_store(&feed->known_until, now);
}

static void change(uint64_t hash) {
    fpc_feed_stamps_move(feed->stamps, &hash, 1, now);
}

static void a_copy_holds_until_its_key_changes(void **state) {
    (void)state;
    assert_true(holds());
    change(8);
    assert_true(holds());
    change(7);
    assert_false(holds());
    assert_false(holds());
    assert_int_equal(terms.held, 2);
    assert_true(fpc_terms_put(&terms, 1, 7, fpc_feed_stamp(feed, 7), END));
    assert_true(holds());
    fpc_feed_stamps_move_all(feed->stamps, now);
    assert_false(holds());
    assert_int_equal(terms.held, 3);
}

static void what_was_seen_of_one_copy_is_not_believed_of_the_next(void **state) {
    (void)state;
    uint64_t old = fpc_feed_stamp(feed, 7);
    change(7);
    assert_true(fpc_terms_put(&terms, 1, 7, fpc_feed_stamp(feed, 7), END));
    assert_true(holds());
    assert_true(fpc_terms_put(&terms, 1, 7, old, END));
    assert_false(holds());
}

/* However long nobody ran: no thread has to notice, the clock is read at each question. */
static void nothing_holds_for_longer_than_it_is_known(void **state) {
    (void)state;
    now += STALENESS - LAG - 1;
    assert_true(holds());
    now += 1;
    assert_false(holds());
    know_all();
    assert_true(holds());
    now += 900 * S; /* stopped, and going on */
    assert_false(holds());
    atomic_store(&feed->known_until, FPC_FEED_UNKNOWN);
    assert_false(holds());
}

static void nothing_holds_beyond_its_end(void **state) {
    (void)state;
    now = END - LAG - 1;
    know_all();
    assert_true(holds());
    now += 1;
    assert_false(holds());
    now = 1000000 * S;
    know_all();
    assert_false(holds());
    assert_true(fpc_terms_put(&terms, 1, 7, fpc_feed_stamp(feed, 7), FPC_NEVER));
    assert_true(holds());
}

static void a_childs_copies_do_not_hold_by_the_feed_of_its_parent(void **state) {
    (void)state;
    assert_true(holds());
    feed->fork_generation++; /* as fork(2) makes it differ */
    assert_false(holds());
}

static void what_was_never_put_does_not_hold(void **state) {
    (void)state;
    assert_false(fpc_terms_hold(&terms, feed, 0));
    assert_false(fpc_terms_hold(&terms, feed, 1000000));
    assert_false(fpc_terms_hold(&terms, feed, SIZE_MAX));
    assert_false(fpc_terms_hold(&terms, NULL, 1));
    fpc_terms_clear(&terms);
    assert_false(holds());
}

static void copies_stay_where_they_are_when_there_are_more(void **state) {
    (void)state;
    for (size_t slot = 2; slot < 5000; slot++) {
        assert_true(fpc_terms_put(&terms, slot, slot, fpc_feed_stamp(feed, slot), END));
    }
    change(7);
    change(2500);
    for (size_t slot = 1; slot < 5000; slot++) {
        assert_int_equal(fpc_terms_hold(&terms, feed, slot), slot != 1 && slot != 7 && slot != 2500);
    }
    assert_false(fpc_terms_hold(&terms, feed, 5000));
}

static void without_memory_all_stays_as_it_was(void **state) {
    (void)state;
    assert_false(fpc_terms_put(&terms, SIZE_MAX, 8, 1, END));
    assert_false(fpc_terms_put(&terms, SIZE_MAX / sizeof(fpc_term), 8, 1, END));
    assert_true(holds());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, finish)

int main(void) {
    static const struct CMUnitTest TESTS[] = {
        TEST(a_copy_holds_until_its_key_changes),
        TEST(what_was_seen_of_one_copy_is_not_believed_of_the_next),
        TEST(nothing_holds_for_longer_than_it_is_known),
        TEST(nothing_holds_beyond_its_end),
        TEST(a_childs_copies_do_not_hold_by_the_feed_of_its_parent),
        TEST(what_was_never_put_does_not_hold),
        TEST(copies_stay_where_they_are_when_there_are_more),
        TEST(without_memory_all_stays_as_it_was),
    };
    return cmocka_run_group_tests(TESTS, NULL, NULL);
}
