/* http_error_test.c -- what the servers of several clouds say went wrong, and that no secret passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "http_error.h"

static void every_shape_of_body_is_read(void **state) {
    (void)state;
    static const struct {
        const char *body, *code, *message;
    } CASES[] = {
        {"{\"error_code\":\"RESOURCE_DOES_NOT_EXIST\",\"message\":\"no x\",\"details\":[]}",
         "RESOURCE_DOES_NOT_EXIST", "no x"},
        {"{\"error_code\":403,\"message\":\"no\"}", "403", "no"},
        {"{\"error\":\"RunNow failed\"}", "", "RunNow failed"},
        {"{\"error\":\"invalid_client\",\"error_description\":\"bad\\nsecret\"}", "invalid_client",
         "bad secret"},
        {"{\"errorCode\":\"E0000\",\"errorSummary\":\"sum\"}", "E0000", "sum"},
        {"{\"detail\":\"no such\",\"status\":\"404\",\"scimType\":\"invalidPath\"}", "invalidPath",
         "no such"},
        {"{\"detail\":\"no such\",\"status\":\"404\"}", "404", "no such"},
        {"{\"error\":{\"code\":401,\"message\":\"goo\",\"status\":\"UNAUTHENTICATED\"}}", "401", "goo"},
        {"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no role</Message></Error></ErrorResponse>",
         "AccessDenied", "no role"},
        {"PERMISSION_DENIED: not you", "PERMISSION_DENIED", "not you"},
        {"<html><head><title>502 Bad\r\n Gateway</title></head></html>", "", "502 Bad Gateway"},
        {"<HTML><PRE class=\"x\">stack</PRE></HTML>", "", "stack"},
        {"something else", "", ""},
        {"A: b", "", ""},
        {"<title", "", ""},
        {"[1]", "", ""},
        {"\"text\"", "", ""},
        {"{\"message\":{\"a\":1},\"error_code\":[]}", "", ""},
        {"", "", ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fpc_http_problem problem;
        fpc_http_problem_read(CASES[i].body, strlen(CASES[i].body), &problem);
        assert_string_equal(problem.code, CASES[i].code);
        assert_string_equal(problem.message, CASES[i].message);
    }
}

static fpc_status refused(int status, const char *body, fpc_token_failure *failure) {
    fpc_http_response response = {.status = status};
    assert_true(fpc_secret_append_text(&response.body, body));
    fpc_status result = fpc_http_refused(&response, "the workspace", failure);
    fpc_http_response_clear(&response);
    return result;
}

static void statuses_are_permanent_or_passing(void **state) {
    (void)state;
    static const struct {
        int http;
        fpc_status status;
        bool permanent;
    } CASES[] = {{400, FPC_INVALID, true}, {401, FPC_AUTH, true},    {403, FPC_DENIED, true},
                 {404, FPC_INVALID, true}, {408, FPC_SERVER, false}, {429, FPC_SERVER, false},
                 {500, FPC_SERVER, false}, {501, FPC_INVALID, true}, {502, FPC_SERVER, false},
                 {503, FPC_SERVER, false}, {504, FPC_SERVER, false}, {302, FPC_INVALID, true}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fpc_token_failure failure = {0};
        assert_int_equal(refused(CASES[i].http, "", &failure), CASES[i].status);
        assert_int_equal(failure.error.status, CASES[i].status);
        assert_int_equal(failure.permanent, CASES[i].permanent);
    }
    fpc_token_failure failure = {0};
    assert_int_equal(refused(400, "{\"error_code\":\"ABORTED\",\"message\":\"m\"}", &failure), FPC_SERVER);
    assert_false(failure.permanent);
    assert_string_equal(failure.error.message, "the workspace answered 400 ABORTED: m");
    refused(403, "", &failure);
    assert_string_equal(failure.error.message, "the workspace answered 403: permission denied");
}

static void secrets_are_starred_out(void **state) {
    (void)state;
    static const struct {
        const char *text, *clean;
    } CASES[] = {
        {"token eyJhbGciOi.abc-_.x is bad", "token *** is bad"},
        {"dapi0123456789abcdef", "***"},
        {"(dapi01)", "(***)"},
        {"?X-Amz-Signature=ab%2F&X-Amz-Date=1", "?***&***"},
        {"Bearer abc.def rest", "*** rest"},
        {"client_secret=abc&x=1", "***&x=1"},
        {"id 123e4567-e89b-12d3-a456-426614174000 stays", "id 123e4567-e89b-12d3-a456-426614174000 stays"},
        {"0123456789abcdef0123456789abcdef0123456789abcdef", "***"},
        {"projects/p/branches/b/endpoints/e stays", "projects/p/branches/b/endpoints/e stays"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[128];
        strcpy(text, CASES[i].text);
        fpc_secret_redact(text);
        assert_string_equal(text, CASES[i].clean);
    }
    fpc_token_failure failure = {0};
    refused(400, "{\"error_code\":\"E\",\"message\":\"the token eyJabcdef is bad\"}", &failure);
    assert_string_equal(failure.error.message, "the workspace answered 400 E: the token *** is bad");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_of_body_is_read),
        cmocka_unit_test(statuses_are_permanent_or_passing),
        cmocka_unit_test(secrets_are_starred_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
