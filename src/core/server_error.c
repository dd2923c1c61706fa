/* server_error.c -- SQLSTATE to status, and words that say what to do. */
#include "server_error.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool is_state(const char *state, const char *expected) {
    return strncmp(state, expected, strlen(expected)) == 0; /* a class such as "08" or a whole state */
}

/* An error that leaves the session alive. */
static fpc_status classify(const char *state) {
    if (is_state(state, "3F000") || is_state(state, "42P01") || is_state(state, "42883") ||
        is_state(state, "42703")) {
        return FPC_SCHEMA;
    }
    if (is_state(state, "22") || is_state(state, "54000"))
        return FPC_INVALID; /* data; too long for an index */
    if (is_state(state, "42501")) return FPC_DENIED;
    if (is_state(state, "40001") || is_state(state, "40P01")) return FPC_CONFLICT;
    if (is_state(state, "57014") || is_state(state, "55P03")) return FPC_TIMEOUT;
    return FPC_SERVER;
}

static const char *advice(const char *state, const char *text, fpc_status status) {
    if (is_state(state, "42501") && strstr(text, "query would be affected by row-level security") != NULL)
        return "; the role or database has row_security off: ALTER ROLE ... RESET row_security";
    if (status == FPC_SCHEMA) return "; run `fpcache admin setup` on this database";
    if (status == FPC_DENIED) return "; the owner grants it with `fpcache admin setup --grant ROLE`";
    if (is_state(state, "25006") || (is_state(state, "0A000") && strstr(text, "recovery") != NULL)) {
        return "; either this server is a standby, and unlogged tables live on the primary only "
               "(connect with target_session_attrs=read-write), or the role or database has "
               "default_transaction_read_only on";
    }
    if (is_state(state, "53100")) return "; the server's disk is full";
    return "";
}

/* Makes `text` one line. */
static void flatten(char *text) {
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r' || *c == '\t') *c = ' ';
    }
    for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) text[n - 1] = '\0';
}

/* The severity of servers before 9.6 is translated, and unknown here. */
bool fpc_is_fatal(const PGresult *result) {
    const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity != NULL && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0);
}

fpc_status fpc_server_error(const PGresult *result, bool is_our_sql, fpc_error *err) {
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (state == NULL) state = "";
    if (words == NULL) words = PQresultErrorMessage(result);
    char text[400];
    snprintf(text, sizeof text, "%s", words);
    flatten(text);
    fpc_status status = fpc_is_fatal(result) ? FPC_CONNECT : classify(state);
    if (!is_our_sql && (status == FPC_SCHEMA || status == FPC_DENIED || status == FPC_INVALID))
        status = FPC_SERVER;
    /* "invalid input syntax for type bigint: ..." goes on with a value, which may be one of the cache. */
    if (is_our_sql && is_state(state, "22P02")) text[strcspn(text, ":")] = '\0';
    fpc_fail(err, status, "%s%s (SQLSTATE %s)", text, advice(state, text, status), state);
    if (err != NULL) snprintf(err->sqlstate, sizeof err->sqlstate, "%.5s", state);
    return status;
}

/* Finds "FATAL:  28P01: words" and returns the state's place, or NULL.  The severity is translated, the
 * two blanks and the five characters are not. */
static const char *find_state(const char *message) {
    for (const char *p = strstr(message, ":  "); p != NULL; p = strstr(p + 1, ":  ")) {
        const char *state = p + 3;
        int n = 0;
        while (n < 5 && (isdigit((unsigned char)state[n]) || isupper((unsigned char)state[n]))) n++;
        if (n == 5 && state[5] == ':' && state[6] == ' ') return state;
    }
    return NULL;
}

fpc_status fpc_connect_error(const PGconn *conn, fpc_error *err) {
    const char *message = PQerrorMessage(conn);
    const char *state = find_state(message);
    const char *words = state == NULL ? message : state + 7;
    size_t length = strcspn(words, state == NULL ? "" : "\n"); /* below stand source file and line */
    char text[400];
    snprintf(text, sizeof text, "%.*s", (int)(length < sizeof text ? length : sizeof text - 1), words);
    flatten(text);
    if (state == NULL) {
        bool asked = PQconnectionNeedsPassword(conn);
        return fpc_fail(err, asked ? FPC_AUTH : FPC_CONNECT, "%s", text);
    }
    fpc_status status = FPC_CONNECT;
    if (is_state(state, "28")) status = FPC_AUTH;
    if (is_state(state, "42501")) status = FPC_DENIED;
    fpc_fail(err, status, "%s (SQLSTATE %.5s)", text, state);
    if (err != NULL) snprintf(err->sqlstate, sizeof err->sqlstate, "%.5s", state);
    return status;
}
