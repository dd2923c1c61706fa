/* aws_test.c -- reading what AWS's services and files say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "canned.h"
#include "fpcache/os.h"
#include "fpcache/token_source.h"
#include "token/aws.h"

#define STS(end)                                                                                             \
    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>"             \
    "<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser><Credentials>\n"           \
    "  <AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>se/cr+et</SecretAccessKey>\n"                        \
    "  <SessionToken>tok/en==</SessionToken><Expiration>2026-01-01T00:15:00Z</Expiration>\n"                 \
    "</Credentials>" end

static void the_xml_of_sts_is_read(void **state) {
    (void)state;
    const char *text = STS("</AssumeRoleResult></AssumeRoleResponse>");
    fpc_aws_raw_keys keys;
    assert_true(fpc_aws_read_sts(text, strlen(text), &keys));
    assert_string_equal(keys.id, "ASIA1");
    assert_string_equal(keys.secret, "se/cr+et");
    assert_string_equal(keys.session, "tok/en==");
    assert_true(keys.expires == 1767226500);
    fpc_aws_raw_keys_clear(&keys);
    /* cut anywhere inside the credentials it is refused */
    size_t whole = (size_t)(strstr(text, "</Credentials>") - text) + strlen("</Credentials>");
    for (size_t length = 0; length < whole; length++) {
        char *cut = malloc(length + 1);
        memcpy(cut, text, length);
        cut[length] = '\0';
        if (fpc_aws_read_sts(cut, length, &keys)) fail_msg("taken when cut after %zu bytes", length);
        assert_null(keys.id);
        free(cut);
    }
}

static void the_json_of_sts_is_read(void **state) {
    (void)state;
    const char *text =
        "{\"AssumeRoleWithWebIdentityResponse\":{\"ResponseMetadata\":{},\"AssumeRoleWithWebIdentityResult\":"
        "{"
        "\"Credentials\":{\"AccessKeyId\":\"ASIA2\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\","
        "\"Expiration\":1.7672265E9}}}}";
    fpc_aws_raw_keys keys;
    assert_true(fpc_aws_read_sts(text, strlen(text), &keys));
    assert_string_equal(keys.id, "ASIA2");
    assert_true(keys.expires == 1767226500);
    fpc_aws_raw_keys_clear(&keys);
}

static void odd_answers_are_refused(void **state) {
    (void)state;
    static const char *const BAD[] = {
        "",
        "{}",
        "[]",
        "{\"AccessKeyId\":\"a\"}",
        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"\"}",
        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\",\"Expiration\":\"soon\"}",
        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\",\"Expiration\":true}",
        "{\"AccessKeyId\":\"a\\r\\nX: y\",\"SecretAccessKey\":\"b\"}",
        "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\",\"Token\":\"c d\"}",
        "<html>no</html>",
        "<Credentials><AccessKeyId>a</AccessKeyId></Credentials>",
    };
    fpc_aws_raw_keys keys;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        if (fpc_aws_read_json(BAD[i], strlen(BAD[i]), "Token", &keys)) fail_msg("JSON %zu was taken", i);
        assert_null(keys.secret);
        if (fpc_aws_read_sts(BAD[i], strlen(BAD[i]), &keys)) fail_msg("STS %zu was taken", i);
        assert_null(keys.secret);
    }
    const char *good = "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\"}";
    assert_true(fpc_aws_read_json(good, strlen(good), "Token", &keys));
    assert_null(keys.session);
    assert_true(isnan(keys.expires));
    fpc_aws_raw_keys_clear(&keys);
}

static void expect_words(const char *line, int count, const char *const *expected) {
    char copy[100], *words[5];
    snprintf(copy, sizeof copy, "%s", line);
    assert_int_equal(fpc_aws_split(copy, words, 5), count);
    for (int i = 0; i < count; i++) assert_string_equal(words[i], expected[i]);
    if (count >= 0) assert_null(words[count]);
}

static void a_command_is_cut_as_a_shell_does(void **state) {
    (void)state;
    expect_words("/bin/x --a b", 3, (const char *[]){"/bin/x", "--a", "b"});
    expect_words("  \"/a dir/x\"\t'it''s' ", 2, (const char *[]){"/a dir/x", "its"});
    expect_words("a\\ b \"c\\\"d\" '\\e' \"\\f\"", 4, (const char *[]){"a b", "c\"d", "\\e", "\\f"});
    expect_words("x \"\" $HOME;y", 3, (const char *[]){"x", "", "$HOME;y"});
    expect_words("", 0, NULL);
    expect_words("a b c d", 4, (const char *[]){"a", "b", "c", "d"});
    expect_words("a b c d e", -1, NULL);
    expect_words("a 'b", -1, NULL);
}

static void the_host_tells_the_region(void **state) {
    (void)state;
    static const char *const HOSTS[][2] = {
        {"db.abc123.us-east-1.rds.amazonaws.com", "us-east-1"},
        {"db.cluster-ro-abc.eu-central-2.RDS.amazonaws.com", "eu-central-2"},
        {"db.abc.rds.cn-north-1.amazonaws.com.cn", NULL},
        {"db.abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"},
        {"db.abc.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"},
        {"abc.dsql.us-east-2.on.aws", "us-east-2"},
        {"db.example.com", NULL},
        {"rds.amazonaws.com", NULL},
        {".rds.amazonaws.com", NULL},
        {"x.dsql.example.com", NULL},
    };
    for (size_t i = 0; i < sizeof HOSTS / sizeof HOSTS[0]; i++) {
        char region[64] = "";
        bool found = fpc_aws_region_of_host(HOSTS[i][0], region, sizeof region);
        if (found != (HOSTS[i][1] != NULL)) fail_msg("%s: %s", HOSTS[i][0], region);
        if (found) assert_string_equal(region, HOSTS[i][1]);
    }
}

static void write_file(char path[], const char *text) {
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void profiles_are_found_in_both_files(void **state) {
    (void)state;
    char config[] = "/tmp/fpcache-aws-XXXXXX", credentials[] = "/tmp/fpcache-aws-XXXXXX";
    write_file(config,
               "[default]\nregion = us-east-1\n[profile a]\nregion = r1\naws_access_key_id = from-config\n"
               "services = s\n[profile \"b c\"]\nregion = r2\n[a]\nregion = not-a-profile\n"
               "[services s]\nsts =\n  endpoint_url = http://localhost:1\n"
               "[profile d]\nendpoint_url = http://localhost:2\nregion =\n");
    write_file(credentials, "[a]\naws_access_key_id = AKIA1\naws_secret_access_key = s#e;c\n[only]\nx=1\n");
    fpc_aws_files files;
    fpc_error err;
    assert_int_equal(fpc_aws_files_load(config, credentials, &files, &err), FPC_OK);
    assert_string_equal(fpc_aws_files_get(&files, "default", "region"), "us-east-1");
    assert_string_equal(fpc_aws_files_get(&files, "a", "region"), "r1");
    assert_string_equal(fpc_aws_files_get(&files, "b c", "region"), "r2");
    assert_string_equal(fpc_aws_files_get(&files, "a", "aws_access_key_id"), "AKIA1");
    assert_string_equal(fpc_aws_files_config(&files, "a", "aws_access_key_id"), "from-config");
    assert_string_equal(fpc_aws_files_credentials(&files, "a", "aws_secret_access_key"), "s#e;c");
    assert_string_equal(fpc_aws_files_endpoint(&files, "a", "sts"), "http://localhost:1");
    assert_string_equal(fpc_aws_files_endpoint(&files, "d", "sts"), "http://localhost:2");
    assert_null(fpc_aws_files_get(&files, "d", "region"));
    assert_null(fpc_aws_files_endpoint(&files, "b c", "sts"));
    assert_true(fpc_aws_files_has(&files, "only"));
    assert_false(fpc_aws_files_has(&files, "services s"));
    assert_false(fpc_aws_files_has(&files, "nobody"));
    fpc_aws_files_clear(&files);
    unlink(config);
    assert_int_equal(fpc_aws_files_load(config, credentials, &files, &err), FPC_OK);
    assert_null(fpc_aws_files_get(&files, "a", "region"));
    fpc_aws_files_clear(&files);
    unlink(credentials);
}

/* --- Keys that are kept --- */

static int64_t skipped_ns; /* how far our clock is ahead */

static int64_t our_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * FPC_NS_PER_SECOND + now.tv_nsec + skipped_ns;
}

#define OK_HEAD "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
#define BUSY    "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

/* What an instance's metadata service says about its keys, which end in an hour. */
static const char *keys_of_an_hour(void) {
    static char text[400];
    char body[240], end[32];
    time_t at = time(NULL) + 3600;
    struct tm utc;
    strftime(end, sizeof end, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&at, &utc));
    int length = snprintf(body, sizeof body,
                          "{\"Code\":\"Success\",\"AccessKeyId\":\"ASIAOLD\",\"SecretAccessKey\":\"s3cret\","
                          "\"Token\":\"t0ken\",\"Expiration\":\"%s\"}",
                          end);
    snprintf(text, sizeof text, OK_HEAD "%d\r\n\r\n%s", length, body);
    return text;
}

/* The life of the token that is signed with the old keys; below 0: there is none. */
static double fetch_life(fpc_token_source *source, fpc_token_failure *failure) {
    fpc_token_fetch how = {.deadline = fpc_deadline_in(30), .stop_fd = -1};
    fpc_token token;
    if (source->class->fetch(source, &how, &token, failure) != FPC_OK) return -1;
    double life = token.valid_for_s;
    if (strstr(token.password, "ASIAOLD") == NULL) fail_msg("signed with other keys");
    fpc_token_clear(&token);
    return life;
}

static void keys_are_used_on_while_no_others_can_be_had(void **state) {
    (void)state;
    const char *const answers[] = {OK_HEAD "3\r\n\r\nt0k",
                                   OK_HEAD "4\r\n\r\nrole",
                                   keys_of_an_hour(),
                                   BUSY,
                                   BUSY,
                                   BUSY,
                                   BUSY,
                                   BUSY,
                                   BUSY,
                                   NULL};
    static const char *const OTHERS[] = {"AWS_ACCESS_KEY_ID",
                                         "AWS_PROFILE",
                                         "AWS_DEFAULT_PROFILE",
                                         "AWS_WEB_IDENTITY_TOKEN_FILE",
                                         "AWS_EC2_METADATA_DISABLED",
                                         "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                         "AWS_CONTAINER_CREDENTIALS_FULL_URI"};
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) unsetenv(OTHERS[i]);
    char url[64];
    fpc_error err;
    fpc_token_failure failure = {0};
    fpc_token_source *source;
    snprintf(url, sizeof url, "http://127.0.0.1:%d", canned_start(answers));
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url, 1);
    setenv("HOME", "/nonexistent", 1);
    fpc_token_setting settings[] = {{"host", "h"}, {"user", "u"}, {"region", "eu-west-1"}};
    fpc_clock_override(our_clock);
    assert_int_equal(fpc_token_source_new("aws", settings, 3, &source, &err), FPC_OK);
    assert_true(fetch_life(source, &failure) > 890); /* of a token; the keys' own is longer */
    skipped_ns = 2690 * FPC_NS_PER_SECOND;           /* they are renewed 15 minutes before their end */
    assert_true(fetch_life(source, &failure) > 890);
    skipped_ns = 3000 * FPC_NS_PER_SECOND;
    double life = fetch_life(source, &failure); /* the service is busy: signed with the old ones */
    if (!(life > 590 && life <= 600)) fail_msg("the life is %f: %s", life, failure.error.message);
    skipped_ns = 3550 * FPC_NS_PER_SECOND; /* they have too little left */
    assert_true(fetch_life(source, &failure) < 0);
    assert_non_null(strstr(failure.error.message, "503"));
    assert_false(failure.permanent);
    fpc_token_source_delete(source);
    fpc_clock_override(NULL);
    unsetenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    char *heard = canned_stop();
    assert_non_null(strstr(heard, "PUT /latest/api/token"));
    free(heard);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_xml_of_sts_is_read),
        cmocka_unit_test(the_json_of_sts_is_read),
        cmocka_unit_test(odd_answers_are_refused),
        cmocka_unit_test(a_command_is_cut_as_a_shell_does),
        cmocka_unit_test(the_host_tells_the_region),
        cmocka_unit_test(profiles_are_found_in_both_files),
        cmocka_unit_test(keys_are_used_on_while_no_others_can_be_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
