/* conn_login_test.c -- which refusals of a server another password is fetched for.  The server here says what
 * it is told to: real ones are in the specs, but their clouds' own words are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fpcache/conn.h"
#include "fpcache/conninfo.h"
#include "token/keeper.h"

static fpc_error err;

/* --- A server that asks for a clear-text password and refuses it --- */

static struct {
    char dir[64], path[100];
    int fd;
    pthread_t thread;
    const char *sqlstate, *words; /* NULL: it hangs up without a word */
    atomic_int logins;
    char passwords[8][64];
} server;

static bool read_all(int fd, char *to, size_t size) {
    for (size_t got = 0; got < size;) {
        ssize_t n = read(fd, to + got, size - got);
        if (n <= 0) return false;
        got += (size_t)n;
    }
    return true;
}

static size_t read_length(const char *at) {
    const unsigned char *b = (const unsigned char *)at;
    return (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
}

static void refuse(int fd) {
    char message[300] = {'E'};
    size_t length = 5;
    length += (size_t)sprintf(message + length, "SFATAL") + 1;
    length += (size_t)sprintf(message + length, "C%s", server.sqlstate) + 1;
    length += (size_t)sprintf(message + length, "M%s", server.words) + 1;
    message[length++] = '\0';
    message[3] = (char)((length - 1) >> 8);
    message[4] = (char)(length - 1);
    if (write(fd, message, length) < 0) abort();
}

/* The startup packet, our wish for a password, the password, the refusal. */
static void serve(int fd) {
    static const char WISH[] = {'R', 0, 0, 0, 8, 0, 0, 0, 3};
    char head[5], rest[1000];
    if (!read_all(fd, head, 4) || !read_all(fd, rest, read_length(head) - 4)) return;
    if (write(fd, WISH, sizeof WISH) < 0 || !read_all(fd, head, 5)) return;
    size_t length = read_length(head + 1) - 4;
    if (head[0] != 'p' || length > 60 || !read_all(fd, rest, length)) return;
    int number = atomic_fetch_add(&server.logins, 1);
    if (number < 8) memcpy(server.passwords[number], rest, length);
    if (server.sqlstate != NULL) refuse(fd);
}

static void *accept_all(void *arg) {
    (void)arg;
    for (int fd; (fd = accept(server.fd, NULL, NULL)) >= 0;) {
        serve(fd);
        close(fd);
    }
    return NULL;
}

static void start_server(void) {
    memset(&server, 0, sizeof server);
    strcpy(server.dir, "/tmp/fpcache-login-XXXXXX");
    assert_non_null(mkdtemp(server.dir));
    snprintf(server.path, sizeof server.path, "%s/.s.PGSQL.5432", server.dir);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", server.path);
    server.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server.fd, 8), 0);
    assert_int_equal(pthread_create(&server.thread, NULL, accept_all, NULL), 0);
}

static void stop_server(void) {
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    unlink(server.path);
    rmdir(server.dir);
}

/* --- Passwords with numbers --- */

static atomic_int fetches;

static fpc_status fetch(fpc_token_source *self, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    (void)self;
    (void)how;
    (void)failure;
    char password[32];
    snprintf(password, sizeof password, "password %d", atomic_fetch_add(&fetches, 1) + 1);
    *out = (fpc_token){.password = strdup(password), .valid_for_s = 3600};
    return FPC_OK;
}

static void destroy(fpc_token_source *self) {
    free(self);
}

static fpc_status make(void *arg, fpc_token_source **out, fpc_error *e) {
    (void)arg;
    (void)e;
    static const fpc_token_source_class CLASS = {.name = "numbers", .fetch = fetch, .destroy = destroy};
    *out = calloc(1, sizeof **out);
    (*out)->class = &CLASS;
    return FPC_OK;
}

/* One connection, with a keeper of its own. */
static fpc_status log_in(void) {
    fpc_token_origin origin = {.make = make};
    fpc_token_keeper *keeper;
    fpc_conn_options options = {.prepared = true};
    fpc_conn *conn = NULL;
    atomic_store(&fetches, 0);
    atomic_store(&server.logins, 0);
    fpc_conninfo *info = fpc_conninfo_new();
    assert_int_equal(fpc_conninfo_add(info, "host", server.dir, &err), FPC_OK);
    assert_int_equal(fpc_conninfo_add(info, "user", "ann", &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_new("numbers", &origin, &keeper, &err), FPC_OK);
    assert_int_equal(fpc_conninfo_set_token(info, keeper, NULL, NULL, &err), FPC_OK);
    fpc_status status = fpc_conn_open(info, &options, fpc_deadline_in(20), &conn, &err);
    assert_null(conn);
    fpc_conninfo_delete(info);
    fpc_token_keeper_close(keeper);
    return status;
}

/* --- Tests --- */

static void another_password_is_tried_once(void **state) {
    (void)state;
    static const char *const CASES[][2] = {{"28P01", "password authentication failed for user \"ann\""},
                                           {"28000", "role \"ann\" is not permitted to log in"},
                                           {"XX000", "External authorization failed. Token is expired"},
                                           {"08P01", "Token Authentication Failed"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        server.sqlstate = CASES[i][0];
        server.words = CASES[i][1];
        assert_int_equal(log_in(), FPC_AUTH);
        assert_int_equal(atomic_load(&server.logins), 2);
        assert_int_equal(atomic_load(&fetches), 2);
        assert_string_equal(server.passwords[0], "password 1");
        assert_string_equal(server.passwords[1], "password 2");
        assert_string_equal(err.sqlstate, server.sqlstate);
        assert_non_null(strstr(err.message, "new passwords from numbers were refused too"));
        assert_null(strstr(err.message, "password 1"));
        assert_null(strstr(err.message, "password 2"));
    }
}

static void what_no_password_helps_is_not_tried_again(void **state) {
    (void)state;
    static const char *const CASES[][2] = {{"3D000", "database \"x\" does not exist"},
                                           {"53300", "too many connections"},
                                           {"57P03", "the database system is starting up"},
                                           {"42501", "permission denied for database \"x\""},
                                           {NULL, NULL}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        server.sqlstate = CASES[i][0];
        server.words = CASES[i][1];
        assert_int_not_equal(log_in(), FPC_OK);
        assert_int_not_equal(err.status, FPC_AUTH);
        assert_int_equal(atomic_load(&server.logins), 1);
        assert_int_equal(atomic_load(&fetches), 1);
    }
}

static int begin(void **state) {
    (void)state;
    start_server();
    return 0;
}

static int end(void **state) {
    (void)state;
    stop_server();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(another_password_is_tried_once, begin, end),
        cmocka_unit_test_setup_teardown(what_no_password_helps_is_not_tried_again, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
