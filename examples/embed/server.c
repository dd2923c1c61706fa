/* server.c -- a small server with fpcache inside: many threads, a Lua runtime in each, one pool for all.
 *
 *   embed_server SCRIPT [THREADS]     the cache is the one of FPCACHE_URL
 *
 * Listens on a port of 127.0.0.1, which it prints.  Each line that a client sends goes to the script's
 * function handle(line), whose answer goes back as a line.  An error of the script is an answer too ("error
 * ..."), and ends nothing; a script that computes for too long is stopped.  SIGTERM and SIGINT end the server
 * cleanly. */
#include <fpcache/fpcache.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_THREADS 64
#define LINE_SIZE   4096

typedef struct worker {
    pthread_t thread;
    fpc_runtime *runtime;
    FILE *client; /* whom it serves now; NULL: nobody */
} worker;

static int listener;
static worker workers[MAX_THREADS];
static pthread_mutex_t clients = PTHREAD_MUTEX_INITIALIZER;
static bool is_ending; /* under the mutex */

static int complain(const char *what, const fpc_error *err) {
    fprintf(stderr, "embed_server: %s: %s: %s\n", what, fpc_status_text(err->status), err->message);
    return EXIT_FAILURE;
}

/* Has the script answer one line. */
static void answer(fpc_runtime *runtime, int client, const char *line, size_t length) {
    fpc_value argument = {.type = FPC_VALUE_STRING, .text = {line, length}};
    const fpc_value *results;
    int count;
    fpc_error err;
    if (fpc_runtime_call(runtime, "handle", &argument, 1, &results, &count, &err) != FPC_OK)
        dprintf(client, "error %s: %s\n", fpc_status_text(err.status), err.message);
    else if (count > 0 && (results[0].type == FPC_VALUE_STRING || results[0].type == FPC_VALUE_JSON))
        dprintf(client, "%.*s\n", (int)results[0].text.length, results[0].text.bytes);
    else if (count > 0 && results[0].type == FPC_VALUE_INTEGER)
        dprintf(client, "%lld\n", (long long)results[0].integer);
    else
        dprintf(client, "none\n");
}

/* Notes whom the worker serves; false when the server ends. */
static bool serve_whom(worker *self, FILE *client) {
    pthread_mutex_lock(&clients);
    self->client = client;
    bool goes_on = !is_ending;
    pthread_mutex_unlock(&clients);
    return goes_on;
}

static void *work(void *arg) {
    worker *self = arg;
    char line[LINE_SIZE];
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        FILE *client = fdopen(fd, "r");
        if (client == NULL) {
            close(fd);
            continue;
        }
        bool goes_on = serve_whom(self, client);
        while (goes_on && fgets(line, sizeof line, client) != NULL)
            answer(self->runtime, fd, line, strcspn(line, "\r\n"));
        goes_on = serve_whom(self, NULL) && goes_on;
        fclose(client);
        if (!goes_on) break;
    }
    return NULL;
}

/* Ends what the workers wait for and what they compute. */
static void end_workers(int count) {
    pthread_mutex_lock(&clients);
    is_ending = true;
    shutdown(listener, SHUT_RDWR);
    for (int i = 0; i < count; i++) {
        fpc_runtime_interrupt(workers[i].runtime);
        if (workers[i].client != NULL) shutdown(fileno(workers[i].client), SHUT_RDWR);
    }
    pthread_mutex_unlock(&clients);
}

static int listen_somewhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
        listen(listener, 64) != 0 || getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        return -1;
    return ntohs(address.sin_port);
}

int main(int argc, char **argv) {
    fpc_error err;
    fpc_family *family;
    int count = argc > 2 ? atoi(argv[2]) : 4;
    if (argc < 2 || count < 1 || count > MAX_THREADS) {
        fprintf(stderr, "usage: embed_server SCRIPT [THREADS]\n");
        return 2;
    }
    sigset_t ends; /* for sigwait(); blocked in every thread */
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    signal(SIGPIPE, SIG_IGN);

    if (fpc_family_open(&family, &err) != FPC_OK) return complain("family", &err);
    fpc_runtime_options options = {.family = family, .limits = {.memory = 64 * 1024 * 1024, .seconds = 1}};
    for (int i = 0; i < count; i++) {
        if (fpc_runtime_open(&options, &workers[i].runtime, &err) != FPC_OK ||
            fpc_runtime_run_file(workers[i].runtime, argv[1], NULL, NULL, &err) != FPC_OK)
            return complain(argv[1], &err);
    }
    int port = listen_somewhere();
    if (port < 0) {
        perror("embed_server");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < count; i++) pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    printf("%d threads, %d pool, port %d\n", count, fpc_family_pools(family), port);
    fflush(stdout);

    int number;
    sigwait(&ends, &number);
    end_workers(count);
    for (int i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        fpc_runtime_close(workers[i].runtime);
    }
    close(listener);
    fpc_family_close(family);
    return EXIT_SUCCESS;
}
