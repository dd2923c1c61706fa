/* side_engine.c -- the engine from C: side_engine CONNINFO get|set SQL_FILE MERGED_SQL_FILE|- COUNT DEPTH
 * READERS. Prints operations a second.  DEPTH requests are on their way; a new one is submitted for each
 * answer. */
#include "../kv/data.h"

#include "fpcache/pipeline.h"

#include <stdbool.h>

static fpc_error err;
static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *statement;
static char value[VALUE_SIZE];
static bool is_set;

static void check(fpc_status status) {
    if (status == FPC_OK) return;
    fprintf(stderr, "%s: %s\n", fpc_status_name(status), err.message);
    exit(1);
}

static void submit(const char *key) {
    fpc_params params;
    fpc_request *request;
    fpc_params_init(&params);
    fpc_params_bytes(&params, NAMESPACE, strlen(NAMESPACE));
    fpc_params_bytes(&params, key, KEY_LENGTH);
    if (is_set) {
        fpc_params_null(&params);
        fpc_params_bytes(&params, value, VALUE_SIZE);
        fpc_params_bytes(&params, "s", 1);
        fpc_params_double(&params, TTL_S);
        fpc_params_null(&params);
    }
    check(fpc_pipeline_submit(engine, queue, statement, &params, fpc_deadline_in(10), &request, &err));
}

static double run(const char *keys, int count, int depth) {
    double start = now();
    int sent = 0, answered = 0;
    while (answered < count) {
        fpc_answer answer;
        fpc_request *request;
        for (; sent < count && sent - answered < depth; sent++) submit(keys + (size_t)sent * KEY_LENGTH);
        fpc_pipeline_kick(engine);
        check(fpc_completions_wait(queue, fpc_deadline_in(10), &err));
        while ((request = fpc_completions_next(queue)) != NULL) {
            check(fpc_request_answer(request, &answer, &err));
            if (answer.rows != 1) exit(3);
            fpc_request_delete(request);
            answered++;
        }
    }
    return count / (now() - start);
}

static fpc_statement *read_statement(const char *name, const uint32_t *types, int count) {
    static char sql[8192];
    FILE *file = fopen(name, "r");
    if (file == NULL) exit((perror(name), 1));
    sql[fread(sql, 1, sizeof sql - 1, file)] = '\0';
    fclose(file);
    return fpc_statement_new(sql, types, count, !is_set);
}

int main(int argc, char **argv) {
    static const uint32_t TYPES[] = {FPC_OID_TEXT, FPC_OID_BYTEA,  FPC_OID_BYTEA, FPC_OID_BYTEA,
                                     FPC_OID_CHAR, FPC_OID_FLOAT8, FPC_OID_FLOAT8};
    static const uint32_t MANY_TYPES[] = {FPC_OID_TEXT,        FPC_OID_BYTEA_ARRAY, FPC_OID_BYTEA_ARRAY,
                                          FPC_OID_BYTEA_ARRAY, FPC_OID_CHAR_ARRAY,  FPC_OID_FLOAT8_ARRAY};
    if (argc != 8)
        return fprintf(stderr, "usage: side_engine CONNINFO get|set SQL MERGED_SQL|- COUNT DEPTH READERS\n"),
               2;
    is_set = strcmp(argv[2], "set") == 0;
    statement = read_statement(argv[3], TYPES, is_set ? 7 : 2);
    if (strcmp(argv[4], "-") != 0)
        fpc_statement_set_many(statement, read_statement(argv[4], MANY_TYPES, is_set ? 6 : 2), 1);
    int count = atoi(argv[5]), depth = atoi(argv[6]);
    fpc_pipeline_options options = {
        .readers = atoi(argv[7]), .silence_s = 5, .connect_timeout_s = 5, .conn = {.prepared = true}};
    fpc_conninfo *info = fpc_conninfo_new();
    check(fpc_conninfo_parse(info, argv[1], &err));
    check(fpc_pipeline_new(info, &options, &engine, &err));
    check(fpc_completions_new((size_t)depth, &queue, &err));
    fill_value(value);
    run(random_keys(WARM_UP, 1), WARM_UP, depth);
    printf("%.3f\n", run(random_keys(count, 2), count, depth));
    fpc_pipeline_delete(engine);
    return 0;
}
