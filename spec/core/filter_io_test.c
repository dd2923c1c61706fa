/* filter_io_test.c -- save and load: the same everywhere, and no bytes can hurt; in both layouts. */
#include "fpcache/filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#define HEADER         56
#define GOLDEN         UINT64_C(0x2f93c77c20c87176)
#define GOLDEN_COMPACT UINT64_C(0x2b9acb4c9520fb7a)

static bool compact; /* the layout of the filters */

static const uint64_t SEED[2] = {UINT64_C(0x0123456789abcdef), UINT64_C(0xfedcba9876543210)};

typedef struct saved {
    unsigned char *bytes;
    size_t len;
} saved;

static fpc_filter *make(uint64_t capacity, unsigned bits, bool grow) {
    /* Given as bytes, so that the seed is the same on every machine. */
    unsigned char seed[16];
    for (int i = 0; i < 16; i++) seed[i] = (unsigned char)(SEED[i / 8] >> (8 * (i % 8)));
    fpc_filter_options options = {
        .capacity = capacity, .fingerprint_bits = bits, .grow = grow, .compact = compact, .seed = seed};
    fpc_filter *filter;
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
    return filter;
}

static void fill(fpc_filter *filter, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; i++) assert_int_equal(fpc_filter_add_hash(filter, i), FPC_OK);
}

static saved save(const fpc_filter *filter) {
    saved s;
    s.len = fpc_filter_save_size(filter);
    s.bytes = malloc(s.len + 1);
    s.bytes[s.len] = 0xA5;
    fpc_filter_save(filter, s.bytes);
    assert_int_equal(s.bytes[s.len], 0xA5); /* not a byte more */
    return s;
}

/* A filter with several tables and something in the stash. */
static saved save_sample(void) {
    fpc_filter *filter = make(50, 11, true);
    fill(filter, 0, 40);
    for (int i = 0; i < 9; i++) fpc_filter_add_hash(filter, 3);
    fill(filter, 40, 200);
    saved s = save(filter);
    fpc_filter_delete(filter);
    return s;
}

static void reseal(saved *s) {
    uint64_t sum = XXH3_64bits(s->bytes, s->len - 8);
    for (int i = 0; i < 8; i++) s->bytes[s->len - 8 + (size_t)i] = (unsigned char)(sum >> (8 * i));
}

static void what_was_saved_is_loaded(void **state) {
    static const unsigned BITS[] = {6, 11, 15, 16, 28};
    (void)state;
    for (size_t b = 0; b < (compact ? 3 : 5); b++) {
        for (int grow = 0; grow < 2; grow++) {
            fpc_filter *filter = make(700, BITS[b], grow), *loaded;
            fill(filter, 0, grow ? 3000 : 700);
            if (!grow) assert_int_equal(fpc_filter_add_hash(filter, 9999), FPC_FULL);
            saved s = save(filter);
            assert_int_equal(fpc_filter_load(s.bytes, s.len, &loaded, NULL), FPC_OK);
            for (uint64_t i = 0; i < 20000; i++) {
                assert_int_equal(fpc_filter_contains_hash(filter, i), fpc_filter_contains_hash(loaded, i));
            }
            fpc_filter_stats mine, theirs;
            fpc_filter_get_stats(filter, &mine);
            fpc_filter_get_stats(loaded, &theirs);
            theirs.bytes = mine.bytes; /* the overflow may have been larger once */
            theirs.bits_per_key = mine.bits_per_key;
            assert_memory_equal(&mine, &theirs, sizeof mine);
            for (uint64_t i = 0; i < mine.size; i++) assert_true(fpc_filter_remove_hash(loaded, i));
            assert_int_equal(fpc_filter_union(loaded, filter, NULL), FPC_OK); /* same seed */
            free(s.bytes);
            fpc_filter_delete(filter);
            fpc_filter_delete(loaded);
        }
    }
}

/* The format is a promise: these bytes were written as version 2, or 3 if compact, on x86-64.  (Where add()
 * puts a key is no part of it: if that changes, so does GOLDEN, and older bytes still load.) */
static void the_format_stays(void **state) {
    (void)state;
    fpc_filter *filter = make(100, 11, false);
    fill(filter, 0, 20); /* so few that each finds its slot at once */
    assert_int_equal(fpc_filter_add(filter, "a key of twenty byte", 20), FPC_OK);
    saved s = save(filter);
    static const unsigned char START[HEADER] = {
        'f',  'p',  'c',  'u',  'c',  'k',  'o',  'o',  2,    0,    0,    0,    11,   0,
        0,    0,    100,  0,    0,    0,    0,    0,    0,    0,    0xef, 0xcd, 0xab, 0x89,
        0x67, 0x45, 0x23, 0x01, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0,    0,
        0,    0,    0,    0,    0,    0,    1,    0,    0,    0,    0,    0,    0,    0};
    unsigned char start[HEADER];
    memcpy(start, START, sizeof start);
    if (compact) {
        start[8] = 3;
        start[14] = 1;
    }
    assert_memory_equal(s.bytes, start, sizeof start);
    assert_int_equal(s.len, compact ? 216 : 240);
    uint64_t sum = XXH3_64bits(s.bytes, s.len);
    if (sum != (compact ? GOLDEN_COMPACT : GOLDEN))
        fail_msg("the saved bytes changed: 0x%llx", (unsigned long long)sum);
    free(s.bytes);
    fpc_filter_delete(filter);
}

static void every_changed_byte_is_noticed(void **state) {
    (void)state;
    saved s = save_sample();
    fpc_filter *loaded;
    fpc_error err;
    for (size_t i = 0; i < s.len; i++) {
        s.bytes[i] ^= 1;
        assert_int_equal(fpc_filter_load(s.bytes, s.len, &loaded, &err), FPC_INVALID);
        assert_null(loaded);
        s.bytes[i] ^= 1;
    }
    assert_int_equal(fpc_filter_load(s.bytes, s.len, &loaded, &err), FPC_OK);
    fpc_filter_delete(loaded);
    free(s.bytes);
}

static void every_length_is_noticed(void **state) {
    (void)state;
    saved s = save_sample();
    fpc_filter *loaded;
    for (size_t len = 0; len < s.len; len++) {
        unsigned char *exact = malloc(len + 1); /* so that the address sanitizer sees an over-read */
        memcpy(exact, s.bytes, len);
        unsigned char *moved = realloc(exact, len > 0 ? len : 1);
        assert_int_equal(fpc_filter_load(moved, len, &loaded, NULL), FPC_INVALID);
        if (len >= 64) { /* with a right checksum the lengths inside must be checked */
            saved shorter = {moved, len};
            reseal(&shorter);
            assert_int_equal(fpc_filter_load(moved, len, &loaded, NULL), FPC_INVALID);
        }
        free(moved);
    }
    free(s.bytes);
}

/* Bytes with a right checksum, so that each later check is reached. */
static void expect_error(size_t at, uint64_t value, int bytes, const char *message) {
    saved s = save_sample();
    fpc_filter *loaded;
    fpc_error err;
    for (int i = 0; i < bytes; i++) s.bytes[at + (size_t)i] = (unsigned char)(value >> (8 * i));
    reseal(&s);
    assert_int_equal(fpc_filter_load(s.bytes, s.len, &loaded, &err), FPC_INVALID);
    assert_string_equal(err.message, message);
    free(s.bytes);
}

static void each_field_is_checked(void **state) {
    (void)state;
    /* Words of the first table: 57 slots of 11 bits, or 14 buckets of 40. */
    size_t first = HEADER + 16, words = compact ? 9 : 10, stash = first + 8 * words;
    expect_error(0, 'F', 1, "not a saved filter: wrong first bytes");
    expect_error(8, 1, 4, "a saved filter of format 1; this library reads 2 and 3");
    expect_error(8, 4, 4, "a saved filter of format 4; this library reads 2 and 3");
    expect_error(8, compact ? 2 : 3, 4, "not a saved filter: header"); /* that of the other layout */
    expect_error(14, !compact, 1, "not a saved filter: header");
    expect_error(14, 2, 1, "not a saved filter: header");
    expect_error(12, 5, 1, "not a saved filter: header");
    expect_error(12, compact ? 16 : 29, 1, "not a saved filter: header");
    expect_error(13, 2, 1, "not a saved filter: header");
    expect_error(15, 1, 1, "not a saved filter: header");
    expect_error(16, 0, 8, "not a saved filter: header");
    expect_error(16, UINT64_MAX, 8, "not a saved filter: header");
    expect_error(16, 3900000000, 8, "not a saved filter: too short for its size");
    expect_error(48, 0, 4, "not a saved filter: header");
    expect_error(48, 65, 4, "not a saved filter: header");
    expect_error(48, 1, 4, "not a saved filter: bytes left over");
    expect_error(48, 4, 4, "not a saved filter: too short for a table");
    expect_error(52, 1, 4, "not a saved filter: header");
    expect_error(HEADER, 1, 4, "not a saved filter: overflow");
    expect_error(HEADER, 40, 4, "not a saved filter: level of a table");
    expect_error(HEADER + 4, UINT32_MAX, 4, "not a saved filter: too short for its overflow");
    expect_error(HEADER + 8, 1, 8, "not a saved filter: contents of a table");
    expect_error(HEADER + 8, 51, 8, "not a saved filter: contents of a table");
    expect_error(first, 1, 8, "not a saved filter: contents of a table");
    expect_error(first, 3876, 8, "not a saved filter: contents of a table"); /* no bucket has this code */
    expect_error(stash - 8, UINT64_MAX, 8, "not a saved filter: contents of a table");
    expect_error(stash - 1, 128, 1, "not a saved filter: contents of a table"); /* behind the last slot */
    expect_error(stash, 0, 8, "not a saved filter: overflow");
    expect_error(stash, UINT64_MAX, 8, "not a saved filter: overflow");
    expect_error(stash, UINT64_MAX - 1, 8, "not a saved filter: contents of a table");
    expect_error(stash + 8, UINT64_MAX, 8, "not a saved filter: overflow");
    expect_error(stash + 8, 0, 8, "not a saved filter: contents of a table");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_saved_is_loaded),      cmocka_unit_test(the_format_stays),
        cmocka_unit_test(every_changed_byte_is_noticed), cmocka_unit_test(every_length_is_noticed),
        cmocka_unit_test(each_field_is_checked),
    };
    int failed = cmocka_run_group_tests_name("filter, save and load", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter, save and load, compact", tests, NULL, NULL);
}
