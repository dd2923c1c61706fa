/* conninfo_test.c -- settings for libpq: taken over, refused, passed over; never quoted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fpcache/conninfo.h"

static fpc_conninfo *info;
static fpc_error err;

static int make(void **state) {
    (void)state;
    memset(&err, 0, sizeof err);
    info = fpc_conninfo_new();
    return info == NULL;
}

static int drop(void **state) {
    (void)state;
    fpc_conninfo_delete(info);
    return 0;
}

static void has(const char *keyword, const char *value) {
    const char *found = fpc_conninfo_get(info, keyword);
    if (value == NULL)
        assert_null(found);
    else {
        assert_non_null(found);
        assert_string_equal(value, found);
    }
}

static void takes_a_url_apart(void **state) {
    (void)state;
    assert_int_equal(
        FPC_OK,
        fpc_conninfo_parse(info, "postgresql://me:p%40ss%2Fw@db.example:6432/mine?sslmode=require", &err));
    has("user", "me");
    has("password", "p@ss/w");
    has("host", "db.example");
    has("port", "6432");
    has("dbname", "mine");
    has("sslmode", "require");
    has("hostaddr", NULL);
}

static void takes_keywords_apart(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_conninfo_parse(info, "host=/tmp user='a b' password='it\\'s' port=1", &err));
    has("user", "a b");
    has("password", "it's");
    has("port", "1");
}

static void an_empty_text_sets_nothing(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_conninfo_parse(info, "", &err));
    assert_null(fpc_conninfo_keywords(info)[0]);
    assert_null(fpc_conninfo_values(info)[0]);
}

static void the_first_to_set_a_keyword_wins(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_conninfo_parse(info, "postgresql://first/", &err));
    assert_int_equal(FPC_OK, fpc_conninfo_add(info, "host", "second", &err));
    assert_int_equal(FPC_OK, fpc_conninfo_add(info, "port", "5", &err));
    assert_int_equal(FPC_OK, fpc_conninfo_default(info, "port", "6", &err));
    assert_int_equal(FPC_OK, fpc_conninfo_parse(info, "port=7 user=u", &err));
    has("host", "first");
    has("port", "5");
    has("user", "u");
}

static void the_arrays_are_parallel_and_end_with_null(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_conninfo_add(info, "host", "h", &err));
    assert_int_equal(FPC_OK, fpc_conninfo_add(info, "user", "u", &err));
    const char *const *keywords = fpc_conninfo_keywords(info);
    const char *const *values = fpc_conninfo_values(info);
    assert_string_equal("host", keywords[0]);
    assert_string_equal("h", values[0]);
    assert_string_equal("user", keywords[1]);
    assert_string_equal("u", values[1]);
    assert_null(keywords[2]);
    assert_null(values[2]);
}

static void an_unknown_keyword_is_refused_by_name(void **state) {
    (void)state;
    assert_int_equal(FPC_INVALID, fpc_conninfo_add(info, "no_such_keyword", "secret", &err));
    assert_non_null(strstr(err.message, "no_such_keyword"));
    assert_null(strstr(err.message, "secret"));
    has("no_such_keyword", NULL);
    assert_int_equal(FPC_INVALID, fpc_conninfo_parse(info, "postgresql://h/?no_such_keyword=1", &err));
    assert_int_equal(FPC_INVALID, fpc_conninfo_parse(info, "no_such_keyword=1", &err));
}

static void an_unknown_default_is_passed_over(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_conninfo_default(info, "no_such_keyword", "x", &err));
    assert_null(fpc_conninfo_keywords(info)[0]);
    assert_int_equal(FPC_OK, fpc_conninfo_default(info, "application_name", "x", &err));
    has("application_name", "x");
}

/* What libpq knows does not depend on what the environment asks it to connect to. */
static void a_broken_environment_changes_nothing(void **state) {
    (void)state;
    setenv("PGSERVICE", "no_such_service", 1);
    setenv("PGSERVICEFILE", "/nonexistent/pg_service.conf", 1);
    fpc_status added = fpc_conninfo_add(info, "host", "h", &err);
    fpc_status defaulted = fpc_conninfo_default(info, "application_name", "x", &err);
    unsetenv("PGSERVICE");
    unsetenv("PGSERVICEFILE");
    assert_int_equal(FPC_OK, added);
    assert_int_equal(FPC_OK, defaulted);
    has("host", "h");
    has("application_name", "x");
}

/* Each of these is not what its author meant; none of its words may come back. */
static void a_bad_text_is_refused_without_its_password(void **state) {
    (void)state;
    const char *const texts[] = {
        "postgresql://me:hunter2@host:port:x/db?=",
        "postgresql://me:hunter2@[::1/db",
        "postgresql://me:hunter2%zz@h/db",
        "host=h password=hunter2 'x",
        "hunter2",
        "mysql://me:hunter2@h/db",
        /* A password whose special characters were not written as %40, %2F: parts of it would be taken
         * for a host, port or database, which libpq's errors quote. */
        "postgresql://me:secret@hunter2@h/db",
        "postgresql://me:hunter2/secret@h/db",
        "postgresql://me:12/hunter2@h/db",
        "postgresql://me:x?hunter2@hunter2@h/db",
        "postgresql://me:se#cret@hunter2@h",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        memset(&err, 0, sizeof err);
        fpc_conninfo *own = fpc_conninfo_new();
        fpc_status status = fpc_conninfo_parse(own, texts[i], &err);
        fpc_conninfo_delete(own);
        if (status != FPC_INVALID) fail_msg("taken: %s", texts[i]);
        assert_null(strstr(err.message, "hunter2"));
        assert_null(strstr(err.message, "secret"));
    }
}

static void at_signs_that_are_meant_are_taken(void **state) {
    (void)state;
    const char *const texts[] = {"postgresql://me%40corp:p%40ss@h/db%40x?application_name=a@b",
                                 "host=@abstract dbname=a@b", "postgresql:///db?host=%40abstract",
                                 "postgresql://h1:1,h2:2/db", "postgresql:///db?host=/tmp/a@b"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        fpc_conninfo *own = fpc_conninfo_new();
        fpc_status status = fpc_conninfo_parse(own, texts[i], &err);
        fpc_conninfo_delete(own);
        if (status != FPC_OK) fail_msg("refused: %s", texts[i]);
    }
}

static void is_told_in_utf8(void **state) {
    (void)state;
    assert_int_equal(FPC_INVALID, fpc_conninfo_parse(info, "host=h client_encoding=LATIN1", &err));
    assert_string_equal("client_encoding is always UTF8; leave it out (got LATIN1)", err.message);
    assert_int_equal(FPC_INVALID, fpc_conninfo_add(info, "client_encoding", "auto", &err));
    assert_int_equal(FPC_INVALID, fpc_conninfo_add(info, "client_encoding", "UTF8-and-more", &err));
    has("client_encoding", NULL);
    static const char *const SAME[] = {"UTF8", "utf-8", "Unicode"};
    for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++) {
        fpc_conninfo *one = fpc_conninfo_new();
        assert_int_equal(FPC_OK, fpc_conninfo_add(one, "client_encoding", SAME[i], &err));
        fpc_conninfo_delete(one);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(takes_a_url_apart),
        TEST(takes_keywords_apart),
        TEST(is_told_in_utf8),
        TEST(an_empty_text_sets_nothing),
        TEST(the_first_to_set_a_keyword_wins),
        TEST(the_arrays_are_parallel_and_end_with_null),
        TEST(an_unknown_keyword_is_refused_by_name),
        TEST(an_unknown_default_is_passed_over),
        TEST(a_broken_environment_changes_nothing),
        TEST(a_bad_text_is_refused_without_its_password),
        TEST(at_signs_that_are_meant_are_taken),
    };
    return cmocka_run_group_tests_name("conninfo", tests, NULL, NULL);
}
