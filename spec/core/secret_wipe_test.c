/* secret_wipe_test.c -- nothing that our code gives back to the allocator holds a secret: free(3) and
 * realloc(3) of this program look at each block before it goes.
 *
 * What the libraries free by themselves does not count (docs/tokens.md tells what they keep). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "canned.h"
#include "fpcache/conninfo.h"
#include "fpcache/token.h"
#include "http.h"
#include "secret.h"

#define SECRET "dapi5ec2e7f00dcafe0123456789abcdef0123456789abcdef0123"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_OWN_ALLOCATOR 1 /* the sanitizer's; it cannot be replaced */
#else
#define HAS_OWN_ALLOCATOR 0
extern void __libc_free(void *);           /* NOLINT(bugprone-reserved-identifier) */
extern char __executable_start[], etext[]; /* NOLINT(bugprone-reserved-identifier) */
#endif

static atomic_int unwiped; /* blocks with the secret that our code gave back */

#if !HAS_OWN_ALLOCATOR
static bool is_ours(const void *caller) {
    return (const char *)caller >= __executable_start && (const char *)caller < etext;
}

static void look(void *block, const void *caller) {
    static const char needle[] = SECRET; /* its first half is enough: half of a token is too much */
    if (block != NULL && is_ours(caller) &&
        memmem(block, malloc_usable_size(block), needle, sizeof needle / 2) != NULL)
        atomic_fetch_add(&unwiped, 1);
}

__attribute__((noinline, visibility("default"))) void free(void *block) {
    look(block, __builtin_return_address(0));
    __libc_free(block);
}

__attribute__((noinline, visibility("default"))) void *realloc(void *block, size_t size) {
    const void *caller = __builtin_return_address(0);
    void *larger = malloc(size);
    if (larger == NULL || block == NULL) return larger;
    size_t had = malloc_usable_size(block);
    memcpy(larger, block, had < size ? had : size);
    look(block, caller);
    __libc_free(block);
    return larger;
}
#endif

static fpc_error err;

static void nothing_was_left(void) {
    assert_int_equal(atomic_exchange(&unwiped, 0), 0);
}

static int begin(void **state) {
    (void)state;
    atomic_store(&unwiped, 0);
    return 0;
}

static void the_look_finds_what_is_not_wiped(void **state) {
    (void)state;
    char *volatile copy = strdup(SECRET);
    free(copy);
    copy = malloc(100);
    snprintf(copy, 100, "a %s in the midst", SECRET);
    copy = realloc(copy, 100000);
    explicit_bzero(copy, 100000);
    free(copy);
    assert_int_equal(atomic_exchange(&unwiped, 0), 2);
}

static void texts_and_buffers(void **state) {
    (void)state;
    fpc_secret_free(fpc_secret_dup(SECRET));
    char *text = fpc_secret_copy(SECRET, strlen(SECRET));
    fpc_secret_clear(&text);
    fpc_secret_buffer buffer = {0};
    for (int i = 0; i < 200; i++) fpc_secret_append_text(&buffer, SECRET); /* it moves while it grows */
    fpc_secret_appendf(&buffer, "%s", SECRET);
    fpc_secret_buffer_clear(&buffer);
    fpc_secret_append_text(&buffer, SECRET);
    fpc_secret_free(fpc_secret_take(&buffer));
    fpc_secret_append_text(&buffer, SECRET);
    buffer.failed = true;
    assert_null(fpc_secret_take(&buffer));
    nothing_was_left();
}

static void connections(void **state) {
    (void)state;
    fpc_conninfo *info = fpc_conninfo_new();
    assert_int_equal(fpc_conninfo_add(info, "password", SECRET, &err), FPC_OK);
    fpc_conninfo *copy = fpc_conninfo_copy(info);
    fpc_conninfo_delete(info);
    fpc_conninfo_delete(copy);
    info = fpc_conninfo_new();
    assert_int_equal(fpc_conninfo_parse(info, "host=/nonexistent password=" SECRET, &err), FPC_OK);
    fpc_conninfo_delete(info);
    nothing_was_left();
}

/* A keeper that is given passwords, and gives them to logins. */
static void tokens_that_are_replaced(void **state) {
    (void)state;
    fpc_token_keeper *keeper = fpc_token_keeper_new_pulled("test");
    for (int i = 0; i < 3; i++) {
        fpc_token given = {.password = strdup(SECRET), .valid_for_s = 100}, taken = {0};
        uint64_t generation;
        fpc_token_keeper_give(keeper, &given);
        assert_int_equal(fpc_token_keeper_get(keeper, FPC_NEVER, &taken, &generation, &err), FPC_OK);
        fpc_token_clear(&taken);
        assert_int_not_equal(fpc_token_keeper_refused(keeper, FPC_NEVER, &taken, &generation, &err), FPC_OK);
    }
    fpc_token_keeper_close(keeper);
    nothing_was_left();
}

static void settings_of_sources(void **state) {
    (void)state;
    fpc_token_setting settings[] = {
        {"instance_name", "i"}, {"host", "w.example"}, {"client_id", "c"}, {"client_secret", SECRET}};
    fpc_token_keeper *first, *second;
    assert_int_equal(fpc_token_keeper_open("databricks", settings, 4, &first, &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_open("databricks", settings, 4, &second, &err), FPC_OK);
    fpc_token_keeper_close(first);
    fpc_token_keeper_close(second);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    setenv("AWS_ACCESS_KEY_ID", "id", 1);
    fpc_token_setting aws[] = {{"host", "h"}, {"user", "u"}, {"region", "eu-west-1"}};
    assert_int_equal(fpc_token_keeper_open("aws", aws, 3, &first, &err), FPC_OK);
    fpc_token token = {0};
    uint64_t generation;
    assert_int_equal(fpc_token_keeper_get(first, fpc_deadline_in(20), &token, &generation, &err), FPC_OK);
    fpc_token_clear(&token);
    fpc_token_keeper_close(first);
    unsetenv("AWS_SECRET_ACCESS_KEY");
    unsetenv("AWS_ACCESS_KEY_ID");
    fpc_token_setting wrong[] = {{"client_secret", SECRET}, {"no_such", SECRET}};
    assert_int_equal(fpc_token_keeper_open("databricks", wrong, 2, &first, &err), FPC_INVALID);
    assert_null(strstr(err.message, SECRET));
    nothing_was_left();
}

/* One fetch of a keeper of the kind. */
static fpc_status fetch(const char *kind, const fpc_token_setting *settings, size_t count) {
    fpc_token_keeper *keeper;
    fpc_token token = {0};
    uint64_t generation;
    fpc_status status = fpc_token_keeper_open(kind, settings, count, &keeper, &err);
    if (status != FPC_OK) return status;
    status = fpc_token_keeper_get(keeper, fpc_deadline_in(20), &token, &generation, &err);
    if (status == FPC_OK) assert_non_null(strstr(token.password, SECRET));
    fpc_token_clear(&token);
    fpc_token_keeper_close(keeper);
    assert_null(strstr(err.message, SECRET));
    return status;
}

static void files_and_programs(void **state) {
    (void)state;
    char path[] = "/tmp/fpcache-wipe-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, SECRET "\n", sizeof SECRET), sizeof SECRET);
    close(fd);
    fpc_token_setting file = {"path", path};
    assert_int_equal(fetch("password_file", &file, 1), FPC_OK);
    assert_int_equal(chmod(path, 0644), 0);
    assert_int_not_equal(fetch("password_file", &file, 1), FPC_OK);
    unlink(path);
    fpc_token_setting line[] = {{"argv", "echo"}, {"argv", SECRET}};
    assert_int_equal(fetch("password_command", line, 2), FPC_OK);
    fpc_token_setting json[] = {{"argv", "echo"}, {"argv", "{\"token\": \"" SECRET "\"}"}};
    assert_int_equal(fetch("password_command", json, 2), FPC_OK);
    fpc_token_setting fails[] = {{"argv", "sh"}, {"argv", "-c"}, {"argv", "echo " SECRET " >&2; exit 1"}};
    assert_int_not_equal(fetch("password_command", fails, 3), FPC_OK);
    nothing_was_left();
}

static void answers_and_requests(void **state) {
    (void)state;
    static const char *const ANSWERS[] = {"HTTP/1.1 200 OK\r\nMetadata-Flavor: Google\r\nX-Echo: " SECRET
                                          "\r\nContent-Length: 96\r\n\r\n"
                                          "{\"token_type\":\"Bearer\",\"access_token\":\"" SECRET "\"}  ",
                                          NULL};
    char host[32];
    snprintf(host, sizeof host, "127.0.0.1:%d", canned_start(ANSWERS));
    setenv("GCE_METADATA_HOST", host, 1);
    fpc_token_setting user = {"user", "u"};
    assert_int_equal(fetch("google", &user, 1), FPC_OK);
    unsetenv("GCE_METADATA_HOST");
    free(canned_stop());
    static const char *const REFUSALS[] = {"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", NULL};
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/x", canned_start(REFUSALS));
    fpc_http_request request = {.method = "POST",
                                .url = url,
                                .headers = {{"Authorization", "Bearer " SECRET}},
                                .user = "u",
                                .password = SECRET,
                                .body = "token=" SECRET,
                                .body_len = 6 + strlen(SECRET),
                                .local = true};
    fpc_http_options options = {.deadline = fpc_deadline_in(20), .stop_fd = -1};
    fpc_http_response response = {0};
    fpc_token_failure failure = {0};
    fpc_http *http;
    assert_int_equal(fpc_http_open(&options, &http, &failure), FPC_OK);
    assert_int_equal(fpc_http_send(http, &request, &response, &failure), FPC_OK);
    fpc_http_response_clear(&response);
    fpc_http_close(http);
    char *heard = canned_stop();
    assert_non_null(strstr(heard, SECRET));
    nothing_was_left();
    explicit_bzero(heard, strlen(heard));
    free(heard);
}

#define TEST(f) cmocka_unit_test_setup(f, begin)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_look_finds_what_is_not_wiped),
        TEST(texts_and_buffers),
        TEST(connections),
        TEST(tokens_that_are_replaced),
        TEST(settings_of_sources),
        TEST(files_and_programs),
        TEST(answers_and_requests),
    };
    if (HAS_OWN_ALLOCATOR) return 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
