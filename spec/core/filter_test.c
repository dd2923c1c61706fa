/* filter_test.c -- each call of filter.h does what the header says, errors too; in both layouts. */
#include "fpcache/filter.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

static const uint64_t SEED[2] = {1, 2};
static bool compact; /* the layout of the filters */

static fpc_filter *make_seeded(uint64_t capacity, unsigned bits, bool grow, const void *seed) {
    unsigned most = compact ? FPC_FILTER_MAX_COMPACT_BITS : FPC_FILTER_MAX_BITS;
    fpc_filter_options options = {.capacity = capacity,
                                  .fingerprint_bits = bits < most ? bits : most,
                                  .grow = grow,
                                  .compact = compact,
                                  .seed = seed};
    fpc_filter *filter;
    fpc_error err;
    if (fpc_filter_new(&options, &filter, &err) != FPC_OK) fail_msg("%s", err.message);
    return filter;
}

static fpc_filter *make(uint64_t capacity) {
    return make_seeded(capacity, 16, false, SEED);
}

static fpc_filter_stats stats_of(const fpc_filter *filter) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    return stats;
}

static void fill(fpc_filter *filter, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) assert_int_equal(fpc_filter_add_hash(filter, i), FPC_OK);
}

static void expect_all(const fpc_filter *filter, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) assert_true(fpc_filter_contains_hash(filter, i));
}

/* --- Options --- */

static void refuse(fpc_filter_options options, const char *message) {
    fpc_filter *filter = (fpc_filter *)1;
    fpc_error err;
    assert_int_equal(fpc_filter_new(&options, &filter, &err), FPC_INVALID);
    assert_string_equal(err.message, message);
    assert_null(filter);
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_INVALID);
}

static void bad_options_are_refused(void **state) {
    (void)state;
    refuse((fpc_filter_options){.capacity = 0}, "capacity must be 1 to 3900000000");
    refuse((fpc_filter_options){.capacity = UINT64_MAX}, "capacity must be 1 to 3900000000");
    refuse((fpc_filter_options){.capacity = FPC_FILTER_MAX_CAPACITY + 1}, "capacity must be 1 to 3900000000");
    refuse((fpc_filter_options){.capacity = 9, .fpr = 0.01, .fingerprint_bits = 8},
           "give fpr or fingerprint_bits, not both");
    refuse((fpc_filter_options){.capacity = 9, .fingerprint_bits = 5}, "fingerprint_bits must be 6 to 28");
    refuse((fpc_filter_options){.capacity = 9, .fingerprint_bits = 29}, "fingerprint_bits must be 6 to 28");
    refuse((fpc_filter_options){.capacity = 9, .fpr = 1}, "fpr must be between 0 and 1");
    refuse((fpc_filter_options){.capacity = 9, .fpr = -0.1}, "fpr must be between 0 and 1");
    refuse((fpc_filter_options){.capacity = 9, .fpr = NAN}, "fpr must be between 0 and 1");
    refuse((fpc_filter_options){.capacity = 9, .fpr = 1e-9}, "fpr must be at least 1.4e-08");
    refuse((fpc_filter_options){.capacity = 9, .fingerprint_bits = 16, .compact = true},
           "fingerprint_bits must be 6 to 15 in a compact filter");
    refuse((fpc_filter_options){.capacity = 9, .fpr = 0.0002, .compact = true},
           "fpr must be at least 0.00024 in a compact filter");
}

static void memory_may_be_refused(void **state) {
    (void)state;
    if (compact) return; /* the same code, and a narrower table takes more keys and longer */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their shadow memory does not fit under a limit */
#else
    struct rlimit old, low = {.rlim_cur = (rlim_t)32 << 20};
    fpc_filter *small = make_seeded(500000, 28, true, SEED), *filter = (fpc_filter *)1;
    fpc_error err;
    fpc_filter_options options = {.capacity = 3000000000, .fingerprint_bits = 16};
    assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
    low.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_AS, &low), 0);
    assert_int_equal(fpc_filter_new(&options, &filter, &err), FPC_NOMEM);
    assert_null(filter);
    assert_string_equal(err.message, "filter");
    uint64_t added = 0; /* growth ends in the same way, and what is there stays */
    while (fpc_filter_add_hash(small, added) == FPC_OK) added++;
    assert_int_equal(fpc_filter_add_hash(small, added), FPC_NOMEM);
    assert_int_equal(stats_of(small).size, added);
    assert_int_equal(stats_of(small).full_adds, 0);
    assert_int_equal(fpc_filter_copy(small, &filter, &err), FPC_NOMEM);
    assert_null(filter);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    expect_all(small, 0, added);
    fpc_filter_delete(small);
#endif
}

static void seeds_decide(void **state) {
    (void)state;
    fpc_filter *a = make(1000), *b = make(1000), *random = make_seeded(1000, 16, false, NULL),
               *other = make_seeded(1000, 16, false, NULL);
    size_t len = fpc_filter_save_size(a);
    char *saved[4] = {malloc(len), malloc(len), malloc(len), malloc(len)};
    fpc_filter *filters[4] = {a, b, random, other};
    for (int i = 0; i < 4; i++) {
        fill(filters[i], 0, 500);
        fpc_filter_save(filters[i], saved[i]);
        fpc_filter_delete(filters[i]);
    }
    assert_memory_equal(saved[0], saved[1], len);
    assert_memory_not_equal(saved[0], saved[2], len);
    assert_memory_not_equal(saved[2], saved[3], len);
    for (int i = 0; i < 4; i++) free(saved[i]);
}

/* --- Keys --- */

static void byte_strings_of_any_length(void **state) {
    (void)state;
    fpc_filter *filter = make(1000);
    static char text[700];
    memset(text, 'x', sizeof text);
    for (size_t len = 0; len < sizeof text; len++) {
        assert_false(
            fpc_filter_contains(filter, text, len)); /* 16 bits: this seed has no false positive here */
        assert_int_equal(fpc_filter_add(filter, text, len), FPC_OK);
        assert_true(fpc_filter_contains(filter, text, len));
    }
    assert_int_equal(fpc_filter_add(filter, "a\0b", 3), FPC_OK);
    assert_false(fpc_filter_contains(filter, "a\0c", 3));
    for (size_t len = 0; len < sizeof text; len++) assert_true(fpc_filter_remove(filter, text, len));
    assert_true(fpc_filter_remove(filter, "a\0b", 3));
    assert_int_equal(stats_of(filter).size, 0);
    fpc_filter_delete(filter);
}

static void each_add_is_a_copy(void **state) {
    (void)state;
    fpc_filter *filter = make(100000);
    for (int i = 0; i < 100000; i++) assert_int_equal(fpc_filter_add(filter, "key", 3), FPC_OK);
    assert_int_equal(fpc_filter_add(filter, "key", 3), FPC_FULL);
    assert_int_equal(stats_of(filter).size, 100000);
    assert_int_equal(stats_of(filter).overflow, compact ? 99992 : 99996);
    assert_true(stats_of(filter).bytes < 300000); /* copies are counted, not stored */
    for (int i = 0; i < 100000; i++) {
        assert_true(fpc_filter_contains(filter, "key", 3));
        assert_true(fpc_filter_remove(filter, "key", 3));
    }
    assert_false(fpc_filter_contains(filter, "key", 3));
    assert_false(fpc_filter_remove(filter, "key", 3));
    assert_int_equal(stats_of(filter).overflow, 0);
    fpc_filter_delete(filter);
}

static void add_if_absent_adds_once(void **state) {
    (void)state;
    fpc_filter *filter = make(2);
    bool added = false;
    assert_int_equal(fpc_filter_add_if_absent(filter, "a", 1, &added), FPC_OK);
    assert_true(added);
    assert_int_equal(fpc_filter_add_if_absent(filter, "a", 1, &added), FPC_OK);
    assert_false(added);
    assert_int_equal(fpc_filter_add_hash_if_absent(filter, 7, &added), FPC_OK);
    assert_true(added);
    assert_int_equal(fpc_filter_add_hash_if_absent(filter, 7, NULL), FPC_OK); /* full, but it is there */
    assert_int_equal(fpc_filter_add_hash_if_absent(filter, 8, &added), FPC_FULL);
    assert_false(added);
    assert_int_equal(stats_of(filter).size, 2);
    assert_int_equal(stats_of(filter).full_adds, 1);
    fpc_filter_delete(filter);
}

static void full_changes_nothing(void **state) {
    (void)state;
    fpc_filter *filter = make(5000);
    fill(filter, 0, 5000);
    size_t len = fpc_filter_save_size(filter);
    char *before = malloc(len), *after = malloc(len);
    fpc_filter_save(filter, before);
    for (uint64_t i = 0; i < 1000; i++) assert_int_equal(fpc_filter_add_hash(filter, 1000000 + i), FPC_FULL);
    assert_int_equal(stats_of(filter).full_adds, 1000);
    assert_int_equal(fpc_filter_save_size(filter), len);
    fpc_filter_save(filter, after);
    memset(before + 40, 0, 8); /* the count of full adds */
    memset(after + 40, 0, 8);
    assert_memory_equal(before, after, len - 8); /* without the checksum */
    free(before);
    free(after);
    fpc_filter_delete(filter);
}

static void clear_empties(void **state) {
    (void)state;
    fpc_filter *filter = make_seeded(100, 12, true, SEED);
    fill(filter, 0, 1000);
    for (int i = 0; i < 9; i++) fpc_filter_add_hash(filter, 3);
    uint64_t capacity = stats_of(filter).capacity;
    fpc_filter_clear(filter);
    for (uint64_t i = 0; i < 1000; i++) assert_false(fpc_filter_contains_hash(filter, i));
    assert_int_equal(stats_of(filter).size, 0);
    assert_int_equal(stats_of(filter).overflow, 0);
    assert_int_equal(stats_of(filter).capacity, capacity);
    fill(filter, 0, capacity);
    assert_int_equal(stats_of(filter).capacity, capacity);
    expect_all(filter, 0, capacity);
    fpc_filter_delete(filter);
}

static void growth_doubles(void **state) {
    (void)state;
    fpc_filter *filter = make_seeded(1000, 11, true, SEED);
    fill(filter, 0, 1000);
    assert_int_equal(stats_of(filter).tables, 1);
    double before = stats_of(filter).estimated_fpr;
    fill(filter, 1000, 31000);
    fpc_filter_stats stats = stats_of(filter);
    assert_int_equal(stats.tables, 5);
    assert_int_equal(stats.capacity, 31000);
    assert_int_equal(stats.full_adds, 0);
    assert_true(stats.estimated_fpr < 2 * before); /* each table has one bit more: e (1 + 1/2 + 1/4 ...) */
    expect_all(filter, 0, 31000);
    fpc_filter_delete(filter);
}

/* --- Batches --- */

static void batches_answer_like_single_calls(void **state) {
    static const unsigned BITS[] = {6, 7, 11, 12, 16, 28};
    static const uint64_t SIZES[] = {0, 1, 7, 8, 9, 63, 64, 65, 1000};
    (void)state;
    uint64_t keys[1000];
    bool found[1001];
    for (size_t b = 0; b < sizeof BITS / sizeof *BITS; b++) {
        for (int grow = 0; grow < 2; grow++) {
            fpc_filter *filter = make_seeded(grow ? 100 : 3000, BITS[b], grow, SEED);
            fill(filter, 0, 3000);
            for (size_t s = 0; s < sizeof SIZES / sizeof *SIZES; s++) {
                size_t n = SIZES[s], hits = 0;
                for (size_t i = 0; i < n; i++) keys[i] = (i * 7 + s * 1000) % 6000;
                found[n] = 77;
                size_t said = fpc_filter_contains_hash_many(filter, keys, n, found);
                for (size_t i = 0; i < n; i++) {
                    assert_int_equal(found[i], fpc_filter_contains_hash(filter, keys[i]));
                    hits += found[i];
                }
                assert_int_equal(said, hits);
                assert_int_equal(found[n], 1); /* nothing is written behind (77 became true) */
            }
            fpc_filter_delete(filter);
        }
    }
}

static void batches_of_large_tables(void **state) { /* these are prefetched */
    (void)state;
    enum { COUNT = 4000000 };
    uint64_t *keys = malloc(COUNT * sizeof *keys);
    bool *found = malloc(COUNT);
    fpc_filter *filter = make(COUNT);
    fpc_status status;
    for (size_t i = 0; i < COUNT; i++) keys[i] = i;
    assert_int_equal(fpc_filter_add_hash_many(filter, keys, COUNT, &status), COUNT);
    assert_int_equal(status, FPC_OK);
    assert_int_equal(fpc_filter_contains_hash_many(filter, keys, COUNT, found), COUNT);
    for (size_t i = 0; i < COUNT; i++) keys[i] += COUNT;
    size_t hits = fpc_filter_contains_hash_many(filter, keys, COUNT, found);
    for (size_t i = 0; i < COUNT; i++) hits -= fpc_filter_contains_hash(filter, keys[i]);
    assert_int_equal(hits, 0);
    free(keys);
    free(found);
    fpc_filter_delete(filter);
}

static void batches_of_strings(void **state) {
    (void)state;
    const void *keys[300];
    size_t lens[300];
    char text[300][8];
    bool found[300];
    fpc_status status = FPC_CLOSED;
    fpc_filter *filter = make(200);
    for (int i = 0; i < 300; i++) {
        lens[i] = (size_t)snprintf(text[i], sizeof text[i], "k%d", i);
        keys[i] = text[i];
    }
    assert_int_equal(fpc_filter_add_many(filter, keys, lens, 150, &status), 150);
    assert_int_equal(status, FPC_OK);
    assert_int_equal(fpc_filter_contains_many(filter, keys, lens, 300, found),
                     150); /* no false positive here */
    for (int i = 0; i < 300; i++) assert_int_equal(found[i], i < 150);
    assert_int_equal(fpc_filter_add_many(filter, keys + 150, lens + 150, 150, &status),
                     50); /* then it is full */
    assert_int_equal(status, FPC_FULL);
    assert_int_equal(fpc_filter_add_many(filter, keys, lens, 1, NULL), 0);
    assert_int_equal(fpc_filter_add_many(filter, keys, lens, 0, &status), 0);
    assert_int_equal(status, FPC_OK);
    assert_int_equal(stats_of(filter).size, 200);
    fpc_filter_delete(filter);
}

/* --- Copy and union --- */

static void copies_are_independent(void **state) {
    (void)state;
    fpc_filter *filter = make_seeded(500, 12, true, SEED), *copy;
    fill(filter, 0, 2000);
    for (int i = 0; i < 10; i++) fpc_filter_add_hash(filter, 5);
    assert_int_equal(fpc_filter_copy(filter, &copy, NULL), FPC_OK);
    assert_int_equal(stats_of(copy).size, 2010);
    assert_int_equal(stats_of(copy).overflow, stats_of(filter).overflow);
    fpc_filter_clear(filter);
    expect_all(copy, 0, 2000);
    for (int i = 0; i < 11; i++) assert_true(fpc_filter_remove_hash(copy, 5));
    assert_int_equal(stats_of(filter).size, 0);
    fpc_filter_delete(filter);
    fpc_filter_delete(copy);
}

static void union_keeps_everything(void **state) {
    (void)state;
    fpc_filter *a = make(3000), *b;
    assert_int_equal(fpc_filter_new_like(a, &b, NULL), FPC_OK);
    fill(a, 0, 1500);
    fill(b, 1000, 2490);
    for (int i = 0; i < 10; i++) fpc_filter_add_hash(b, 2000);
    assert_int_equal(fpc_filter_union(a, b, NULL), FPC_OK);
    assert_int_equal(stats_of(a).size, 3000);
    expect_all(a, 0, 2490);
    for (uint64_t i = 1000; i < 1500; i++) assert_true(fpc_filter_remove_hash(a, i)); /* one of two copies */
    expect_all(a, 0, 2490);
    for (int i = 0; i < 11; i++) assert_true(fpc_filter_remove_hash(a, 2000));
    assert_false(fpc_filter_contains_hash(a, 2000));
    assert_int_equal(stats_of(b).size, 1500);
    fpc_filter_delete(a);
    fpc_filter_delete(b);
}

static void union_says_why_not(void **state) {
    (void)state;
    fpc_error err;
    fpc_filter *a = make(100), *b = make_seeded(100, 16, false, NULL), *c = make(101),
               *d = make_seeded(100, 12, false, SEED), *e = make(100);
    compact = !compact;
    fpc_filter *other = make_seeded(100, 12, false, SEED);
    compact = !compact;
    fill(a, 0, 60);
    fill(e, 0, 41);
    assert_int_equal(fpc_filter_union(a, b, &err), FPC_INVALID);
    assert_string_equal(err.message, "the filters have different seeds: make one like the other");
    assert_int_equal(fpc_filter_union(a, c, &err), FPC_INVALID);
    assert_string_equal(err.message, "the filters differ in capacity, fingerprint bits or compactness");
    assert_int_equal(fpc_filter_union(a, d, &err), FPC_INVALID);
    assert_int_equal(fpc_filter_union(d, other, &err), FPC_INVALID);
    assert_int_equal(fpc_filter_union(a, e, &err), FPC_FULL);
    assert_string_equal(err.message, "both filters together exceed the capacity");
    assert_int_equal(fpc_filter_union(a, a, &err), FPC_FULL);
    assert_int_equal(stats_of(a).size, 60);
    assert_int_equal(fpc_filter_union(e, e, &err), FPC_OK);
    assert_int_equal(stats_of(e).size, 82);
    fpc_filter *all[] = {a, b, c, d, e, other};
    for (int i = 0; i < 6; i++) fpc_filter_delete(all[i]);
}

static void union_of_grown_filters(void **state) {
    (void)state;
    for (uint64_t mine = 0; mine <= 1600; mine += 400) {
        for (uint64_t theirs = 0; theirs <= 1600; theirs += 400) {
            fpc_filter *a = make_seeded(100, 8, true, SEED), *b;
            assert_int_equal(fpc_filter_new_like(a, &b, NULL), FPC_OK);
            fill(a, 0, mine);
            fill(b, 5000, 5000 + theirs);
            assert_int_equal(fpc_filter_union(a, b, NULL), FPC_OK);
            assert_int_equal(stats_of(a).size, mine + theirs);
            expect_all(a, 0, mine);
            expect_all(a, 5000, 5000 + theirs);
            /* and whatever was removed, the rest stays */
            for (uint64_t i = 0; i < theirs; i++) {
                assert_true(fpc_filter_remove_hash(a, 5000 + i));
                if (i % 100 == 0) expect_all(a, 5001 + i, 5000 + theirs);
            }
            expect_all(a, 0, mine);
            for (uint64_t i = 0; i < mine; i++) assert_true(fpc_filter_remove_hash(a, i));
            assert_int_equal(stats_of(a).size, 0);
            fpc_filter_delete(a);
            fpc_filter_delete(b);
        }
    }
}

static void tables_are_limited(void **state) {
    (void)state;
    fpc_filter *a = make_seeded(1, 28, true, SEED), *b;
    fpc_error err;
    assert_int_equal(fpc_filter_new_like(a, &b, NULL), FPC_OK);
    fill(a, 0, 1);
    fill(b, 0, 1);
    fpc_status status = FPC_OK;
    for (int i = 0; i < 100 && status == FPC_OK; i++) status = fpc_filter_union(a, b, &err);
    assert_int_equal(status, FPC_FULL); /* each union put one more table beside the others */
    assert_int_equal(stats_of(a).tables, 64);
    assert_int_equal(stats_of(a).size, 64);
    assert_int_equal(fpc_filter_add_hash(a, 9), FPC_FULL);
    fpc_filter_delete(a);
    fpc_filter_delete(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_options_are_refused),
        cmocka_unit_test(memory_may_be_refused),
        cmocka_unit_test(seeds_decide),
        cmocka_unit_test(byte_strings_of_any_length),
        cmocka_unit_test(each_add_is_a_copy),
        cmocka_unit_test(add_if_absent_adds_once),
        cmocka_unit_test(full_changes_nothing),
        cmocka_unit_test(clear_empties),
        cmocka_unit_test(growth_doubles),
        cmocka_unit_test(batches_answer_like_single_calls),
        cmocka_unit_test(batches_of_large_tables),
        cmocka_unit_test(batches_of_strings),
        cmocka_unit_test(copies_are_independent),
        cmocka_unit_test(union_keeps_everything),
        cmocka_unit_test(union_says_why_not),
        cmocka_unit_test(union_of_grown_filters),
        cmocka_unit_test(tables_are_limited),
    };
    int failed = cmocka_run_group_tests_name("filter", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter, compact", tests, NULL, NULL);
}
