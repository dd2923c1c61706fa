/* server.h -- a private PostgreSQL for one test program, on a unix socket in a temporary folder.
 *
 * A guardian process keeps the server: it stops it and removes the folder when the test program
 * ends, however that ends.  The role postgres is the superuser; a role called pw_user, once made, has to
 * say its password, all others are trusted.  Failures abort the program with a message.
 * Thread rule: one thread; the first start comes before any other thread exists. */
#ifndef FPC_SPEC_SERVER_H
#define FPC_SPEC_SERVER_H

#include <sys/types.h>

/* For cmocka's group setup and teardown. */
int server_setup(void **state);
int server_teardown(void **state);

const char *server_url(void);         /* as postgres */
const char *server_folder(void);      /* of the socket: libpq's "host" */
const char *server_socket_path(void); /* the socket itself */

void server_stop(void); /* fast: sessions are told (57P01) */
void server_start(void);

#endif
