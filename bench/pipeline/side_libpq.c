/* side_libpq.c -- a bare libpq pipeline: side_libpq CONNINFO get|set SQL_FILE COUNT DEPTH.  Prints operations
 * a second.
 *
 * One connection, one thread, as simple as can be: DEPTH statements are sent, then one sync (get) or each
 * with its own (set: what is reported as written must be written, and several writes in one transaction
 * deadlock with others).  A new one is sent for each answer, in batches of what has been read. */
#include "../kv/data.h"
#include "../support/libpq.h"

#include <endian.h>
#include <poll.h>
#include <stdbool.h>

static char value[VALUE_SIZE];
static const char *values[7];
static int lengths[7];
static const int BINARY[7] = {1, 1, 1, 1, 1, 1, 1};
static int params;

static void send_one(const char *key) {
    values[1] = key;
    lengths[1] = KEY_LENGTH;
    if (!PQsendQueryPrepared(pg, "bench", params, values, lengths, BINARY, 1)) die();
}

static void wait_readable(void) {
    struct pollfd fd = {.fd = PQsocket(pg), .events = POLLIN};
    if (poll(&fd, 1, 10000) != 1 || !PQconsumeInput(pg)) die();
}

static double run(const char *keys, int count, int depth, bool is_set) {
    double start = now();
    int sent = 0, answered = 0, ended = 0; /* ended: queries whose NULL has come */
    int syncs_sent = 0, syncs = 0;
    while (answered < count || syncs < syncs_sent) {
        int room = depth - (sent - answered);
        bool is_any = false;
        for (; room > 0 && sent < count; room--, sent++) {
            send_one(keys + (size_t)sent * KEY_LENGTH);
            is_any = true;
            if (is_set) {
                if (!PQpipelineSync(pg)) die();
                syncs_sent++;
            }
        }
        if (is_any && !is_set) {
            if (!PQpipelineSync(pg)) die();
            syncs_sent++;
        }
        if (PQflush(pg) < 0) die();
        if (PQisBusy(pg)) wait_readable();
        while ((ended < sent || syncs < syncs_sent) && !PQisBusy(pg)) {
            PGresult *result = PQgetResult(pg);
            if (result == NULL) {
                ended++;
                continue;
            }
            ExecStatusType status = PQresultStatus(result);
            if (status == PGRES_PIPELINE_SYNC)
                syncs++;
            else if (status == PGRES_TUPLES_OK && PQntuples(result) == 1)
                answered++;
            else
                die();
            PQclear(result);
        }
    }
    return count / (now() - start);
}

int main(int argc, char **argv) {
    if (argc != 6) return fprintf(stderr, "usage: side_libpq CONNINFO get|set SQL_FILE COUNT DEPTH\n"), 2;
    bool is_set = strcmp(argv[2], "set") == 0;
    int count = atoi(argv[4]), depth = atoi(argv[5]);
    const char *sql = begin(argv[1], argv[3]);
    static const Oid TYPES[] = {25, 17,  17, 17,
                                18, 701, 701}; /* text, bytea three times, "char", float8 twice */
    PGresult *prepared = PQprepare(pg, "bench", sql, is_set ? 7 : 2, TYPES);
    if (PQresultStatus(prepared) != PGRES_COMMAND_OK) die();
    PQclear(prepared);
    if (PQsetnonblocking(pg, 1) != 0 || !PQenterPipelineMode(pg)) die();
    uint64_t ttl;
    double seconds = TTL_S;
    memcpy(&ttl, &seconds, sizeof ttl);
    ttl = htobe64(ttl);
    fill_value(value);
    params = is_set ? 7 : 2;
    values[0] = NAMESPACE;
    lengths[0] = (int)strlen(NAMESPACE);
    values[3] = value;
    lengths[3] = VALUE_SIZE;
    values[4] = "s";
    lengths[4] = 1;
    values[5] = (const char *)&ttl;
    lengths[5] = sizeof ttl;
    run(random_keys(WARM_UP, 1), WARM_UP, depth, is_set);
    printf("%.3f\n", run(random_keys(count, 2), count, depth, is_set));
    PQfinish(pg);
    return 0;
}
