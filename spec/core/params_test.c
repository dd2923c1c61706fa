/* params_test.c -- values to the server and back in binary: every type, every edge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "server.h"

static fpc_conn *conn;
static fpc_params params;
static fpc_result *result;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    fpc_params_init(&params);
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_result_delete(result);
    result = NULL;
    return 0;
}

/* Runs `sql` with the parameters added so far, of these types. */
static void run(const char *sql, const uint32_t *oids, int count) {
    fpc_statement *statement = fpc_statement_new(sql, oids, count, true);
    fpc_result_delete(result);
    result = NULL;
    fpc_status status = fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err);
    fpc_statement_delete(statement);
    if (status != FPC_OK) fail_msg("%s: %s", sql, db_err.message);
    fpc_params_init(&params);
}

static void run1(const char *sql, uint32_t oid) {
    run(sql, &oid, 1);
}

static const char *text(int column) {
    size_t length;
    const char *bytes = fpc_result_bytes(result, 0, column, &length);
    assert_int_equal(strlen(bytes), length);
    return bytes;
}

static void integers_of_all_bits(void **state) {
    (void)state;
    const int64_t values[] = {0,         1,        -1, INT32_MAX, INT32_MIN, INT64_C(9007199254740993),
                              INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char decimal[32];
        snprintf(decimal, sizeof decimal, "%lld", (long long)values[i]);
        fpc_params_int64(&params, values[i]);
        run1("SELECT $1, $1::text", FPC_OID_INT8);
        assert_true(fpc_result_int64(result, 0, 0) == values[i]);
        assert_string_equal(decimal, text(1));
        assert_int_equal(FPC_OID_INT8, fpc_result_oid(result, 0));
    }
}

static void smaller_integers_keep_their_sign(void **state) {
    (void)state;
    run("SELECT (-32768)::int2, 32767::int2, (-2147483648)::int4, 2147483647::int4, 4294967295::oid, 0::int2",
        NULL, 0);
    const int64_t expected[] = {INT16_MIN, INT16_MAX, INT32_MIN, INT32_MAX, UINT32_MAX, 0};
    for (int i = 0; i < 6; i++) assert_true(fpc_result_int64(result, 0, i) == expected[i]);
}

static void floats_to_the_last_bit(void **state) {
    (void)state;
    const double values[] = {
        0.0,          -0.0,        0.1,      1e300,     -1e-300, DBL_MAX,           DBL_MIN,
        DBL_TRUE_MIN, DBL_EPSILON, INFINITY, -INFINITY, NAN,     9007199254740993.0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        fpc_params_double(&params, values[i]);
        run1("SELECT $1", FPC_OID_FLOAT8);
        double back = fpc_result_double(result, 0, 0);
        if (isnan(values[i]))
            assert_true(isnan(back));
        else
            assert_memory_equal(&values[i], &back, sizeof back);
    }
    run("SELECT 0.1::float4, '-Infinity'::float4", NULL, 0);
    assert_true(fpc_result_double(result, 0, 0) == (double)0.1f);
    assert_true(fpc_result_double(result, 0, 1) == -INFINITY);
}

static void booleans_and_single_bytes(void **state) {
    (void)state;
    const uint32_t oids[] = {FPC_OID_BOOL, FPC_OID_BOOL, FPC_OID_CHAR};
    fpc_params_bool(&params, true);
    fpc_params_bool(&params, false);
    fpc_params_bytes(&params, "j", 1);
    run("SELECT $1, $2, $3", oids, 3);
    size_t length;
    assert_int_equal(1, fpc_result_bytes(result, 0, 0, &length)[0]);
    assert_int_equal(0, fpc_result_bytes(result, 0, 1, &length)[0]);
    assert_int_equal('j', fpc_result_bytes(result, 0, 2, &length)[0]);
    assert_int_equal(1, length);
}

static void bytes_are_any_bytes(void **state) {
    (void)state;
    char all[256];
    for (int i = 0; i < 256; i++) all[i] = (char)i;
    size_t length;
    fpc_params_bytes(&params, all, sizeof all);
    run1("SELECT $1, octet_length($1)", FPC_OID_BYTEA);
    assert_memory_equal(all, fpc_result_bytes(result, 0, 0, &length), sizeof all);
    assert_int_equal(256, length);
    assert_int_equal(256, fpc_result_int64(result, 0, 1));
    fpc_params_bytes(&params, "h\xc3\xa9 \xf0\x9f\x90\x98", 8);
    run1("SELECT $1, char_length($1)", FPC_OID_TEXT);
    assert_string_equal("h\xc3\xa9 \xf0\x9f\x90\x98", text(0));
    assert_int_equal(4, fpc_result_int64(result, 0, 1));
}

static void empty_is_not_null(void **state) {
    (void)state;
    const uint32_t oids[] = {FPC_OID_BYTEA, FPC_OID_BYTEA, FPC_OID_BYTEA, FPC_OID_TEXT, FPC_OID_INT8};
    fpc_params_bytes(&params, "", 0);
    fpc_params_bytes(&params, NULL, 0);
    fpc_params_null(&params);
    fpc_params_null(&params);
    fpc_params_null(&params);
    run("SELECT $1, $2, $3, $4, $5", oids, 5);
    const bool nulls[] = {false, false, true, true, true};
    for (int i = 0; i < 5; i++) {
        size_t length = 99;
        assert_int_equal(nulls[i], fpc_result_is_null(result, 0, i));
        assert_non_null(fpc_result_bytes(result, 0, i, &length));
        assert_int_equal(0, length);
    }
}

/* A field that is no number of this width, NULL among them, is 0 and reads nothing beyond it. */
static void numbers_of_no_number_are_zero(void **state) {
    (void)state;
    run("SELECT NULL::float8, NULL::int8, 'abc'::bytea, ''::text, true", NULL, 0);
    for (int i = 0; i < 5; i++) {
        assert_true(fpc_result_double(result, 0, i) == 0);
        assert_true(fpc_result_int64(result, 0, i) == 0);
    }
}

static void as_many_parameters_as_there_is_room_for(void **state) {
    (void)state;
    uint32_t oids[FPC_PARAMS_MAX];
    for (int i = 0; i < FPC_PARAMS_MAX; i++) {
        oids[i] = FPC_OID_INT8;
        fpc_params_int64(&params, i + 1);
    }
    run("SELECT $1 + $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9 + $10 + $11 + $12", oids, FPC_PARAMS_MAX);
    assert_int_equal(78, fpc_result_int64(result, 0, 0));
}

static void arrays_of_bytes(void **state) {
    (void)state;
    fpc_array array;
    fpc_array_create(&array, FPC_OID_BYTEA);
    for (int round = 0; round < 2; round++) { /* the second on memory that was used before */
        fpc_array_clear(&array);
        fpc_array_add(&array, "a\0b", 3);
        fpc_array_add(&array, "", 0);
        fpc_array_add(&array, NULL, 0);
        if (round == 0) fpc_array_add_null(&array);
        fpc_array_add(&array, "z", 1);
        fpc_params_array(&params, &array);
        run1("SELECT $1::text, cardinality($1), array_lower($1, 1), array_position($1, NULL)",
             FPC_OID_BYTEA_ARRAY);
        assert_string_equal(round == 0 ? "{\"\\\\x610062\",\"\\\\x\",\"\\\\x\",NULL,\"\\\\x7a\"}"
                                       : "{\"\\\\x610062\",\"\\\\x\",\"\\\\x\",\"\\\\x7a\"}",
                            text(0));
        assert_int_equal(round == 0 ? 5 : 4, fpc_result_int64(result, 0, 1));
        assert_int_equal(1, fpc_result_int64(result, 0, 2));
    }
    fpc_array_destroy(&array);
}

static void empty_arrays_and_arrays_of_nulls(void **state) {
    (void)state;
    fpc_array array;
    fpc_array_create(&array, FPC_OID_BYTEA);
    fpc_params_array(&params, &array);
    run1("SELECT $1::text, cardinality($1), $1 = '{}'", FPC_OID_BYTEA_ARRAY);
    assert_string_equal("{}", text(0));
    assert_int_equal(0, fpc_result_int64(result, 0, 1));
    for (int i = 0; i < 3; i++) fpc_array_add_null(&array);
    fpc_params_array(&params, &array);
    run1("SELECT $1::text", FPC_OID_BYTEA_ARRAY);
    assert_string_equal("{NULL,NULL,NULL}", text(0));
    fpc_array_destroy(&array);
    fpc_array_destroy(&array); /* harmless */
}

static void arrays_of_floats_and_single_bytes(void **state) {
    (void)state;
    fpc_array floats, bytes;
    fpc_array_create(&floats, FPC_OID_FLOAT8);
    fpc_array_create(&bytes, FPC_OID_CHAR);
    fpc_array_add_double(&floats, 0.1);
    fpc_array_add_null(&floats);
    fpc_array_add_double(&floats, -INFINITY);
    fpc_array_add(&bytes, "s", 1);
    fpc_array_add(&bytes, "i", 1);
    const uint32_t oids[] = {FPC_OID_FLOAT8_ARRAY, FPC_OID_CHAR_ARRAY};
    fpc_params_array(&params, &floats);
    fpc_params_array(&params, &bytes);
    run("SELECT $1::text, $2::text", oids, 2);
    assert_string_equal("{0.1,NULL,-Infinity}", text(0));
    assert_string_equal("{s,i}", text(1));
    fpc_array_destroy(&floats);
    fpc_array_destroy(&bytes);
}

static void arrays_grow(void **state) {
    (void)state;
    fpc_array array;
    fpc_array_create(&array, FPC_OID_BYTEA);
    char *big = malloc(100000);
    memset(big, 'x', 100000);
    int64_t bytes = 0;
    for (int i = 0; i < 500; i++) {
        size_t length = (size_t)(i * i % 100000);
        fpc_array_add(&array, big, length);
        bytes += (int64_t)length;
    }
    free(big);
    assert_false(array.failed);
    fpc_params_array(&params, &array);
    run1("SELECT count(*), sum(octet_length(b))::int8 FROM unnest($1) AS b", FPC_OID_BYTEA_ARRAY);
    assert_int_equal(500, fpc_result_int64(result, 0, 0));
    assert_int_equal(bytes, fpc_result_int64(result, 0, 1));
    fpc_array_destroy(&array);
}

/* --- results --- */

static void results_tell_about_themselves(void **state) {
    (void)state;
    run("SELECT g AS number, NULL AS nothing FROM generate_series(1, 3) AS g", NULL, 0);
    assert_int_equal(3, fpc_result_rows(result));
    assert_int_equal(2, fpc_result_columns(result));
    assert_string_equal("number", fpc_result_name(result, 0));
    assert_string_equal("nothing", fpc_result_name(result, 1));
    assert_int_equal(FPC_OID_INT4, fpc_result_oid(result, 0));
    assert_int_equal(3, fpc_result_int64(result, 2, 0));
    run("SELECT 1 WHERE false", NULL, 0);
    assert_int_equal(0, fpc_result_rows(result));
}

static void results_count_the_rows_written(void **state) {
    (void)state;
    db_script(conn, "CREATE TEMP TABLE w (a int)");
    run("INSERT INTO w SELECT generate_series(1, 5)", NULL, 0);
    assert_int_equal(5, fpc_result_affected(result));
    assert_string_equal("INSERT 0 5", fpc_result_command(result));
    run("DELETE FROM w WHERE a > 3 RETURNING a", NULL, 0);
    assert_int_equal(2, fpc_result_affected(result));
    assert_int_equal(2, fpc_result_rows(result));
    run("SET work_mem = '1MB'", NULL, 0);
    assert_int_equal(0, fpc_result_affected(result));
    assert_string_equal("SET", fpc_result_command(result));
}

static int start(void **state) {
    server_setup(state);
    conn = db_open();
    return 0;
}

static int stop(void **state) {
    fpc_conn_delete(conn);
    return server_teardown(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(integers_of_all_bits),
        TEST(smaller_integers_keep_their_sign),
        TEST(floats_to_the_last_bit),
        TEST(booleans_and_single_bytes),
        TEST(bytes_are_any_bytes),
        TEST(empty_is_not_null),
        TEST(numbers_of_no_number_are_zero),
        TEST(as_many_parameters_as_there_is_room_for),
        TEST(arrays_of_bytes),
        TEST(empty_arrays_and_arrays_of_nulls),
        TEST(arrays_of_floats_and_single_bytes),
        TEST(arrays_grow),
        TEST(results_tell_about_themselves),
        TEST(results_count_the_rows_written),
    };
    return cmocka_run_group_tests_name("params", tests, start, stop);
}
