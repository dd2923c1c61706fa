/* batch_test.c -- the rows of a bulk write as the server gets them: sorted, the last of equals, long keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "fpcache/batch.h"
#include "fpcache/key.h"
#include "server.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const uint32_t TYPES[FPC_BATCH_PARAMS] = {
    FPC_OID_BYTEA_ARRAY, FPC_OID_BYTEA_ARRAY, FPC_OID_BYTEA_ARRAY, FPC_OID_CHAR_ARRAY, FPC_OID_FLOAT8_ARRAY};

static fpc_conn *conn;
static fpc_batch *batch;
static fpc_result *result;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    batch = fpc_batch_new();
    return batch == NULL;
}

static int drop(void **state) {
    (void)state;
    fpc_result_delete(result);
    fpc_batch_delete(batch);
    result = NULL;
    return 0;
}

static void add(const char *key, size_t key_length, const char *value) {
    assert_int_equal(FPC_OK,
                     fpc_batch_add(batch, key, key_length, value, strlen(value), 's', INFINITY, &db_err));
}

static void add_words(const char *key, const char *value) {
    add(key, strlen(key), value);
}

/* Sends the batch as it is and reads it back, in the order of the arrays. */
static void round_trip(void) {
    fpc_params params;
    fpc_params_init(&params);
    assert_int_equal(FPC_OK, fpc_batch_params(batch, &params, &db_err));
    assert_int_equal(FPC_BATCH_PARAMS, params.count);
    fpc_statement *statement =
        fpc_statement_new("SELECT r.k, r.l, r.v, r.f, r.t FROM unnest($1, $2, $3, $4, $5) "
                          "WITH ORDINALITY AS r (k, l, v, f, t, n) ORDER BY r.n",
                          TYPES, FPC_BATCH_PARAMS, true);
    fpc_result_delete(result);
    result = NULL;
    fpc_status status = fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err);
    fpc_statement_delete(statement);
    if (status != FPC_OK) fail_msg("%s", db_err.message);
}

static void field_is(int row, int column, const char *bytes, size_t length) {
    size_t n;
    const char *field = fpc_result_bytes(result, row, column, &n);
    assert_false(fpc_result_is_null(result, row, column));
    assert_int_equal(length, n);
    assert_memory_equal(bytes, field, length);
}

static void an_empty_batch_is_five_empty_arrays(void **state) {
    (void)state;
    round_trip();
    assert_int_equal(0, fpc_result_rows(result));
    assert_int_equal(0, fpc_batch_rows(batch));
    assert_int_equal(0, fpc_batch_bytes(batch));
}

static void a_row_comes_as_it_was_added(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_batch_add(batch, "k\0y", 3, "v\0l\xff", 4, 'j', 0.25, &db_err));
    assert_int_equal(1, fpc_batch_rows(batch));
    assert_int_equal(7, fpc_batch_bytes(batch));
    round_trip();
    assert_int_equal(1, fpc_result_rows(result));
    field_is(0, 0, "k\0y", 3);
    assert_true(fpc_result_is_null(result, 0, 1));
    field_is(0, 2, "v\0l\xff", 4);
    field_is(0, 3, "j", 1);
    assert_true(fpc_result_double(result, 0, 4) == 0.25);
}

static void an_empty_value_is_a_value_and_no_ttl_is_null(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_batch_add(batch, "k", 1, NULL, 0, 's', INFINITY, &db_err));
    round_trip();
    field_is(0, 2, "", 0);
    assert_true(fpc_result_is_null(result, 0, 4));
}

static void rows_are_sorted_by_the_bytes_of_their_keys(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
    } sorted[] = {
        {"\0", 1},
        {"\0\0", 2},
        {"\0\0\0\0\0\0\0\0", 8},
        {"\0\0\0\0\0\0\0\0\0", 9},
        {"a", 1},
        {"a\0", 2},
        {"aaaaaaaa", 8},
        {"aaaaaaaa\0", 9},
        {"aaaaaaaaa", 9},
        {"aaaaaaaab", 9},
        {"b", 1},
        {"zzzzzzzzzzy", 11},
        {"zzzzzzzzzzz", 11},
        {"\x7f", 1},
        {"\x80", 1},
        {"\xff\xfe", 2},
        {"\xff\xff", 2},
    };
    const size_t count = COUNT(sorted);
    for (size_t i = 0; i < count; i++) { /* 7 and 17 have no common divisor: each comes once */
        size_t j = i * 7 % count;
        add(sorted[j].bytes, sorted[j].length, "v");
    }
    round_trip();
    assert_int_equal(count, fpc_result_rows(result));
    for (size_t i = 0; i < count; i++) field_is((int)i, 0, sorted[i].bytes, sorted[i].length);
    db_script(conn, "SELECT 1");
}

static void of_equal_keys_the_last_is_kept(void **state) {
    (void)state;
    const char *const rows[][2] = {{"b", "1"},
                                   {"a", "2"},
                                   {"b", "3"},
                                   {"c", "4"},
                                   {"a", "5"},
                                   {"a", "6"},
                                   {"longer-than-8", "7"},
                                   {"longer-than-9", "8"},
                                   {"longer-than-8", "9"}};
    for (size_t i = 0; i < COUNT(rows); i++) add_words(rows[i][0], rows[i][1]);
    assert_int_equal(9, fpc_batch_rows(batch));
    round_trip();
    const char *const expected[][2] = {
        {"a", "6"}, {"b", "3"}, {"c", "4"}, {"longer-than-8", "9"}, {"longer-than-9", "8"}};
    assert_int_equal(COUNT(expected), fpc_result_rows(result));
    for (size_t i = 0; i < COUNT(expected); i++) {
        field_is((int)i, 0, expected[i][0], strlen(expected[i][0]));
        field_is((int)i, 2, expected[i][1], 1);
    }
}

static void a_thousand_times_the_same_key_is_one_row(void **state) {
    (void)state;
    char value[8];
    for (int i = 0; i < 1000; i++) {
        snprintf(value, sizeof value, "%d", i);
        add_words("same", value);
    }
    round_trip();
    assert_int_equal(1, fpc_result_rows(result));
    field_is(0, 2, "999", 3);
}

static void long_keys_are_stored_short_and_kept_whole(void **state) {
    (void)state;
    char long_key[5000], stored[FPC_KEY_STORED_MAX];
    memset(long_key, 'k', sizeof long_key);
    add(long_key, FPC_KEY_INLINE, "inline");
    add(long_key, FPC_KEY_INLINE + 1, "one more");
    add(long_key, sizeof long_key, "long");
    add(long_key, sizeof long_key, "long again");
    round_trip();
    assert_int_equal(3, fpc_result_rows(result));
    field_is(0, 0, long_key, FPC_KEY_INLINE);
    assert_true(fpc_result_is_null(result, 0, 1));
    const size_t lengths[] = {FPC_KEY_INLINE + 1, sizeof long_key};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(FPC_OK, fpc_key_shorten(long_key, lengths[i], stored, &db_err));
        field_is(1 + i, 0, stored, sizeof stored);
        field_is(1 + i, 1, long_key, lengths[i]);
    }
    field_is(2, 2, "long again", 10);
    /* The server's own sha256 says the same. */
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, long_key, sizeof long_key);
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    fpc_statement *statement = fpc_statement_new("SELECT substr($1, 1, 1024) || sha256($1)", bytea, 1, true);
    fpc_result_delete(result);
    result = NULL;
    assert_int_equal(FPC_OK, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    field_is(0, 0, stored, sizeof stored);
    fpc_statement_delete(statement);
}

static void a_cleared_batch_is_empty_and_usable(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        add_words("b", "1");
        add_words("a", "2");
        round_trip();
        assert_int_equal(2, fpc_result_rows(result));
        fpc_batch_clear(batch);
        assert_int_equal(0, fpc_batch_rows(batch));
        assert_int_equal(0, fpc_batch_bytes(batch));
    }
    round_trip();
    assert_int_equal(0, fpc_result_rows(result));
}

static void rows_may_be_added_after_the_arrays_were_made(void **state) {
    (void)state;
    add_words("c", "1");
    add_words("b", "2");
    round_trip();
    add_words("a", "3");
    add_words("c", "4");
    round_trip();
    assert_int_equal(3, fpc_result_rows(result));
    field_is(0, 0, "a", 1);
    field_is(2, 0, "c", 1);
    field_is(2, 2, "4", 1);
}

static void many_rows(void **state) {
    (void)state;
    enum { ROWS = 50000 };
    char key[32], value[32];
    for (int i = 0; i < ROWS; i++) {
        snprintf(key, sizeof key, "key-%05d", (int)((int64_t)i * 7919 % ROWS));
        snprintf(value, sizeof value, "value-%d", (int)((int64_t)i * 7919 % ROWS));
        assert_int_equal(FPC_OK, fpc_batch_add(batch, key, 9, value, strlen(value), 's', i, &db_err));
    }
    round_trip();
    assert_int_equal(ROWS, fpc_result_rows(result));
    for (int i = 0; i < ROWS; i++) {
        snprintf(key, sizeof key, "key-%05d", i);
        snprintf(value, sizeof value, "value-%d", i);
        field_is(i, 0, key, 9);
        field_is(i, 2, value, strlen(value));
    }
}

/* A length that no row can have must not be cut to one that it can. */
static void too_long_values_are_refused(void **state) {
    (void)state;
    assert_int_equal(FPC_INVALID,
                     fpc_batch_add(batch, "k", 1, "v", ((size_t)1 << 32) + 1, 's', INFINITY, &db_err));
    assert_int_equal(FPC_INVALID,
                     fpc_batch_add(batch, "k", ((size_t)1 << 32) + 1, "v", 1, 's', INFINITY, &db_err));
    assert_int_equal(FPC_INVALID, fpc_batch_add(batch, "k", 1, "v", SIZE_MAX - 1, 's', INFINITY, &db_err));
    assert_int_equal(0, fpc_batch_rows(batch));
    assert_int_equal(0, fpc_batch_bytes(batch));
}

static int start(void **state) {
    server_setup(state);
    conn = db_open();
    return 0;
}

static int stop(void **state) {
    fpc_batch_delete(NULL);
    fpc_conn_delete(conn);
    return server_teardown(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_empty_batch_is_five_empty_arrays),
        TEST(a_row_comes_as_it_was_added),
        TEST(an_empty_value_is_a_value_and_no_ttl_is_null),
        TEST(rows_are_sorted_by_the_bytes_of_their_keys),
        TEST(of_equal_keys_the_last_is_kept),
        TEST(a_thousand_times_the_same_key_is_one_row),
        TEST(long_keys_are_stored_short_and_kept_whole),
        TEST(a_cleared_batch_is_empty_and_usable),
        TEST(rows_may_be_added_after_the_arrays_were_made),
        TEST(many_rows),
        TEST(too_long_values_are_refused),
    };
    return cmocka_run_group_tests_name("batch", tests, start, stop);
}
