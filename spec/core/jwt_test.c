/* jwt_test.c -- when a JWT says that it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "token/jwt.h"

static void the_end_is_read(void **state) {
    (void)state;
    static const struct {
        const char *token;
        double expiry; /* 0: none */
    } CASES[] = {
        {"e30.eyJleHAiOjE3OTU0MzQ3NDV9.x", 1795434745}, /* {"exp":1795434745} */
        {"e30.eyJleHAiOjEuNX0.", 1.5},                  /* {"exp":1.5} */
        {"e30.eyJzdWIiOiJhIn0.x", 0},                   /* {"sub":"a"} */
        {"e30.eyJleHAiOiIxIn0.x", 0},                   /* {"exp":"1"} */
        {"e30.eyJleHAiOi0xfQ.x", 0},                    /* {"exp":-1} */
        {"e30.eyJleHAiOjE.x", 0},                       /* cut */
        {"e30.eyJleHAi+jE3OTU0MzQ3NDV9.x", 0},          /* no base64url */
        {"e30.eyJleHAiOjE3OTU0MzQ3NDV9", 0},            /* two parts */
        {"e30.eyJleHAiOjE3OTU0MzQ3NDV9.x.y", 0},        /* four */
        {"..", 0},
        {"opaque", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        double seconds = 0;
        assert_int_equal(fpc_jwt_expiry(CASES[i].token, &seconds), CASES[i].expiry > 0);
        assert_float_equal(seconds, CASES[i].expiry, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_end_is_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
