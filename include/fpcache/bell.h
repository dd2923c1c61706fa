/* bell.h -- wake-ups for event loops that watch their own sockets only, as nginx's Lua does.
 *
 * Such a loop cannot watch the descriptor of a completion queue.  So it connects to a socket of this process,
 * by its path, and the queue rings by one byte on that connection instead of by its descriptor.
 *
 *   bell   a listening unix socket in a folder of its own (mode 0700), for the moment of one connection
 *
 * Thread rule: a bell belongs to one thread.  Nothing here waits. */
#ifndef FPCACHE_BELL_H
#define FPCACHE_BELL_H

#include "fpcache/completions.h"

typedef struct fpc_bell fpc_bell;

/* Listens in a new folder under `parent`, where this user must be able to make one.  FPC_INVALID when the
 * path gets too long for a socket, FPC_DENIED when the folder or the socket cannot be made, FPC_NOMEM. */
fpc_status fpc_bell_new(const char *parent, fpc_bell **out, fpc_error *err);
/* Where to connect to.  Lives as long as the bell. */
const char *fpc_bell_path(const fpc_bell *bell);
/* Takes the connection that was made and has `queue` ring on it from now on.  FPC_CONNECT when none was made,
 * FPC_DENIED when another process made it. */
fpc_status fpc_bell_attach(fpc_bell *bell, fpc_completions *queue, fpc_error *err);
/* Removes socket and folder; connections that were attached stay.  NULL is allowed. */
void fpc_bell_delete(fpc_bell *bell);

#endif
