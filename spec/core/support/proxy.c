/* proxy.c -- one thread, poll(2), one buffer for each direction of each link. */
#include "proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINKS 64
#define ROOM      65536

typedef struct flow {
    char bytes[ROOM];
    size_t start, end;
} flow;

typedef struct route {
    int client, server; /* -1: free */
    flow requests, answers;
    long flood; /* bytes of notices still to say */
    bool ended; /* the server is gone, and the client is not told */
} route;

struct proxy {
    char target[108];
    int listener, wake[2], port;
    pthread_t thread;
    pthread_mutex_t lock;
    /* -- only while `lock` is held -- */
    proxy_mode mode;
    bool ends, cuts;
    long cut_after;   /* -1: never */
    long stall_after; /* -1: never */
    long held, answered;
    route links[MAX_LINKS];
};

/* NoticeResponse without fields: little to send and much to read. */
static const char NOTICE[] = "N\0\0\0\x05";

static int no_block(int fd) {
    if (fd >= 0) fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int connect_target(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return no_block(fd);
}

static void drop(route *l) {
    if (l->client >= 0) close(l->client);
    if (l->server >= 0) close(l->server);
    l->client = l->server = -1;
    l->requests.start = l->requests.end = l->answers.start = l->answers.end = 0;
    l->flood = 0;
    l->ended = false;
}

static void accept_link(proxy *p) {
    int client = no_block(accept4(p->listener, NULL, NULL, SOCK_CLOEXEC));
    if (client < 0) return;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    for (int i = 0; i < MAX_LINKS; i++) {
        route *l = &p->links[i];
        if (l->client >= 0) continue;
        l->client = client;
        l->server = connect_target(p->target);
        if (l->server < 0) drop(l);
        return;
    }
    close(client);
}

/* Reads when the buffer is empty: false at the end. */
static bool take(flow *f, int fd) {
    if (f->end > 0) return true;
    ssize_t n = recv(fd, f->bytes, ROOM, MSG_DONTWAIT);
    if (n > 0) f->end = (size_t)n;
    return n != 0;
}

static bool give(flow *f, int fd, size_t most) {
    size_t n = f->end - f->start < most ? f->end - f->start : most;
    ssize_t sent = n == 0 ? 0 : send(fd, f->bytes + f->start, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) f->start += (size_t)sent;
    if (f->start == f->end) f->start = f->end = 0;
    return true;
}

/* Fills the empty answer buffer with whole notices. */
static void say_notices(route *l) {
    flow *f = &l->answers;
    while (f->end + sizeof NOTICE <= ROOM && l->flood > 0) {
        memcpy(f->bytes + f->end, NOTICE, sizeof NOTICE);
        f->end += sizeof NOTICE;
        l->flood -= (long)sizeof NOTICE;
    }
}

static void serve(proxy *p, route *l) {
    if (p->mode == PROXY_STALL) return;
    bool alive = true;
    if (l->flood > 0) {
        if (l->answers.end == 0) say_notices(l);
    } else {
        size_t before = l->requests.end;
        alive = take(&l->requests, l->client);
        if (p->stall_after >= 0) {
            p->stall_after -= (long)(l->requests.end - before);
            if (p->stall_after < 0) p->mode = PROXY_STALL;
        }
        give(&l->requests, l->server, ROOM);
        if (alive && !l->ended && !take(&l->answers, l->server)) {
            l->ended = p->mode == PROXY_KEEP_OPEN;
            alive = l->ended;
        }
    }
    if (p->mode == PROXY_HOLD_ANSWERS) {
        p->held = (long)l->answers.end > p->held ? (long)l->answers.end : p->held;
    } else {
        size_t start = l->answers.start, end = l->answers.end;
        size_t most = p->cut_after >= 0 && (size_t)p->cut_after < ROOM ? (size_t)p->cut_after : ROOM;
        give(&l->answers, l->client, most);
        long given = (long)((l->answers.end == 0 ? end : l->answers.start) - start);
        p->answered += given;
        if (p->cut_after >= 0 && end > 0) {
            p->cut_after -= given;
            if (p->cut_after <= 0) {
                p->cut_after = -1;
                drop(l);
                return;
            }
        }
    }
    if (!alive && l->answers.end > 0 && p->mode == PROXY_PASS && p->cut_after < 0)
        return; /* last words first */
    if (!alive) drop(l);
}

static void *work(void *arg) {
    proxy *p = arg;
    struct pollfd fds[2 + 2 * MAX_LINKS];
    pthread_mutex_lock(&p->lock);
    while (!p->ends) {
        int n = 2;
        fds[0] = (struct pollfd){.fd = p->listener, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = p->wake[0], .events = POLLIN};
        for (int i = 0; i < MAX_LINKS; i++) {
            route *l = &p->links[i];
            if (l->client < 0 || p->mode == PROXY_STALL) continue;
            bool holds = p->mode == PROXY_HOLD_ANSWERS && l->answers.end > 0;
            short client = (short)((l->requests.end == 0 && l->flood <= 0 ? POLLIN : 0) |
                                   ((l->answers.end > 0 || l->flood > 0) && !holds ? POLLOUT : 0));
            short from = (short)((l->answers.end == 0 && l->flood <= 0 ? POLLIN : 0) |
                                 (l->requests.end > 0 ? POLLOUT : 0));
            fds[n++] = (struct pollfd){.fd = client ? l->client : -1, .events = client};
            fds[n++] = (struct pollfd){.fd = from && !l->ended ? l->server : -1, .events = from};
        }
        pthread_mutex_unlock(&p->lock);
        poll(fds, (nfds_t)n, 1000);
        pthread_mutex_lock(&p->lock);
        char byte;
        if (fds[1].revents != 0 && read(p->wake[0], &byte, 1) < 0) abort();
        if (p->cuts) {
            for (int i = 0; i < MAX_LINKS; i++) drop(&p->links[i]);
            p->cuts = false;
        }
        if (fds[0].revents != 0) accept_link(p);
        for (int i = 0; i < MAX_LINKS; i++) {
            if (p->links[i].client >= 0) serve(p, &p->links[i]);
        }
    }
    for (int i = 0; i < MAX_LINKS; i++) drop(&p->links[i]);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void wake(proxy *p) {
    if (write(p->wake[1], "", 1) != 1) abort();
}

proxy *proxy_start(const char *unix_socket_path) {
    proxy *p = calloc(1, sizeof *p);
    if (p == NULL) abort();
    snprintf(p->target, sizeof p->target, "%s", unix_socket_path);
    for (int i = 0; i < MAX_LINKS; i++) p->links[i].client = p->links[i].server = -1;
    p->cut_after = p->stall_after = -1;
    pthread_mutex_init(&p->lock, NULL);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(p->listener, (struct sockaddr *)&address, size) != 0 || listen(p->listener, 64) != 0 ||
        getsockname(p->listener, (struct sockaddr *)&address, &size) != 0 || pipe2(p->wake, O_CLOEXEC) != 0 ||
        pthread_create(&p->thread, NULL, work, p) != 0) {
        abort();
    }
    p->port = ntohs(address.sin_port);
    return p;
}

void proxy_stop(proxy *p) {
    pthread_mutex_lock(&p->lock);
    p->ends = true;
    pthread_mutex_unlock(&p->lock);
    wake(p);
    pthread_join(p->thread, NULL);
    close(p->listener);
    close(p->wake[0]);
    close(p->wake[1]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int proxy_port(const proxy *p) {
    return p->port;
}

void proxy_set(proxy *p, proxy_mode mode) {
    pthread_mutex_lock(&p->lock);
    p->mode = mode;
    p->held = 0;
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

void proxy_cut(proxy *p) {
    pthread_mutex_lock(&p->lock);
    p->cuts = true;
    pthread_mutex_unlock(&p->lock);
    wake(p);
    for (bool done = false; !done;) { /* until it has happened */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        pthread_mutex_lock(&p->lock);
        done = !p->cuts;
        pthread_mutex_unlock(&p->lock);
    }
}

void proxy_cut_after(proxy *p, long answer_bytes) {
    pthread_mutex_lock(&p->lock);
    p->cut_after = answer_bytes;
    pthread_mutex_unlock(&p->lock);
}

void proxy_stall_after(proxy *p, long request_bytes) {
    pthread_mutex_lock(&p->lock);
    p->stall_after = request_bytes;
    pthread_mutex_unlock(&p->lock);
}

bool proxy_stalls(proxy *p) {
    pthread_mutex_lock(&p->lock);
    bool stalls = p->mode == PROXY_STALL;
    pthread_mutex_unlock(&p->lock);
    return stalls;
}

void proxy_flood(proxy *p, long bytes) {
    pthread_mutex_lock(&p->lock);
    for (int i = 0; i < MAX_LINKS; i++) {
        if (p->links[i].client >= 0) p->links[i].flood = bytes;
    }
    pthread_mutex_unlock(&p->lock);
    wake(p);
}

void proxy_await_held(proxy *p) {
    for (int i = 0; i < 20000; i++) {
        pthread_mutex_lock(&p->lock);
        bool holds = p->held > 0;
        pthread_mutex_unlock(&p->lock);
        if (holds) return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    fprintf(stderr, "the server did not answer through the proxy\n");
    abort();
}

long proxy_answered(proxy *p) {
    pthread_mutex_lock(&p->lock);
    long n = p->answered;
    pthread_mutex_unlock(&p->lock);
    return n;
}
