/* libpq.h -- how the benches' programs on bare libpq begin, and how they give up: one connection, one
 * statement from a file. */
#ifndef BENCH_LIBPQ_H
#define BENCH_LIBPQ_H

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>

static PGconn *pg;

static void die(void) {
    fprintf(stderr, "pg: %s", PQerrorMessage(pg));
    exit(1);
}

/* Connects, and gives the text of `sql_file`. */
static const char *begin(const char *conninfo, const char *sql_file) {
    static char sql[8192];
    FILE *file = fopen(sql_file, "r");
    if (file == NULL) {
        perror(sql_file);
        exit(1);
    }
    sql[fread(sql, 1, sizeof sql - 1, file)] = '\0';
    fclose(file);
    pg = PQconnectdb(conninfo);
    if (PQstatus(pg) != CONNECTION_OK) die();
    return sql;
}

#endif
