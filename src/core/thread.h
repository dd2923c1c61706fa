/* thread.h -- starting a thread of ours inside somebody's program.
 *
 * Thread rule: any thread. */
#ifndef FPC_THREAD_H
#define FPC_THREAD_H

#include <pthread.h>

/* Starts `run(arg)` with no signal but those that are its own mistakes: handlers of the host run in the
 * host's threads.  `name` (at most 15 letters) is what ps and debuggers show.  0, or an errno. */
int fpc_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *arg);

#endif
