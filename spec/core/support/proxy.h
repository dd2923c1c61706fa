/* proxy.h -- a TCP proxy before the test server, to delay and to cut what passes.
 *
 * It listens on a free port of 127.0.0.1 and passes each connection on to a unix socket, in a thread
 * of its own.  "Requests" go to the server, "answers" come from it.
 * Thread rule: any thread. */
#ifndef FPC_SPEC_PROXY_H
#define FPC_SPEC_PROXY_H

#include <stdbool.h>

typedef struct proxy proxy;

typedef enum proxy_mode {
    PROXY_PASS,
    PROXY_HOLD_ANSWERS, /* takes the server's answers but keeps them */
    PROXY_STALL,        /* takes nothing from either side */
    PROXY_KEEP_OPEN     /* passes all but the server's end */
} proxy_mode;

proxy *proxy_start(const char *unix_socket_path);
void proxy_stop(proxy *p);
int proxy_port(const proxy *p);

void proxy_set(proxy *p, proxy_mode mode);
/* Ends all links now, without passing on what is kept. */
void proxy_cut(proxy *p);
/* Ends one link after so many more bytes of answers. */
void proxy_cut_after(proxy *p, long answer_bytes);
/* PROXY_STALL as soon as so many more bytes of requests were taken, and some. */
void proxy_stall_after(proxy *p, long request_bytes);
bool proxy_stalls(proxy *p);
/* Says so many bytes of notices to the clients before it takes another request; only while they are idle. */
void proxy_flood(proxy *p, long bytes);
/* Waits until answers are being held; aborts after 20 s. */
void proxy_await_held(proxy *p);
/* Bytes of answers given so far. */
long proxy_answered(proxy *p);

#endif
