/* canned.c -- a server that says what it was told to. */
#include "canned.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_t thread;
static int listener, stop;
static const char *const *answers;
static char heard[65536];
static size_t heard_len;

static void must(int ok, const char *what) {
    if (ok) return;
    perror(what);
    abort();
}

/* Waits for `fd`; false: it is to stop. */
static int wait_for(int fd) {
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = stop, .events = POLLIN}};
    must(poll(fds, 2, 20000) > 0, "canned: nothing for 20 s");
    return fds[1].revents == 0;
}

static int is_whole(const char *request) {
    const char *end = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "\r\nContent-Length:");
    if (end == NULL) return 0;
    return length == NULL || strlen(end + 4) >= strtoul(length + 17, NULL, 10);
}

static void *serve(void *unused) {
    (void)unused;
    for (size_t i = 0; answers[i] != NULL && wait_for(listener); i++) {
        int fd = accept(listener, NULL, NULL);
        size_t from = heard_len;
        while (!is_whole(heard + from) && wait_for(fd)) {
            ssize_t n = read(fd, heard + heard_len, sizeof heard - heard_len - 1);
            if (n <= 0) break;
            heard_len += (size_t)n;
        }
        if (strcmp(answers[i], "...") == 0)
            wait_for(stop);
        else
            for (size_t sent = 0, len = strlen(answers[i]); sent < len;) {
                ssize_t n = send(fd, answers[i] + sent, len - sent, MSG_NOSIGNAL);
                if (n <= 0) break; /* the client has heard enough */
                sent += (size_t)n;
            }
        close(fd);
    }
    return NULL;
}

int canned_start(const char *const *texts) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    answers = texts;
    heard_len = 0;
    memset(heard, 0, sizeof heard);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    stop = eventfd(0, EFD_CLOEXEC);
    must(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 8) == 0,
         "canned: listen");
    must(getsockname(listener, (struct sockaddr *)&at, &len) == 0, "canned: getsockname");
    must(pthread_create(&thread, NULL, serve, NULL) == 0, "canned: thread");
    return ntohs(at.sin_port);
}

char *canned_stop(void) {
    must(eventfd_write(stop, 1) == 0, "canned: stop");
    pthread_join(thread, NULL);
    close(listener);
    close(stop);
    return strdup(heard);
}
