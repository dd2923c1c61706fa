/* filter_model_test.c -- a filter against a plain count of each key, by millions of random steps; in both
 * layouts. */
#include "fpcache/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool compact; /* the layout of the filters */
static uint64_t state;

static uint64_t rnd(void) {
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t below(uint64_t n) {
    return (uint64_t)(((unsigned __int128)rnd() * n) >> 64);
}

static fpc_filter *make(uint64_t capacity, unsigned bits, bool grow, uint64_t seed) {
    uint64_t seeds[2] = {seed, ~seed};
    fpc_filter_options options = {
        .capacity = capacity, .fingerprint_bits = bits, .grow = grow, .compact = compact, .seed = seeds};
    fpc_filter *filter;
    fpc_error err;
    if (fpc_filter_new(&options, &filter, &err) != FPC_OK) fail_msg("%s", err.message);
    return filter;
}

static fpc_filter_stats stats_of(const fpc_filter *filter) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    return stats;
}

/* The model: how often each of `universe` keys is held, and the list of the keys held. */
typedef struct model {
    uint64_t universe, size, salt;
    uint8_t *copies;
    uint32_t *held; /* one place a copy */
} model;

static model *model_new(uint64_t universe, uint64_t capacity) {
    model *m = calloc(1, sizeof *m);
    m->universe = universe;
    m->copies = calloc(universe, 1);
    m->held = malloc((capacity + 1) * sizeof *m->held);
    m->salt = rnd() << 32;
    return m;
}

static void model_delete(model *m) {
    free(m->copies);
    free(m->held);
    free(m);
}

static unsigned most_bits(void) {
    return compact ? FPC_FILTER_MAX_COMPACT_BITS : FPC_FILTER_MAX_BITS;
}

static void check_all(const fpc_filter *filter, const model *m) {
    for (uint64_t i = 0; i < m->size; i++) {
        if (!fpc_filter_contains_hash(filter, m->salt + m->held[i])) {
            fail_msg("key %u of %llu is denied", m->held[i], (unsigned long long)m->size);
        }
    }
    assert_int_equal(stats_of(filter).size, m->size);
}

static void add_one(fpc_filter *filter, model *m, uint64_t capacity, uint64_t key) {
    fpc_status status = fpc_filter_add_hash(filter, m->salt + key);
    if (m->size == capacity) {
        assert_int_equal(status, FPC_FULL);
        return;
    }
    assert_int_equal(status, FPC_OK);
    m->held[m->size++] = (uint32_t)key;
    m->copies[key]++;
}

static void remove_one(fpc_filter *filter, model *m) {
    uint64_t at = below(m->size);
    uint32_t key = m->held[at];
    assert_true(fpc_filter_remove_hash(filter, m->salt + key));
    m->held[at] = m->held[--m->size];
    m->copies[key]--;
}

/* Goes to a load, stays there for a while by adding and removing, then to the next one. */
static void run_model(uint64_t capacity, unsigned bits, bool grow, uint64_t seed, uint64_t steps) {
    static const int LOADS[] = {1, 50, 95, 100, 20, 100, 0, 100};
    uint64_t limit = grow ? 6 * capacity : capacity;
    fpc_filter *filter = make(capacity, bits, grow, seed);
    state = seed * 977 + bits;
    model *m = model_new(4 * limit + 10, limit);
    uint64_t highest = grow ? limit + 1 : limit; /* `limit + 1`: FPC_FULL never comes */
    for (size_t phase = 0; phase < sizeof LOADS / sizeof *LOADS; phase++) {
        uint64_t target = limit * (uint64_t)LOADS[phase] / 100;
        while (m->size < target) add_one(filter, m, highest, below(m->universe));
        while (m->size > target) remove_one(filter, m);
        check_all(filter, m);
        for (uint64_t i = 0; i < steps; i++) {
            uint64_t key = below(m->universe);
            if (m->copies[key] > 0) assert_true(fpc_filter_contains_hash(filter, m->salt + key));
            if ((rnd() & 1) != 0 && m->size > 0) {
                remove_one(filter, m);
            } else if (m->copies[key] < 3 && m->size < limit) {
                add_one(filter, m, highest, key);
            } else if (!grow && m->size == limit) {
                add_one(filter, m, highest, key); /* is refused */
            }
        }
        check_all(filter, m);
    }
    model_delete(m);
    fpc_filter_delete(filter);
}

static void test_model(void **unused) {
    static const unsigned BITS[] = {6, 7, 8, 11, 12, 15, 16, 23, 28};
    (void)unused;
    for (size_t b = 0; b < sizeof BITS / sizeof *BITS && BITS[b] <= most_bits(); b++) {
        for (uint64_t seed = 1; seed <= 2; seed++) {
            run_model(20000, BITS[b], false, seed, 40000);
            run_model(997, BITS[b], false, seed, 5000);
            for (uint64_t capacity = 1; capacity < 40; capacity += 1 + capacity / 3) {
                run_model(capacity, BITS[b], false, seed, 300);
            }
        }
    }
}

static void test_model_growing(void **unused) {
    static const unsigned BITS[] = {6, 8, 11, 14, 16, 27};
    (void)unused;
    for (size_t b = 0; b < sizeof BITS / sizeof *BITS && BITS[b] <= most_bits(); b++) {
        for (uint64_t seed = 1; seed <= 2; seed++) {
            run_model(4000, BITS[b], true, seed, 20000);
            run_model(100, BITS[b], true, seed, 3000);
            run_model(1, BITS[b], true, seed, 100);
        }
    }
}

static void test_large(void **unused) {
    (void)unused;
    run_model(400000, 11, false, 4, 100000);
}

/* Every capacity up to 300 is reached by different keys, whatever the seed. */
static void test_capacity_means_capacity(void **unused) {
    (void)unused;
    for (uint64_t capacity = 1; capacity <= 300; capacity++) {
        for (uint64_t seed = 0; seed < 40; seed++) {
            fpc_filter *filter = make(capacity, 6 + (unsigned)(seed % 10), false, seed);
            for (uint64_t i = 0; i < capacity; i++) assert_int_equal(fpc_filter_add_hash(filter, i), FPC_OK);
            assert_int_equal(fpc_filter_add_hash(filter, capacity), FPC_FULL);
            for (uint64_t i = 0; i < capacity; i++) assert_true(fpc_filter_contains_hash(filter, i));
            assert_int_equal(stats_of(filter).full_adds, 1);
            fpc_filter_delete(filter);
        }
    }
}

static void check_fpr(uint64_t capacity, unsigned bits, bool grow, uint64_t fill, uint64_t stride) {
    fpc_filter *filter = make(capacity, bits, grow, bits + stride);
    for (uint64_t i = 0; i < fill; i++) assert_int_equal(fpc_filter_add_hash(filter, i * stride), FPC_OK);
    fpc_filter_stats stats = stats_of(filter);
    /* Enough questions that chance moves the result by 2 % at most, one time in three. */
    uint64_t asked = (uint64_t)(2500 / stats.estimated_fpr), hits = 0;
    if (asked < 1000000) asked = 1000000;
    for (uint64_t i = 0; i < asked; i++) hits += fpc_filter_contains_hash(filter, (fill + i) * stride);
    double measured = (double)hits / (double)asked;
    double ratio = measured / stats.estimated_fpr;
    print_message(
        "%2u bits, %u tables, stride %-10llu stated %.5f %% measured %.5f %% (%.3f), %.3f bits/key, "
        "overflow %llu\n",
        bits, stats.tables, (unsigned long long)stride, 100 * stats.estimated_fpr, 100 * measured, ratio,
        stats.bits_per_key, (unsigned long long)stats.overflow);
    if (ratio < 0.9 || ratio > 1.1) fail_msg("stated %g, measured %g", stats.estimated_fpr, measured);
    fpc_filter_delete(filter);
}

static void test_false_positive_rate(void **unused) {
    (void)unused;
    for (unsigned bits = 6; bits <= 18 && bits <= most_bits(); bits++) {
        check_fpr(1000000, bits, false, 950000, 1);
        if (bits % 4 == 3) check_fpr(1000000, bits, false, 1000000, 1); /* as full as it can be */
    }
    check_fpr(1000000, 11, false, 500000, 1);
    check_fpr(1000000, 11, false, 950000, UINT64_C(1) << 32); /* patterns in the hashes do not matter */
    check_fpr(1000000, 11, false, 950000, 4096);
    check_fpr(1000000, 11, false, 950000, UINT64_C(0x9E3779B97F4A7C15));
    check_fpr(100000, 11, true, 3000000, 1);
    check_fpr(100000, 8, true, 700000, 1);
}

static void test_asked_rate_is_kept(void **unused) {
    static const double RATES[] = {0.05, 0.03, 0.01, 0.0019, 0.001, 3e-4, 1e-6};
    (void)unused;
    for (size_t r = 0; r < sizeof RATES / sizeof *RATES - compact; r++) {
        fpc_filter_options options = {.capacity = 5000, .fpr = RATES[r], .compact = compact};
        fpc_filter *filter;
        assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
        for (uint64_t i = 0; i < 5000; i++) assert_int_equal(fpc_filter_add_hash(filter, i), FPC_OK);
        assert_true(stats_of(filter).estimated_fpr <= RATES[r]);
        assert_true(stats_of(filter).estimated_fpr > RATES[r] / 2.1);
        fpc_filter_delete(filter);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_model_growing),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_capacity_means_capacity),
        cmocka_unit_test(test_false_positive_rate),
        cmocka_unit_test(test_asked_rate_is_kept),
    };
    int failed = cmocka_run_group_tests_name("filter model", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter model, compact", tests, NULL, NULL);
}
