/* fork.c -- a counter that fork(2) advances in the child. */
#include "fpcache/fork.h"
#include "fork_count.h"

#include <pthread.h>

atomic_uint fpc_fork_count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void in_child(void) {
    atomic_fetch_add(&fpc_fork_count, 1);
}

static void install(void) {
    pthread_atfork(NULL, NULL, in_child);
}

unsigned fpc_fork_generation(void) {
    pthread_once(&once, install);
    return fpc_fork_generation_again();
}
