/* db.h -- short words for tests that talk to the test server.  A failure fails the cmocka test. */
#ifndef FPC_SPEC_DB_H
#define FPC_SPEC_DB_H

#include "fpcache/conn.h"
#include "fpcache/pool.h"

#include <stdint.h>

#define SOON fpc_deadline_in(30) /* far more than anything here takes */

extern fpc_error db_err; /* of the last call below, and free for tests */

/* What to connect to: the test server's URL, after `settings` ("key=value ...", NULL: none). */
fpc_conninfo *db_info(const char *settings);
/* The same through a port of 127.0.0.1. */
fpc_conninfo *db_info_port(int port);

/* An open connection to the test server with prepared statements. */
fpc_conn *db_open(void);
fpc_conn *db_open_port(int port);

/* Runs a script. */
void db_script(fpc_conn *conn, const char *sql);
/* The first field of a query's answer as a number; -1 for none. */
int64_t db_number(fpc_conn *conn, const char *sql);
/* The same on a connection of its own, as postgres. */
void db_admin(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t db_admin_number(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs a statement without parameters and gives the first field as an integer; fails the test otherwise. */
int64_t db_run(fpc_conn *conn, const fpc_statement *statement);
/* The same through a pool. */
int64_t db_pool_run(fpc_pool *pool, const fpc_statement *statement);
/* Its status only. */
fpc_status db_try(fpc_conn *conn, const fpc_statement *statement);

fpc_statement *db_statement(const char *sql);       /* reads, no parameters */
fpc_statement *db_write_statement(const char *sql); /* writes, no parameters */

int db_backend_pid(fpc_conn *conn);
/* Ends that session of the server and waits until it is gone. */
void db_kill(int pid);
/* Waits until session `pid` is running a statement that has got to sleeping or waiting. */
void db_await_busy(int pid);

#endif
