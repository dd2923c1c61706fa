/* bell_threads_test.c -- one thread wakes a queue while its owner changes between bells and the descriptor.
 */
#include "fpcache/bell.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUNDS  200
#define WAIT_MS 5000

typedef struct waker {
    fpc_completions *queue;
    atomic_bool is_over;
    atomic_uint asked, answered; /* a wake-up is asked for, and has been made */
} waker;

static void *wake(void *arg) {
    waker *w = arg;
    while (!atomic_load(&w->is_over)) {
        if (atomic_load(&w->asked) == atomic_load(&w->answered)) continue;
        fpc_completions_wake(w->queue);
        atomic_fetch_add(&w->answered, 1);
    }
    return NULL;
}

static void wait_readable(int fd) {
    struct pollfd item = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&item, 1, WAIT_MS), 1);
}

static void no_wake_up_is_lost(void **state) {
    (void)state;
    waker w = {0};
    pthread_t thread;
    char bytes[64];
    assert_int_equal(fpc_completions_new(10, &w.queue, NULL), FPC_OK);
    assert_int_equal(pthread_create(&thread, NULL, wake, &w), 0);
    for (int round = 0; round < ROUNDS; round++) {
        fpc_bell *bell;
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        assert_int_equal(fpc_bell_new("/tmp", &bell, NULL), FPC_OK);
        strncpy(address.sun_path, fpc_bell_path(bell), sizeof address.sun_path - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(fpc_bell_attach(bell, w.queue, NULL), FPC_OK);
        fpc_bell_delete(bell);
        for (int i = 0; i < 5; i++) { /* each is fetched before the next is asked for */
            atomic_fetch_add(&w.asked, 1);
            wait_readable(fd);
            assert_true(recv(fd, bytes, sizeof bytes, 0) > 0);
            while (atomic_load(&w.asked) != atomic_load(&w.answered)) {
            }
            assert_null(fpc_completions_next(w.queue));
        }
        fpc_completions_silence(w.queue);
        atomic_fetch_add(&w.asked, 1);
        wait_readable(fpc_completions_fd(w.queue));
        while (atomic_load(&w.asked) != atomic_load(&w.answered)) {
        }
        assert_null(fpc_completions_next(w.queue));
        close(fd);
    }
    atomic_store(&w.is_over, true);
    pthread_join(thread, NULL);
    fpc_completions_delete(w.queue);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_wake_up_is_lost)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
