/* bell_test.c -- a queue that rings on a connection of its own process. */
#include "fpcache/bell.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static bool is_readable(int fd) {
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

static fpc_completions *new_queue(void) {
    fpc_completions *queue;
    assert_int_equal(fpc_completions_new(10, &queue, NULL), FPC_OK);
    return queue;
}

static fpc_bell *new_bell(void) {
    fpc_bell *bell;
    assert_int_equal(fpc_bell_new("/tmp", &bell, NULL), FPC_OK);
    return bell;
}

static void rings_instead_of_the_descriptor(void **state) {
    (void)state;
    char byte[8];
    fpc_completions *queue = new_queue();
    fpc_bell *bell = new_bell();
    fpc_completions_wake(queue); /* before: the bell takes it over */
    int fd = connect_to(fpc_bell_path(bell));
    assert_int_equal(fpc_bell_attach(bell, queue, NULL), FPC_OK);
    fpc_bell_delete(bell); /* the connection stays */
    assert_false(is_readable(fpc_completions_fd(queue)));
    for (int round = 0; round < 3; round++) {
        assert_false(is_readable(fd));
        fpc_completions_wake(queue);
        fpc_completions_wake(queue);
        assert_false(is_readable(fpc_completions_fd(queue)));
        assert_int_equal(recv(fd, byte, sizeof byte, 0), 1); /* once, until it is fetched */
        assert_null(fpc_completions_next(queue));
    }
    fpc_completions_silence(queue);
    fpc_completions_wake(queue);
    assert_true(is_readable(fpc_completions_fd(queue)));
    assert_int_equal(recv(fd, byte, sizeof byte, 0), 0); /* its end is closed */
    close(fd);
    fpc_completions_delete(queue);
}

static void survives_the_other_end(void **state) {
    (void)state;
    fpc_completions *queue = new_queue();
    fpc_bell *bell = new_bell();
    close(connect_to(fpc_bell_path(bell)));
    assert_int_equal(fpc_bell_attach(bell, queue, NULL), FPC_OK);
    fpc_completions_wake(queue); /* no signal */
    int fd = connect_to(fpc_bell_path(bell));
    assert_int_equal(fpc_bell_attach(bell, queue, NULL), FPC_OK); /* another one */
    fpc_completions_wake(queue);
    assert_true(is_readable(fd));
    fpc_bell_delete(bell);
    fpc_completions_delete(queue);
    close(fd);
}

static void takes_its_own_process_only(void **state) {
    (void)state;
    fpc_error err;
    fpc_completions *queue = new_queue();
    fpc_bell *bell = new_bell();
    assert_int_equal(fpc_bell_attach(bell, queue, &err), FPC_CONNECT);
    pid_t child = fork();
    if (child == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, fpc_bell_path(bell), sizeof address.sun_path - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        _exit(connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(fpc_bell_attach(bell, queue, &err), FPC_DENIED);
    assert_non_null(strstr(err.message, "another process"));
    fpc_completions_wake(queue);
    assert_true(is_readable(fpc_completions_fd(queue))); /* as before */
    fpc_bell_delete(bell);
    fpc_completions_delete(queue);
}

static void is_for_its_user_and_leaves_nothing(void **state) {
    (void)state;
    struct stat found;
    char path[200], folder[200];
    fpc_bell *bell = new_bell();
    strcpy(path, fpc_bell_path(bell));
    strcpy(folder, path);
    *strrchr(folder, '/') = '\0';
    assert_int_equal(stat(folder, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0700);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    fpc_bell_delete(bell);
    assert_int_not_equal(stat(folder, &found), 0);
    fpc_bell_delete(NULL);
}

static void says_why_it_cannot(void **state) {
    (void)state;
    fpc_error err;
    fpc_bell *bell = NULL;
    char parent[300] = "/tmp/";
    assert_int_equal(fpc_bell_new("/nowhere", &bell, &err), FPC_DENIED);
    assert_non_null(strstr(err.message, "/nowhere"));
    memset(parent + 5, 'x', sizeof parent - 6);
    assert_int_equal(fpc_bell_new(parent, &bell, &err), FPC_INVALID);
    assert_non_null(strstr(err.message, "too long"));
    assert_null(bell);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rings_instead_of_the_descriptor), cmocka_unit_test(survives_the_other_end),
        cmocka_unit_test(takes_its_own_process_only), cmocka_unit_test(is_for_its_user_and_leaves_nothing),
        cmocka_unit_test(says_why_it_cannot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
