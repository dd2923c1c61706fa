/* feed_keys_test.c -- the keys of a feed row, from good and from broken bytes; snapshots that go back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "feed_keys.h"
#include "feed_poll.h"
#include "fpcache/params.h"

/* The bytes of an array as we send it ourselves. */
static void make(fpc_array *array, fpc_params *params, const char *const *keys, int count) {
    fpc_array_create(array, FPC_OID_BYTEA);
    for (int i = 0; i < count; i++) {
        if (keys[i] == NULL)
            fpc_array_add_null(array);
        else
            fpc_array_add(array, keys[i], strlen(keys[i]));
    }
    fpc_params_init(params);
    fpc_params_array(params, array);
}

static void walks_over_all_keys_but_nulls(void **state) {
    (void)state;
    static const char *const KEYS[] = {"a", NULL, "", "long enough"};
    static const char *const EXPECTED[] = {"a", "", "long enough"};
    fpc_array array;
    fpc_params params;
    fpc_feed_keys keys;
    const char *key;
    size_t length;
    make(&array, &params, KEYS, 4);
    assert_true(fpc_feed_keys_begin(&keys, params.values[0], (size_t)params.lengths[0]));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fpc_feed_keys_next(&keys, &key, &length), FPC_FEED_KEYS_KEY);
        assert_int_equal(length, strlen(EXPECTED[i]));
        assert_memory_equal(key, EXPECTED[i], length);
    }
    assert_int_equal(fpc_feed_keys_next(&keys, &key, &length), FPC_FEED_KEYS_END);
    fpc_array_destroy(&array);
    make(&array, &params, KEYS, 0);
    assert_true(fpc_feed_keys_begin(&keys, params.values[0], (size_t)params.lengths[0]));
    assert_int_equal(fpc_feed_keys_next(&keys, &key, &length), FPC_FEED_KEYS_END);
    fpc_array_destroy(&array);
}

static fpc_feed_keys_step last_step(const char *bytes, size_t size) {
    fpc_feed_keys keys;
    const char *key;
    size_t length;
    fpc_feed_keys_step step = FPC_FEED_KEYS_BAD;
    if (!fpc_feed_keys_begin(&keys, bytes, size)) return step;
    do {
        step = fpc_feed_keys_next(&keys, &key, &length);
    } while (step == FPC_FEED_KEYS_KEY);
    return step;
}

static void every_cut_and_wrong_word_is_noticed(void **state) {
    (void)state;
    static const char *const KEYS[] = {"one", "two"};
    fpc_array array;
    fpc_params params;
    make(&array, &params, KEYS, 2);
    size_t size = (size_t)params.lengths[0];
    char bytes[64] = {0};
    memcpy(bytes, params.values[0], size);
    assert_int_equal(last_step(bytes, size), FPC_FEED_KEYS_END);
    for (size_t cut = 0; cut < size; cut++) assert_int_equal(last_step(bytes, cut), FPC_FEED_KEYS_BAD);
    assert_int_equal(last_step(bytes, size + 1), FPC_FEED_KEYS_BAD); /* more than it says */
    static const size_t WORDS[] = {0, 8, 12, 20};                    /* dimensions, type, count, length */
    for (size_t i = 0; i < sizeof WORDS / sizeof *WORDS; i++) {
        char broken[64];
        memcpy(broken, bytes, sizeof broken);
        broken[WORDS[i]] ^= 0x40;
        assert_int_equal(last_step(broken, size), FPC_FEED_KEYS_BAD);
    }
    fpc_array_destroy(&array);
}

static void snapshot_that_goes_back_is_noticed(void **state) {
    (void)state;
    assert_false(fpc_feed_goes_back("10:20:11,12", "10:20:11"));
    assert_false(fpc_feed_goes_back("10:20:", "15:21:"));
    assert_true(fpc_feed_goes_back("10:20:", "10:19:"));
    assert_false(fpc_feed_goes_back("1:4294967296:", "1:4294967297:"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(walks_over_all_keys_but_nulls),
                                       cmocka_unit_test(every_cut_and_wrong_word_is_noticed),
                                       cmocka_unit_test(snapshot_that_goes_back_is_noticed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
