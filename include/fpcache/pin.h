/* pin.h -- a connection of a pool for one transaction whose caller must not wait.
 *
 *   pin        a connection that is lent for as long as the pin is open, and a thread that runs on it what
 *              it is told, one order after the other; the answers arrive at a completion queue
 *   order      one thing to do: take a connection, run a statement, the caller's own SQL, or a script
 *   to expire  to be given up because nothing was ordered for `idle_s`: its caller may have vanished
 *
 * The first order makes the thread take a connection from the pool, by the rules of fpc_pool_acquire(); when
 * it gets none, that order fails with the reason and the pin is over.  What is ordered after a failure is
 * sent all the same: the server refuses what follows an error in a transaction.
 * A connection that is still in a transaction when its pin is closed, expires or is over is closed; the
 * server then rolls back.  A pool lends no more pins at a time than it has connections: FPC_BUSY at once.
 * Thread rule: a pin belongs to one thread at a time; so does its queue (see completions.h).  The pool may be
 * deleted before its pins.  fork(2): in the child a pin is over. */
#ifndef FPCACHE_PIN_H
#define FPCACHE_PIN_H

#include "fpcache/completions.h"
#include "fpcache/pool.h"

typedef struct fpc_pin fpc_pin;

/* Starts the thread.  `idle_s` 0: never expires.  FPC_BUSY as above, FPC_CLOSED, FPC_NOMEM. */
fpc_status fpc_pin_new(fpc_pool *pool, double idle_s, fpc_pin **out, fpc_error *err);
/* Ends what is under way (the statement is cancelled), gives the connection back, frees.  Does not wait: the
 * thread does it.  Answers that have not come are FPC_CLOSED.  NULL is allowed. */
void fpc_pin_delete(fpc_pin *pin);

/* Orders.  Everything is copied but the statement, which is kept alive; the request is answered by its
 * deadline (see conn.h for what that does to the connection).  FPC_BUSY when the queue `to` is full,
 * FPC_CLOSED when the pin is over, FPC_NOMEM. */
fpc_status fpc_pin_connect(fpc_pin *pin, fpc_completions *to, fpc_deadline deadline, fpc_request **out,
                           fpc_error *err);
fpc_status fpc_pin_exec(fpc_pin *pin, fpc_completions *to, const fpc_statement *statement,
                        const fpc_params *params, fpc_deadline deadline, fpc_request **out, fpc_error *err);
/* As fpc_conn_query(): one statement with text parameters and text results. */
fpc_status fpc_pin_query(fpc_pin *pin, fpc_completions *to, const char *sql, int count,
                         const char *const *values, fpc_deadline deadline, fpc_request **out, fpc_error *err);
/* As fpc_conn_script(). */
fpc_status fpc_pin_script(fpc_pin *pin, fpc_completions *to, const char *sql, fpc_deadline deadline,
                          fpc_request **out, fpc_error *err);

/* As of the last answer. */
bool fpc_pin_in_transaction(fpc_pin *pin);
bool fpc_pin_is_broken(fpc_pin *pin); /* or over */

#endif
