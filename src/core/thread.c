/* thread.c -- starting a thread of ours inside somebody's program. */
#include "thread.h"

#include <signal.h>
#include <stddef.h>

int fpc_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg) {
    sigset_t blocked, before;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int failure = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure == 0) pthread_setname_np(*thread, name);
    return failure;
}
