/* thread.h -- starting a thread of our own.  Inside the core only. */
#ifndef FPC_THREAD_H
#define FPC_THREAD_H

#include <pthread.h>

/* Starts a thread with no signal but those that are its own mistakes: handlers of the host run in the host's
 * threads.  `name` has at most 15 characters.  Returns 0 or an errno. */
int fpc_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg);

#endif
