/* filter_simd_test.c -- every way of looking up a key, or many at once, gives what the portable steps give.
 */
#include "filter_compact.h"
#include "filter_internal.h"
#include "filter_simd.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool compact; /* the layout of the filters */
static uint64_t state = 1;

static uint64_t rnd(void) {
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static const uint64_t EDGES[] = {0, 1, UINT32_MAX, UINT64_C(1) << 32, UINT64_MAX - 1, UINT64_MAX};
#define EDGE_COUNT (sizeof EDGES / sizeof *EDGES)

static void make_hashes(uint64_t *hashes, size_t count) {
    for (size_t i = 0; i < count; i++) hashes[i] = i < EDGE_COUNT ? EDGES[i] : rnd();
}

static void compare_with_single(const fpc_simd_way *way, const fpc_table *table, size_t count) {
    fpc_filter_hasher hasher = {.seed = {rnd(), rnd()}};
    uint64_t hashes[FPC_BATCH], mixed[FPC_BATCH];
    bool found[FPC_BATCH];
    fpc_print prints[FPC_BATCH];
    fpc_filter_hasher_init(&hasher);
    make_hashes(hashes, count);
    way->hash(&hasher, hashes, count, mixed);
    for (size_t i = 0; i < count; i++) assert_int_equal(mixed[i], fpc_filter_hash_word(&hasher, hashes[i]));
    way->prints(table, hashes, count, prints);
    (compact ? way->has_compact : way->has)(table, hashes, count, found);
    for (size_t i = 0; i < count; i++) {
        fpc_print print = fpc_table_print(table, hashes[i]);
        assert_int_equal(prints[i].first, print.first);
        assert_int_equal(prints[i].second, print.second);
        assert_int_equal(prints[i].tag, print.tag);
        uint64_t match = compact ? fpc_compact_match(table, print) : fpc_table_match(table, print);
        assert_int_equal(found[i], match != 0);
    }
}

static void compare_on_table(uint64_t capacity, unsigned bits, unsigned level, uint64_t keys) {
    uint64_t seed[2] = {rnd(), rnd()}, hashes[FPC_BATCH];
    const fpc_table_shape shape = {.capacity = capacity, .bits = bits, .compact = compact};
    fpc_table *table = fpc_table_new(&shape, level, seed);
    assert_non_null(table);
    state = 5; /* the table gets hashes that are asked for later */
    for (uint64_t added = 0; added < keys; added += FPC_BATCH) {
        make_hashes(hashes, FPC_BATCH);
        for (size_t i = 0; i < FPC_BATCH && added + i < keys; i++) fpc_table_add(table, hashes[i]);
    }
    for (unsigned n = 0; fpc_simd(n) != NULL; n++) {
        state = 5;
        for (size_t count = 0; count <= FPC_BATCH; count++) compare_with_single(fpc_simd(n), table, count);
    }
    fpc_table_free(table);
}

static void same_for_all_bits(void **unused) {
    (void)unused;
    for (unsigned bits = 6; bits <= fpc_table_max_bits(compact); bits++) compare_on_table(1000, bits, 0, 900);
}

static void same_for_small_large_and_grown_tables(void **unused) {
    (void)unused;
    compare_on_table(1, 11, 0, 1);
    compare_on_table(1000, 11, 3, 7000);
    compare_on_table(4000000, 11, 0, 100000);        /* fetched early */
    compare_on_table(UINT64_C(3000000000), 6, 0, 8); /* window numbers above 2^31; lazily zeroed */
}

/* The filter asks by its table's match, for hashes and for bytes, held and not held. */
static void compare_finders(uint64_t capacity, unsigned bits, bool grow, uint64_t keys) {
    fpc_filter_options options = {
        .capacity = capacity, .fingerprint_bits = bits, .grow = grow, .compact = compact};
    fpc_filter *filter;
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
    for (uint64_t key = 0; key < keys; key++) {
        const fpc_status added =
            key % 2 ? fpc_filter_add_hash(filter, key) : fpc_filter_add(filter, &key, sizeof key);
        assert_int_equal(added, FPC_OK);
    }
    for (unsigned n = 0; fpc_filter_finders(&filter->shape, n) != NULL; n++) {
        const fpc_filter_finder *finder = fpc_filter_finders(&filter->shape, n);
        for (uint64_t key = 0; key < 3 * keys; key++) {
            bool by_hash = fpc_filter_contains_mixed(filter, fpc_filter_hash_word(&filter->hasher, key));
            bool by_bytes =
                fpc_filter_contains_mixed(filter, fpc_filter_hash_bytes(&filter->hasher, &key, sizeof key));
            assert_true(key >= keys || (key % 2 ? by_hash : by_bytes));
            assert_int_equal(finder->hash(filter, key), by_hash);
            assert_int_equal(finder->bytes(filter, &key, sizeof key), by_bytes);
        }
    }
    fpc_filter_delete(filter);
}

static void finders_agree(void **unused) {
    (void)unused;
    for (unsigned bits = 6; bits <= fpc_table_max_bits(compact); bits++)
        compare_finders(2000, bits, false, 2000);
    compare_finders(1, 11, false, 1);
    compare_finders(300, 11, true, 2000); /* several tables */
    compare_finders(3000000, 9, false, 1000);
}

static void finders_agree_beside_the_overflow(void **unused) {
    (void)unused;
    fpc_filter_options options = {
        .capacity = 100, .fingerprint_bits = fpc_table_max_bits(compact), .compact = compact};
    fpc_filter *filter;
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
    for (int copy = 0; copy < 9; copy++) assert_int_equal(fpc_filter_add_hash(filter, 1), FPC_OK);
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    assert_true(stats.overflow > 0);
    for (unsigned n = 0; fpc_filter_finders(&filter->shape, n) != NULL; n++) {
        assert_true(fpc_filter_finders(&filter->shape, n)->hash(filter, 1));
        assert_false(fpc_filter_finders(&filter->shape, n)->hash(filter, 2));
    }
    fpc_filter_delete(filter);
}

static void the_last_way_is_plain(void **unused) {
    (void)unused;
    unsigned n = 0;
    while (fpc_simd(n + 1) != NULL) n++;
    assert_string_equal(fpc_simd(n)->name, "plain");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_for_all_bits),     cmocka_unit_test(same_for_small_large_and_grown_tables),
        cmocka_unit_test(finders_agree),         cmocka_unit_test(finders_agree_beside_the_overflow),
        cmocka_unit_test(the_last_way_is_plain),
    };
    int failed = cmocka_run_group_tests_name("filter, many at once", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter, many at once, compact", tests, NULL, NULL);
}
