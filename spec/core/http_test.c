/* http_test.c -- requests to a server that says what it was told to: headers, limits, deadlines, stops.  TLS
 * is tested with the stand-in workspace server, in the specs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "canned.h"
#include "fpcache/os.h"
#include "http.h"
#include "http_error.h"

static fpc_token_failure failure;
static fpc_http_response response;

/* Asks the canned server for "/a" with what `more` adds; keeps the answer in `response`. */
static fpc_status ask(int port, fpc_http_request more, fpc_http_options options) {
    char url[64];
    fpc_http *http;
    snprintf(url, sizeof url, "http://127.0.0.1:%d/a?q=secret", port);
    if (more.method == NULL) more.method = "GET";
    if (more.url == NULL) more.url = url;
    more.local = true;
    if (options.deadline == 0) options.deadline = fpc_deadline_in(20);
    if (options.stop_fd == 0) options.stop_fd = -1;
    fpc_http_response_clear(&response);
    memset(&failure, 0, sizeof failure);
    assert_int_equal(fpc_http_open(&options, &http, &failure), FPC_OK);
    fpc_status status = fpc_http_send(http, &more, &response, &failure);
    fpc_http_close(http);
    return status;
}

/* The same of a server that answers once. */
static fpc_status answered(const char *answer, fpc_http_request more, char **heard) {
    const char *const texts[] = {answer, NULL};
    int port = canned_start(texts);
    fpc_status status = ask(port, more, (fpc_http_options){.deadline = 0});
    char *said = canned_stop();
    if (heard != NULL)
        *heard = said;
    else
        free(said);
    return status;
}

static void a_request_says_what_was_asked_for(void **state) {
    (void)state;
    char *heard;
    fpc_http_request request = {.method = "POST",
                                .headers = {{"X-One", "1"}, {"X-Two", "2"}},
                                .user = "me:x",
                                .password = "pw",
                                .body = "a=b",
                                .body_len = 3};
    assert_int_equal(
        answered("HTTP/1.1 200 OK\r\nX-Say:  hi \r\nContent-Length: 2\r\n\r\nok", request, &heard), FPC_OK);
    assert_int_equal(response.status, 200);
    assert_string_equal(response.body.bytes, "ok");
    char *say = fpc_http_response_header(&response, "x-say");
    assert_string_equal(say, "hi");
    fpc_secret_free(say);
    assert_null(fpc_http_response_header(&response, "x-sa"));
    assert_non_null(strstr(heard, "POST /a?q=secret HTTP/1.1\r\n"));
    assert_non_null(strstr(heard, "X-One: 1\r\n"));
    assert_non_null(strstr(heard, "X-Two: 2\r\n"));
    assert_non_null(strstr(heard, "User-Agent: fpcache/"));
    assert_non_null(strstr(heard, "Content-Type: application/x-www-form-urlencoded\r\n"));
    assert_non_null(strstr(heard, "Authorization: Basic bWU6eDpwdw==\r\n"));
    assert_null(strstr(heard, "Expect"));
    assert_non_null(strstr(heard, "\r\n\r\na=b"));
    free(heard);
}

static void put_without_a_body_is_sent(void **state) {
    (void)state;
    char *heard;
    assert_int_equal(answered("HTTP/1.1 204 No\r\n\r\n", (fpc_http_request){.method = "PUT"}, &heard),
                     FPC_OK);
    assert_int_equal(response.status, 204);
    assert_string_equal(response.body.bytes, "");
    assert_non_null(strstr(heard, "PUT /a"));
    assert_non_null(strstr(heard, "Content-Length: 0\r\n"));
    free(heard);
}

static void retry_after_is_seconds_or_a_date(void **state) {
    (void)state;
    static const struct {
        const char *headers;
        double seconds;
    } CASES[] = {{"Retry-After: 7\r\n", 7},
                 {"Retry-After: 0\r\n", 0},
                 {"Retry-After: -5\r\n", 0},
                 {"Retry-After: soon\r\n", 0},
                 {"Retry-After: 99999999999999999999\r\n", 1e9},
                 {"Date: Mon, 23 Nov 2026 10:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 10:00:09 GMT\r\n", 9},
                 {"Date: Mon, 23 Nov 2026 10:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 09:00:09 GMT\r\n", 0},
                 {"", 0}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[256];
        snprintf(text, sizeof text, "HTTP/1.1 429 Slow\r\n%sContent-Length: 0\r\n\r\n", CASES[i].headers);
        assert_int_equal(answered(text, (fpc_http_request){.method = NULL}, NULL), FPC_OK);
        assert_float_equal(response.retry_after_s, CASES[i].seconds, 0);
        assert_int_equal(fpc_http_refused(&response, "it", &failure), FPC_SERVER);
        assert_float_equal(failure.retry_after_s, CASES[i].seconds, 0);
        assert_false(failure.permanent);
    }
}

static void redirects_are_not_followed(void **state) {
    (void)state;
    char *heard;
    assert_int_equal(
        answered("HTTP/1.1 302 Found\r\nLocation: /login.html?x=eyJabc\r\nContent-Length: 0\r\n\r\n",
                 (fpc_http_request){.method = NULL}, &heard),
        FPC_OK);
    free(heard);
    assert_int_equal(fpc_http_refused(&response, "it", &failure), FPC_INVALID);
    assert_true(failure.permanent);
    assert_non_null(strstr(failure.error.message, "\"/login.html\""));
}

static void too_large_an_answer_is_refused(void **state) {
    (void)state;
    fpc_http_request small = {.max_body = 10};
    assert_int_equal(answered("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n12345678901", small, NULL),
                     FPC_SERVER);
    assert_non_null(strstr(failure.error.message, "more than 10 bytes"));
    assert_int_equal(answered("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234567890", small, NULL),
                     FPC_OK);
}

static void a_connection_that_breaks_is_an_error_without_the_query(void **state) {
    (void)state;
    assert_int_equal(answered("", (fpc_http_request){.method = NULL}, NULL), FPC_CONNECT);
    assert_non_null(strstr(failure.error.message, "no answer from 127.0.0.1:"));
    assert_null(strstr(failure.error.message, "secret"));
    assert_false(failure.permanent);
    assert_int_equal(answered("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
                              (fpc_http_request){.method = NULL}, NULL),
                     FPC_CONNECT);
}

static void silence_ends_at_the_deadline_or_by_the_stop(void **state) {
    (void)state;
    static const char *const SILENT[] = {"...", NULL};
    int port = canned_start(SILENT);
    int64_t before = fpc_clock_ns();
    assert_int_equal(
        ask(port, (fpc_http_request){.method = NULL}, (fpc_http_options){.deadline = fpc_deadline_in(0.05)}),
        FPC_TIMEOUT);
    free(canned_stop());
    port = canned_start(SILENT);
    assert_int_equal(ask(port, (fpc_http_request){.timeout_s = 0.05}, (fpc_http_options){.deadline = 0}),
                     FPC_TIMEOUT);
    free(canned_stop());
    port = canned_start(SILENT);
    int stop = eventfd(1, EFD_CLOEXEC);
    assert_int_equal(ask(port, (fpc_http_request){.method = NULL}, (fpc_http_options){.stop_fd = stop}),
                     FPC_INTERRUPTED);
    close(stop);
    free(canned_stop());
    assert_true(fpc_clock_ns() - before < 10 * FPC_NS_PER_SECOND);
}

static void plain_http_is_for_local_addresses(void **state) {
    (void)state;
    static const char *const REFUSED[] = {"http://example.com/", "http://128.0.0.1/",
                                          "ftp://127.0.0.1/",    "http://127.0.0.1.example.com/",
                                          "file:///etc/passwd",  ""};
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        assert_int_equal(ask(1, (fpc_http_request){.url = REFUSED[i]}, (fpc_http_options){.deadline = 0}),
                         FPC_INVALID);
        assert_true(failure.permanent);
    }
    assert_true(fpc_http_is_local("http://169.254.169.254/x", false));
    assert_false(fpc_http_is_local("http://169.254.169.254/x", true));
    assert_true(fpc_http_is_local("http://[fd00:ec2::254]/x", false));
    assert_true(fpc_http_is_local("http://[::1]:80/x", true));
    assert_true(fpc_http_is_local("http://LOCALHOST:80/x", true));
    assert_true(fpc_http_is_local("http://metadata.google.internal/x", false));
    assert_false(fpc_http_is_local("http://localhost.example.com/x", false));
    assert_false(fpc_http_is_local("http://[fd00:ec3::254]/x", false));
}

static void forms_are_percent_encoded(void **state) {
    (void)state;
    fpc_secret_buffer form = {0};
    assert_true(fpc_http_form_add(&form, "a", "b c/d+\xC3\xA9"));
    assert_true(fpc_http_form_add(&form, "e", ""));
    assert_true(fpc_http_form_add(&form, "f", "x-y_z.~"));
    assert_string_equal(form.bytes, "a=b%20c%2Fd%2B%C3%A9&e=&f=x-y_z.~");
    fpc_secret_buffer_clear(&form);
}

static void lives_are_guarded_against_wrong_clocks(void **state) {
    (void)state;
    static const struct {
        double ours, theirs,
            valid; /* the clocks when the token ends at 10000 and we asked 1 s after the start */
    } CASES[] = {
        {6400, 6400, 3601},  /* both right */
        {6400, 0, 3601},     /* the server says no date */
        {5000, 6400, 3601},  /* ours is slow */
        {9000, 6400, 1001},  /* ours is fast: rather too short */
        {20000, 6400, 3601}, /* ours is so fast that it cannot be right */
        {6400, 20000, 3601}, /* nor can the server's */
        {20000, 20000, -1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fpc_http_response r = {
            .started = CASES[i].ours, .date = CASES[i].theirs, .started_ns = 5 * FPC_NS_PER_SECOND};
        assert_float_equal(fpc_http_valid_until(&r, 10000, 4 * FPC_NS_PER_SECOND), CASES[i].valid, 1e-9);
    }
    fpc_http_response r = {.started_ns = 5 * FPC_NS_PER_SECOND};
    assert_float_equal(fpc_http_valid_for(&r, 60, 2 * FPC_NS_PER_SECOND), 63, 1e-9);
}

static int clear_response(void **state) {
    (void)state;
    fpc_http_response_clear(&response);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_says_what_was_asked_for),
        cmocka_unit_test(put_without_a_body_is_sent),
        cmocka_unit_test(retry_after_is_seconds_or_a_date),
        cmocka_unit_test(redirects_are_not_followed),
        cmocka_unit_test(too_large_an_answer_is_refused),
        cmocka_unit_test(a_connection_that_breaks_is_an_error_without_the_query),
        cmocka_unit_test(silence_ends_at_the_deadline_or_by_the_stop),
        cmocka_unit_test(plain_http_is_for_local_addresses),
        cmocka_unit_test(forms_are_percent_encoded),
        cmocka_unit_test(lives_are_guarded_against_wrong_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, clear_response);
}
