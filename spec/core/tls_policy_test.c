/* tls_policy_test.c -- what a description with a keeper demands of the connection, rule by rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fpcache/conninfo.h"

static fpc_error err;
static fpc_conninfo *info;
static const char *service; /* one more setting: a text that names one is parsed with its file */

static const char *const VARIABLES[] = {"PGHOST",    "PGHOSTADDR",    "PGSERVICE",
                                        "PGSSLMODE", "PGSSLROOTCERT", "PGGSSENCMODE"};

static int begin(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof VARIABLES / sizeof *VARIABLES; i++) unsetenv(VARIABLES[i]);
    info = NULL;
    service = NULL;
    return 0;
}

static int end(void **state) {
    fpc_conninfo_delete(info);
    return begin(state);
}

/* Whether this libpq is 16 or later. */
static bool is_recent(void) {
    fpc_conninfo *probe = fpc_conninfo_new();
    bool knows = fpc_conninfo_add(probe, "require_auth", "password", &err) == FPC_OK;
    fpc_conninfo_delete(probe);
    return knows;
}

/* A description by these settings with a keeper of the kind. */
static fpc_status describe_for(const char *kind, const char *settings) {
    fpc_token_setting path = {"path", "/nonexistent"};
    bool is_file = strcmp(kind, "password_file") == 0;
    fpc_token_keeper *keeper;
    fpc_conninfo_delete(info);
    info = fpc_conninfo_new();
    assert_int_equal(fpc_conninfo_parse(info, settings, &err), FPC_OK);
    if (service != NULL) assert_int_equal(fpc_conninfo_add(info, "service", service, &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_open(kind, &path, is_file ? 1 : 0, &keeper, &err), FPC_OK);
    fpc_status status = fpc_conninfo_set_token(info, keeper, "/run/fallback", NULL, &err);
    fpc_token_keeper_close(keeper);
    return status;
}

static fpc_status describe(const char *settings) {
    return describe_for("password_file", settings);
}

static void has(const char *keyword, const char *value) {
    const char *found = fpc_conninfo_get(info, keyword);
    if (value == NULL) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_string_equal(found, value);
}

static void everything_is_verified_by_default(void **state) {
    (void)state;
    static const char *const DEFAULTS[] = {
        "host=db.example",        "host=/run/pg", "", "hostaddr=192.0.2.1", "host=/run/pg hostaddr=192.0.2.1",
        "host=/run/pg,db.example"};
    for (size_t i = 0; i < sizeof DEFAULTS / sizeof *DEFAULTS; i++) {
        assert_int_equal(describe(DEFAULTS[i]), FPC_OK);
        has("sslmode", "verify-full");
        has("gssencmode", "disable");
        const char *roots = fpc_conninfo_get(info, "sslrootcert");
        assert_non_null(roots); /* the system's, which this machine has */
        if (is_recent())
            assert_string_equal(roots, "system");
        else
            assert_int_equal(access(roots, R_OK), 0);
    }
}

static void the_environment_weakens_nothing(void **state) {
    (void)state;
    setenv("PGSSLMODE", "disable", 1);
    setenv("PGGSSENCMODE", "prefer", 1);
    assert_int_equal(describe("host=db.example"), FPC_OK);
    has("sslmode", "verify-full");
    has("gssencmode", "disable");
}

static void a_setting_may_be_less_strict_but_not_weak(void **state) {
    (void)state;
    assert_int_equal(describe("host=db.example sslmode=verify-ca"), FPC_OK);
    has("sslmode", "verify-ca");
    const char *roots = fpc_conninfo_get(info, "sslrootcert");
    assert_non_null(roots);
    assert_string_not_equal(roots, "system"); /* libpq takes that with verify-full only */
    assert_int_equal(describe("host=db.example sslmode=require"), FPC_OK);
    has("sslmode", "require");
    has("sslrootcert", NULL);
    static const char *const WEAK[] = {"disable", "allow", "prefer", "nonsense"};
    for (size_t i = 0; i < sizeof WEAK / sizeof *WEAK; i++) {
        char settings[64] = "host=db.example sslmode=";
        strcat(settings, WEAK[i]);
        assert_int_equal(describe(settings), FPC_INVALID);
        assert_non_null(strstr(err.message, WEAK[i]));
        assert_non_null(strstr(err.message, "password_file"));
    }
}

static void a_socket_may_have_any_sslmode(void **state) {
    (void)state;
    assert_int_equal(describe("host=/run/pg sslmode=disable"), FPC_OK);
    assert_int_equal(describe("host=@abstract,/run/pg sslmode=prefer"), FPC_OK);
    has("sslmode", "prefer");
}

static void what_may_lead_elsewhere_is_no_socket(void **state) {
    (void)state;
    static const char *const MAY[] = {
        "host=/run/pg,db.example sslmode=disable", "host=db.example,/run/pg sslmode=disable",
        "host=/run/pg hostaddr=192.0.2.1 sslmode=disable", "sslmode=disable" /* the token may name a host */};
    for (size_t i = 0; i < sizeof MAY / sizeof *MAY; i++) assert_int_equal(describe(MAY[i]), FPC_INVALID);
    service = "x";
    assert_int_equal(describe("host=/run/pg sslmode=disable"), FPC_INVALID);
    service = NULL;
    setenv("PGHOSTADDR", "192.0.2.1", 1);
    assert_int_equal(describe("host=/run/pg sslmode=disable"), FPC_INVALID);
    unsetenv("PGHOSTADDR");
    setenv("PGSERVICE", "x", 1);
    assert_int_equal(describe("host=/run/pg sslmode=disable"), FPC_INVALID);
}

static void roots_that_were_named_stay(void **state) {
    (void)state;
    assert_int_equal(describe("host=db.example sslrootcert=/rds.pem"), FPC_OK);
    has("sslrootcert", "/rds.pem");
    setenv("PGSSLROOTCERT", "/env.pem", 1); /* libpq takes it by itself */
    assert_int_equal(describe("host=db.example"), FPC_OK);
    has("sslrootcert", NULL);
    setenv("PGSSLROOTCERT", "", 1);
    assert_int_equal(describe("host=db.example"), FPC_OK);
    assert_non_null(fpc_conninfo_get(info, "sslrootcert"));
}

static void clouds_take_the_password_as_it_is(void **state) {
    (void)state;
    assert_int_equal(describe_for("google", "host=db.example"), FPC_OK);
    has("require_auth", is_recent() ? "password" : NULL);
    assert_int_equal(describe("host=db.example"), FPC_OK); /* a file may serve SCRAM */
    has("require_auth", NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(everything_is_verified_by_default),         TEST(the_environment_weakens_nothing),
        TEST(a_setting_may_be_less_strict_but_not_weak), TEST(a_socket_may_have_any_sslmode),
        TEST(what_may_lead_elsewhere_is_no_socket),      TEST(roots_that_were_named_stay),
        TEST(clouds_take_the_password_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
