/* fork.h -- how many times this process is a child of fork(2).
 *
 * An object remembers the generation it was made in; in a child the number differs, and what
 * the object shares with the parent (connections, threads, locks) must not be used.
 * Thread rule: any thread. */
#ifndef FPCACHE_FORK_H
#define FPCACHE_FORK_H

/* Reading it costs one load.  The first call installs the pthread_atfork(3) handler. */
unsigned fpc_fork_generation(void);

#endif
