/* token_load.c -- many users of one pool whose passwords end every few seconds, for spec/token_load_spec.lua.
 *
 *   token_load SECONDS USERS URL CA_FILE KIND [name=value...]
 *
 * Each user is a thread that asks the server something, over and over, on connections that live for two
 * seconds.  One more opens a connection of his own each time, outside the pool, as
 * the feed's reader does.  Prints "requests failed refreshes failures refusals opened" and, on stderr, each
 * failure and the stats.  The exit code is 0 when nothing failed. */
#include "fpcache/pool.h"
#include "fpcache/statement.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_USERS 64
#define LIFE_S    2.0
#define PAUSE_NS  3000000

static fpc_conninfo *info;
static fpc_pool *pool;
static fpc_statement *question;
static atomic_bool over;
static atomic_ulong requests, failed, opened_alone;

static void die(const char *what, const fpc_error *err) {
    fprintf(stderr, "%s: %s: %s\n", what, fpc_status_name(err->status), err->message);
    exit(2);
}

static void tell(const fpc_error *err) {
    atomic_fetch_add(&failed, 1);
    fprintf(stderr, "failed: %s: %s\n", fpc_status_name(err->status), err->message);
}

static void pause_for(long ns) {
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void *ask(void *arg) {
    (void)arg;
    while (!atomic_load(&over)) {
        fpc_params params;
        fpc_error err;
        fpc_result *result = NULL;
        fpc_params_init(&params);
        if (fpc_pool_exec(pool, question, &params, fpc_deadline_in(5), &result, &err) != FPC_OK) tell(&err);
        fpc_result_delete(result);
        atomic_fetch_add(&requests, 1);
        pause_for(PAUSE_NS);
    }
    return NULL;
}

static void *log_in_again(void *arg) {
    (void)arg;
    fpc_conn_options options = {.prepared = true};
    while (!atomic_load(&over)) {
        fpc_error err;
        fpc_conn *conn = NULL;
        if (fpc_conn_open(info, &options, fpc_deadline_in(5), &conn, &err) == FPC_OK)
            atomic_fetch_add(&opened_alone, 1);
        else
            tell(&err);
        fpc_conn_delete(conn);
        atomic_fetch_add(&requests, 1);
        pause_for(30 * PAUSE_NS);
    }
    return NULL;
}

static fpc_token_keeper *open_keeper(int count, char **words) {
    fpc_token_setting settings[16];
    fpc_token_keeper *keeper = NULL;
    fpc_error err;
    for (int i = 0; i < count - 1; i++) {
        char *equals = strchr(words[i + 1], '=');
        if (equals == NULL) abort();
        *equals = '\0';
        settings[i] = (fpc_token_setting){.name = words[i + 1], .value = equals + 1};
    }
    if (fpc_token_keeper_open(words[0], settings, (size_t)count - 1, &keeper, &err) != FPC_OK)
        die("keeper", &err);
    return keeper;
}

static void describe(const char *url, const char *ca_file, fpc_token_keeper *keeper) {
    fpc_error err;
    info = fpc_conninfo_new();
    fpc_status status = fpc_conninfo_parse(info, url, &err);
    if (status == FPC_OK) status = fpc_conninfo_add(info, "sslrootcert", ca_file, &err);
    if (status == FPC_OK) status = fpc_conninfo_set_token(info, keeper, NULL, NULL, &err);
    if (status != FPC_OK) die("settings", &err);
}

static void report(fpc_token_keeper *keeper) {
    fpc_token_stats token;
    fpc_pool_stats stats;
    fpc_token_keeper_get_stats(keeper, &token);
    fpc_pool_get_stats(pool, &stats);
    fprintf(stderr, "%s generation %lu expires in %.1f s, last error \"%s\"\n", token.source,
            (unsigned long)token.generation, token.expires_in_s, token.last_error);
    printf("%lu %lu %lu %lu %lu %lu\n", atomic_load(&requests), atomic_load(&failed),
           (unsigned long)token.refreshes, (unsigned long)token.failures, (unsigned long)token.refusals,
           (unsigned long)stats.opened + atomic_load(&opened_alone));
}

int main(int argc, char **argv) {
    if (argc < 6 || argc > 20) return 2;
    int seconds = atoi(argv[1]), users = atoi(argv[2]);
    if (users < 1 || users > MAX_USERS) return 2;
    fpc_token_keeper *keeper = open_keeper(argc - 5, argv + 5);
    describe(argv[3], argv[4], keeper);
    fpc_pool_options options = {.max_connections = users,
                                .connect_timeout_s = 5,
                                .max_lifetime_s = LIFE_S,
                                .conn = {.prepared = true}};
    question = fpc_statement_new("SELECT 1::int8", NULL, 0, true);
    pool = fpc_pool_new(fpc_conninfo_copy(info), &options);
    pthread_t threads[MAX_USERS + 1];
    for (int i = 0; i < users; i++) pthread_create(&threads[i], NULL, ask, NULL);
    pthread_create(&threads[users], NULL, log_in_again, NULL);
    nanosleep(&(struct timespec){.tv_sec = seconds}, NULL);
    atomic_store(&over, true);
    for (int i = 0; i <= users; i++) pthread_join(threads[i], NULL);
    report(keeper);
    fpc_pool_delete(pool);
    fpc_conninfo_delete(info);
    fpc_token_keeper_close(keeper);
    fpc_statement_delete(question);
    return atomic_load(&failed) == 0 ? 0 : 1;
}
