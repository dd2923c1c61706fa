/* ini_test.c -- settings files of sections, and the texts that they are read into. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http.h"
#include "ini.h"
#include "secret.h"

static fpc_ini *parse(const char *text, int flags) {
    fpc_ini *ini = NULL;
    fpc_error err;
    fpc_status status = fpc_ini_parse(text, strlen(text), flags, &ini, &err);
    if (status != FPC_OK) fail_msg("%s", err.message);
    return ini;
}

static void sections_and_keys_are_found(void **state) {
    (void)state;
    fpc_ini *ini =
        parse("\xEF\xBB\xBF# comment\r\n[DEFAULT]\r\nhost = https://a.example/x=y\r\n; comment\r\n\r\n"
              "[ Other one ]\r\nToken:abc\r\nempty =\r\n[none]\r\n",
              0);
    assert_string_equal(fpc_ini_get(ini, "DEFAULT", "host"), "https://a.example/x=y");
    assert_string_equal(fpc_ini_get(ini, "Other one", "token"), "abc");
    assert_string_equal(fpc_ini_get(ini, "Other one", "empty"), "");
    assert_null(fpc_ini_get(ini, "Other one", "host")); /* nothing is inherited */
    assert_null(fpc_ini_get(ini, "default", "host"));   /* sections have a case */
    assert_true(fpc_ini_has_section(ini, "none"));
    assert_false(fpc_ini_has_section(ini, "token"));
    fpc_ini_delete(ini);
}

static void the_last_value_counts(void **state) {
    (void)state;
    fpc_ini *ini = parse("[a]\nx=1\ny=2\n[b]\nx=3\n[a]\nX=4", 0);
    assert_string_equal(fpc_ini_get(ini, "a", "x"), "4");
    assert_string_equal(fpc_ini_get(ini, "a", "y"), "2");
    assert_string_equal(fpc_ini_get(ini, "b", "x"), "3");
    fpc_ini_delete(ini);
}

static void a_comment_behind_a_value_needs_a_space(void **state) {
    (void)state;
    fpc_ini *ini = parse("[a]\nx = one#two # three\ny = 1;2\t; 3\nz = # nothing\nw =#1", 0);
    assert_string_equal(fpc_ini_get(ini, "a", "x"), "one#two");
    assert_string_equal(fpc_ini_get(ini, "a", "y"), "1;2");
    assert_string_equal(fpc_ini_get(ini, "a", "z"), "");
    assert_string_equal(fpc_ini_get(ini, "a", "w"), "");
    fpc_ini_delete(ini);
}

static void quotes_go_only_when_asked_for(void **state) {
    (void)state;
    const char *text = "[a]\nx = \"a # b\" # c\ny = 'it'\nz = \"/a b\" --flag \"c\"\nw = \"open";
    fpc_ini *ini = parse(text, FPC_INI_QUOTES);
    assert_string_equal(fpc_ini_get(ini, "a", "x"), "a # b");
    assert_string_equal(fpc_ini_get(ini, "a", "y"), "it");
    assert_string_equal(fpc_ini_get(ini, "a", "z"), "\"/a b\" --flag \"c\"");
    assert_string_equal(fpc_ini_get(ini, "a", "w"), "\"open");
    fpc_ini_delete(ini);
    ini = parse(text, 0);
    assert_string_equal(fpc_ini_get(ini, "a", "y"), "'it'");
    fpc_ini_delete(ini);
}

static void an_indented_line_is_nested_only_when_asked_for(void **state) {
    (void)state;
    const char *text = "[services x]\nsts =\n  endpoint_url = http://a\nregion = b\n";
    fpc_ini *ini = parse(text, FPC_INI_NESTED);
    assert_string_equal(fpc_ini_get(ini, "services x", "sts.endpoint_url"), "http://a");
    assert_null(fpc_ini_get(ini, "services x", "endpoint_url"));
    assert_string_equal(fpc_ini_get(ini, "services x", "region"), "b");
    fpc_ini_delete(ini);
    ini = parse(text, 0);
    assert_string_equal(fpc_ini_get(ini, "services x", "endpoint_url"), "http://a");
    fpc_ini_delete(ini);
}

static void a_bad_line_is_named_and_not_quoted(void **state) {
    (void)state;
    const char *bad[] = {"[a]\nsecret words", "[a\nx=1", "\n= secret", "[a]\n\x01=1\nsecret"};
    const char *line[] = {"line 2 ", "line 1 ", "line 2 ", "line 3 "};
    for (int i = 0; i < 4; i++) {
        fpc_ini *ini = NULL;
        fpc_error err;
        assert_int_equal(fpc_ini_parse(bad[i], strlen(bad[i]), 0, &ini, &err), FPC_INVALID);
        assert_null(ini);
        assert_non_null(strstr(err.message, line[i]));
        assert_null(strstr(err.message, "secret"));
    }
    fpc_ini *ini = NULL;
    fpc_error err;
    assert_int_equal(fpc_ini_parse("secret=1\n[a]", 12, 0, &ini, &err), FPC_INVALID);
    assert_int_equal(fpc_ini_parse("[a]\nx=1\0y", 9, 0, &ini, &err), FPC_INVALID);
}

static void a_file_may_be_missing_but_not_unreadable(void **state) {
    (void)state;
    fpc_ini *ini = NULL;
    fpc_error err;
    assert_int_equal(fpc_ini_load("/no/such/file", 0, &ini, &err), FPC_OK);
    assert_null(ini);
    assert_null(fpc_ini_get(ini, "a", "b"));
    assert_int_equal(fpc_ini_load("/", 0, &ini, &err), FPC_INVALID);
    assert_string_equal(err.message, "/ is no ordinary file");

    char path[] = "/tmp/fpcache-ini-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fpc_ini_load(path, 0, &ini, &err), FPC_OK); /* empty */
    assert_int_equal(write(fd, "[a]\nx=1\nsecret", 14), 14);
    assert_int_equal(fpc_ini_load(path, 0, &ini, &err), FPC_INVALID);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, ": line 3 "));
    assert_int_equal(ftruncate(fd, 8), 0);
    assert_int_equal(fpc_ini_load(path, 0, &ini, &err), FPC_OK);
    assert_string_equal(fpc_ini_get(ini, "a", "x"), "1");
    fpc_ini_delete(ini);
    fpc_secret_buffer text = {0};
    assert_int_equal(fpc_secret_read_file(&text, path, 7, &err), FPC_INVALID);
    assert_non_null(strstr(err.message, "longer than the 7 bytes"));
    fpc_secret_buffer_clear(&text);
    assert_int_equal(fpc_secret_read_file(&text, path, 8, &err), FPC_OK);
    assert_string_equal(text.bytes, "[a]\nx=1\n");
    fpc_secret_buffer_clear(&text);
    close(fd);
    unlink(path);
}

static void a_text_grows_and_escapes(void **state) {
    (void)state;
    fpc_secret_buffer text = {0};
    for (int i = 0; i < 1000; i++) fpc_secret_appendf(&text, "%d,", i);
    assert_int_equal(text.length, 3890);
    assert_int_equal(strlen(text.bytes), 3890);
    fpc_secret_buffer_clear(&text);
    fpc_http_encode(&text, "aZ09-_.~ /+=&%\xC3\xA4");
    assert_string_equal(text.bytes, "aZ09-_.~%20%2F%2B%3D%26%25%C3%A4");
    char *taken = fpc_secret_take(&text);
    assert_null(text.bytes);
    fpc_secret_free(taken);
    taken = fpc_secret_take(&text);
    assert_string_equal(taken, "");
    fpc_secret_free(taken);
    fpc_secret_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_and_keys_are_found),
        cmocka_unit_test(the_last_value_counts),
        cmocka_unit_test(a_comment_behind_a_value_needs_a_space),
        cmocka_unit_test(quotes_go_only_when_asked_for),
        cmocka_unit_test(an_indented_line_is_nested_only_when_asked_for),
        cmocka_unit_test(a_bad_line_is_named_and_not_quoted),
        cmocka_unit_test(a_file_may_be_missing_but_not_unreadable),
        cmocka_unit_test(a_text_grows_and_escapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
