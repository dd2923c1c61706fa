/* side_libpq.c -- one measurement of bare libpq: side_libpq CONNINFO OPERATION SQL_FILE COUNT.  Prints
 * operations (rows, keys) a second.
 *
 *   get, set   COUNT times one row, by the client's own statement
 *   many       COUNT fresh rows by one statement with five arrays, built before the clock starts
 *   copy       COUNT fresh rows by COPY ... (FORMAT binary), its stream built before the clock starts
 *   any        COUNT times LIST keys by `= ANY`
 *
 * Fresh rows arrive in no order of keys; with SORTED in the environment, in order.
 * The file holds the statement.  Parameters and results are binary; the calls of libpq are the blocking ones.
 */
#include "../support/libpq.h"
#include "data.h"

#include <endian.h>

#define OID_BYTEA  17
#define OID_CHAR   18
#define OID_FLOAT8 701
#define MAX_PARAMS 8
/* text, bytea[] three times, "char"[], float8[]: what unnest() gives no hint of */
static const Oid MANY_TYPES[] = {25, 1001, 1001, 1001, 1002, 1022};

typedef struct buffer {
    char *bytes;
    size_t length, capacity;
} buffer;

static void (*arrive)(char *key, int i) = write_scattered_key;
static char value[VALUE_SIZE];
static const char *values[MAX_PARAMS];
static int lengths[MAX_PARAMS];
static const int BINARY[MAX_PARAMS] = {1, 1, 1, 1, 1, 1, 1, 1};

static void put(buffer *b, const void *bytes, size_t length) {
    if (b->capacity - b->length < length) {
        b->capacity = (b->capacity + length) * 2;
        b->bytes = realloc(b->bytes, b->capacity);
    }
    memcpy(b->bytes + b->length, bytes, length);
    b->length += length;
}

static void put16(buffer *b, int word) {
    uint16_t wire = htobe16((uint16_t)word);
    put(b, &wire, sizeof wire);
}

static void put32(buffer *b, int word) {
    uint32_t wire = htobe32((uint32_t)word);
    put(b, &wire, sizeof wire);
}

static void put_field(buffer *b, const void *bytes, size_t length) {
    put32(b, (int)length);
    put(b, bytes, length);
}

static uint64_t wire_double(double number) {
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return htobe64(bits);
}

static void bind(int i, const void *bytes, size_t length) {
    values[i] = bytes;
    lengths[i] = (int)length;
}

/* An array of `count` elements; element i has `length` bytes and lies i * `step` bytes after `first`.  NULL:
 * all elements are NULL. */
static void bind_array(int param, int oid, int count, const void *first, size_t length, size_t step) {
    buffer b = {0};
    put32(&b, 1);
    put32(&b, first == NULL);
    put32(&b, oid);
    put32(&b, count);
    put32(&b, 1);
    for (int i = 0; i < count; i++) {
        if (first == NULL)
            put32(&b, -1);
        else
            put_field(&b, (const char *)first + (size_t)i * step, length);
    }
    bind(param, b.bytes, b.length);
}

static PGresult *execute(int params) {
    PGresult *result = PQexecPrepared(pg, "bench", params, values, lengths, BINARY, 1);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) die();
    return result;
}

static void run_single(const char *keys, int count, int params) {
    for (int i = 0; i < count; i++) {
        bind(1, keys + (size_t)i * KEY_LENGTH, KEY_LENGTH);
        PGresult *result = execute(params);
        if (PQntuples(result) != 1) exit(3);
        PQclear(result);
    }
}

static double single(int count, int params) {
    uint64_t ttl = wire_double(TTL_S);
    bind(3, value, VALUE_SIZE);
    bind(4, "s", 1);
    bind(5, &ttl, sizeof ttl);
    run_single(random_keys(WARM_UP, 1), WARM_UP, params);
    char *keys = random_keys(count, 2);
    double start = now();
    run_single(keys, count, params);
    return count / (now() - start);
}

static double many(int count) {
    uint64_t ttl = wire_double(TTL_S);
    char *keys = malloc((size_t)count * KEY_LENGTH);
    for (int i = 0; i < count; i++) arrive(keys + (size_t)i * KEY_LENGTH, i);
    bind_array(1, OID_BYTEA, count, keys, KEY_LENGTH, KEY_LENGTH);
    bind_array(2, OID_BYTEA, count, NULL, 0, 0);
    bind_array(3, OID_BYTEA, count, value, VALUE_SIZE, 0);
    bind_array(4, OID_CHAR, count, "s", 1, 0);
    bind_array(5, OID_FLOAT8, count, &ttl, sizeof ttl, 0);
    double start = now();
    PQclear(execute(6));
    return count / (now() - start);
}

/* Columns: namespace, key, value, format, version, expires_at. */
static double copy(const char *sql, int count) {
    static const char SIGNATURE[11] = "PGCOPY\n\377\r\n";
    buffer b = {0};
    put(&b, SIGNATURE, sizeof SIGNATURE);
    put32(&b, 0);
    put32(&b, 0);
    int64_t since_2000 = (int64_t)time(NULL) - 946684800 + (int64_t)TTL_S;
    uint64_t expires_at = htobe64((uint64_t)since_2000 * 1000000), version = htobe64(1);
    for (int i = 0; i < count; i++) {
        char key[KEY_LENGTH];
        arrive(key, i);
        put16(&b, 6);
        put_field(&b, NAMESPACE, strlen(NAMESPACE));
        put_field(&b, key, KEY_LENGTH);
        put_field(&b, value, VALUE_SIZE);
        put_field(&b, "s", 1);
        put_field(&b, &version, sizeof version);
        put_field(&b, &expires_at, sizeof expires_at);
    }
    put16(&b, -1);
    double start = now();
    PGresult *result = PQexec(pg, sql);
    if (PQresultStatus(result) != PGRES_COPY_IN) die();
    PQclear(result);
    for (size_t sent = 0; sent < b.length;) {
        size_t part = b.length - sent < 65536 ? b.length - sent : 65536;
        if (PQputCopyData(pg, b.bytes + sent, (int)part) != 1) die();
        sent += part;
    }
    if (PQputCopyEnd(pg, NULL) != 1) die();
    while ((result = PQgetResult(pg)) != NULL) {
        if (PQresultStatus(result) != PGRES_COMMAND_OK) die();
        PQclear(result);
    }
    return count / (now() - start);
}

static double any(int calls) {
    buffer lists[LISTS];
    for (int i = 0; i < LISTS; i++) {
        bind_array(1, OID_BYTEA, LIST, random_keys(LIST, i + 1), KEY_LENGTH, KEY_LENGTH);
        lists[i] = (buffer){.bytes = (char *)values[1], .length = (size_t)lengths[1]};
        PQclear(execute(2));
    }
    double start = now();
    for (int i = 0; i < calls; i++) {
        bind(1, lists[(i + 1) % LISTS].bytes, lists[(i + 1) % LISTS].length);
        PGresult *result = execute(2);
        if (PQntuples(result) == 0) exit(3);
        PQclear(result);
    }
    return (double)calls * LIST / (now() - start);
}

int main(int argc, char **argv) {
    if (argc != 5)
        return fprintf(stderr, "usage: side_libpq CONNINFO get|set|many|copy|any SQL_FILE COUNT\n"), 2;
    const char *operation = argv[2];
    if (getenv("SORTED") != NULL) arrive = write_key;
    int count = atoi(argv[4]);
    const char *sql = begin(argv[1], argv[3]);
    fill_value(value);
    bind(0, NAMESPACE, strlen(NAMESPACE));
    double rate = 0;
    if (strcmp(operation, "copy") == 0) {
        rate = copy(sql, count);
    } else {
        PGresult *prepared = strcmp(operation, "many") == 0 ? PQprepare(pg, "bench", sql, 6, MANY_TYPES)
                                                            : PQprepare(pg, "bench", sql, 0, NULL);
        if (PQresultStatus(prepared) != PGRES_COMMAND_OK) die();
        PQclear(prepared);
        if (strcmp(operation, "get") == 0)
            rate = single(count, 2);
        else if (strcmp(operation, "set") == 0)
            rate = single(count, 7);
        else if (strcmp(operation, "many") == 0)
            rate = many(count);
        else if (strcmp(operation, "any") == 0)
            rate = any(count);
    }
    PQfinish(pg);
    printf("%.3f\n", rate);
    return 0;
}
