/* sigv4_test.c -- AWS signatures against known ones: AWS's documents, botocore's own test, and values
 * computed with botocore and with Python's hmac. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "token/sigv4.h"

#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

#define NOON_2016 1478540373 /* 20161107T173933Z */
#define NEW_YEAR  1767225600 /* 20260101T000000Z */

static void the_key_is_that_of_the_documents(void **state) {
    (void)state;
    fpc_sigv4 with = {.secret = SECRET, .region = "us-east-1", .service = "iam"};
    unsigned char key[32];
    char hex[65];
    assert_true(fpc_sigv4_key(&with, "20120215", key));
    for (size_t i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", key[i]);
    assert_string_equal(hex, "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
}

static void expect_presigned(const fpc_sigv4 *with, const char *host, const fpc_sigv4_field *fields,
                             size_t count, const char *expected) {
    fpc_secret_buffer out = {0};
    fpc_error err;
    assert_int_equal(fpc_sigv4_presign(with, host, fields, count, 900, &out, &err), FPC_OK);
    assert_string_equal(out.bytes, expected);
    fpc_secret_buffer_clear(&out);
}

static void a_database_token_is_that_of_botocore(void **state) {
    (void)state;
    fpc_sigv4 with = {
        .key_id = "akid", .secret = "skid", .region = "us-east-1", .service = "rds-db", .now = NOON_2016};
    fpc_sigv4_field fields[] = {{"Action", "connect"}, {"DBUser", "someusername"}};
    expect_presigned(
        &with, "prod-instance.us-east-1.rds.amazonaws.com:3306", fields, 2,
        "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=someusername"
        "&X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=akid%2F20161107%2Fus-east-1%2Frds-db%2Faws4_request&X-Amz-Date=20161107T173933Z"
        "&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=d1138cdbc0ca63eec012ec0fc6c2267e03642168f5884a7795320d4c18374c61");
}

static void odd_characters_and_a_session_are_escaped(void **state) {
    (void)state;
    fpc_sigv4 with = {.key_id = "AKIDEXAMPLE",
                      .secret = SECRET,
                      .session = "tok/en+==",
                      .region = "eu-west-1",
                      .service = "rds-db",
                      .now = NEW_YEAR};
    fpc_sigv4_field fields[] = {{"Action", "connect"}, {"DBUser", "a b@c"}};
    expect_presigned(&with, "db.cluster-xyz.eu-west-1.rds.amazonaws.com:5432", fields, 2,
                     "db.cluster-xyz.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=a%20b%40c"
                     "&X-Amz-Algorithm=AWS4-HMAC-SHA256"
                     "&X-Amz-Credential=AKIDEXAMPLE%2F20260101%2Feu-west-1%2Frds-db%2Faws4_request"
                     "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-Security-Token=tok%2Fen%2B%3D%3D"
                     "&X-Amz-SignedHeaders=host"
                     "&X-Amz-Signature=a4fc6362a057c4a6d3be5d00b89de85a4e9c89db1d59cf5514071ee8d016fc46");
}

static void a_token_of_dsql_has_no_port_and_no_user(void **state) {
    (void)state;
    fpc_sigv4 with = {
        .key_id = "AKIDEXAMPLE", .secret = SECRET, .region = "us-east-1", .service = "dsql", .now = NEW_YEAR};
    fpc_sigv4_field fields[] = {{"Action", "DbConnectAdmin"}};
    expect_presigned(&with, "abc.dsql.us-east-1.on.aws", fields, 1,
                     "abc.dsql.us-east-1.on.aws/?Action=DbConnectAdmin&X-Amz-Algorithm=AWS4-HMAC-SHA256"
                     "&X-Amz-Credential=AKIDEXAMPLE%2F20260101%2Fus-east-1%2Fdsql%2Faws4_request"
                     "&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host"
                     "&X-Amz-Signature=bded67f33464e06847790f804350b7b912f07b25ee31e61deef358c52eb6271a");
}

static void a_post_is_signed_in_its_header(void **state) {
    (void)state;
    const char *body = "Action=AssumeRole&Version=2011-06-15";
    fpc_sigv4 with = {.key_id = "AKIDEXAMPLE",
                      .secret = SECRET,
                      .session = "tok/en+==",
                      .region = "eu-west-1",
                      .service = "sts",
                      .now = NEW_YEAR};
    char date[FPC_SIGV4_DATE_SIZE];
    fpc_secret_buffer out = {0};
    fpc_error err;
    assert_int_equal(
        fpc_sigv4_authorize(&with, "sts.eu-west-1.amazonaws.com", body, strlen(body), date, &out, &err),
        FPC_OK);
    assert_string_equal(date, "20260101T000000Z");
    assert_string_equal(out.bytes,
                        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/sts/aws4_request, "
                        "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
                        "Signature=294a51c6468d9115c124fe40b6d4804ffc520ec30e4c27fefb02ad9a8bbd8157");
    fpc_secret_buffer_clear(&out);
    with.session = NULL;
    assert_int_equal(
        fpc_sigv4_authorize(&with, "sts.eu-west-1.amazonaws.com", body, strlen(body), date, &out, &err),
        FPC_OK);
    assert_string_equal(out.bytes,
                        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/sts/aws4_request, "
                        "SignedHeaders=content-type;host;x-amz-date, "
                        "Signature=5f5b69e15de0bf34c73f25a70b99a8c0c4c468a305ec72b1533e45e2a5f24f34");
    fpc_secret_buffer_clear(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_key_is_that_of_the_documents),
        cmocka_unit_test(a_database_token_is_that_of_botocore),
        cmocka_unit_test(odd_characters_and_a_session_are_escaped),
        cmocka_unit_test(a_token_of_dsql_has_no_port_and_no_user),
        cmocka_unit_test(a_post_is_signed_in_its_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
