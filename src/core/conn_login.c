/* conn_login.c -- libpq's steps to a session, and which password they take.
 *
 * Each login is a new PGconn, since libpq's own reset would say the old password again. */
#include "conn_login.h"

#include "fpcache/wait.h"
#include "server_error.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOGINS 3 /* with one description: the next token may come while the last one is being refused */

fpc_status fpc_no_answer(PGconn *pg, fpc_error *err) {
    const char *host = PQhost(pg);
    return fpc_fail(err, FPC_CONNECT, "no answer from %s port %s in time (connect_timeout)",
                    host == NULL || *host == '\0' ? "the server" : host, PQport(pg));
}

static fpc_status connect_steps(PGconn *pg, fpc_deadline deadline, fpc_error *err) {
    PostgresPollingStatusType next = PGRES_POLLING_WRITING; /* libpq's documented first step */
    for (;;) {
        if (PQstatus(pg) == CONNECTION_BAD || next == PGRES_POLLING_FAILED) return fpc_connect_error(pg, err);
        if (next == PGRES_POLLING_OK) return FPC_OK;
        if (fpc_deadline_passed(deadline))
            return fpc_no_answer(pg, err); /* also if the server talks without end */
        short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        fpc_status status = fpc_wait_fd(PQsocket(pg), events, deadline, err); /* the socket may change */
        if (status == FPC_TIMEOUT) return fpc_no_answer(pg, err);
        if (status != FPC_OK) return status;
        next = PQconnectPoll(pg);
    }
}

static void drop_notice(void *arg, const PGresult *result) {
    (void)arg;
    (void)result;
}

static fpc_status log_in(const char *const *keywords, const char *const *values, fpc_deadline deadline,
                         PGconn **out, fpc_error *err) {
    PGconn *pg = PQconnectStartParams(keywords, values, 0);
    if (pg == NULL) return fpc_fail(err, FPC_NOMEM, "connection");
    PQsetErrorVerbosity(pg, PQERRORS_VERBOSE); /* so that a refused login tells its SQLSTATE */
    PQsetNoticeReceiver(pg, drop_notice, NULL);
    fpc_status status = connect_steps(pg, deadline, err);
    if (status == FPC_OK)
        *out = pg;
    else
        PQfinish(pg);
    return status;
}

/* --- With a token --- */

/* The description's arrays with room for what a token adds. */
typedef struct login {
    const char **keywords, **values;
    int count;
} login;

static void add(login *l, const char *keyword, const char *value) {
    if (value == NULL) return;
    l->keywords[l->count] = keyword;
    l->values[l->count++] = value;
    l->keywords[l->count] = l->values[l->count] = NULL;
}

static bool prepare(const fpc_conninfo *info, login *l) {
    const char *const *keywords = fpc_conninfo_keywords(info), *const *values = fpc_conninfo_values(info);
    int count = 0;
    while (keywords[count] != NULL) count++;
    l->keywords = calloc((size_t)count + 4, sizeof *l->keywords);
    l->values = calloc((size_t)count + 4, sizeof *l->values);
    if (l->keywords == NULL || l->values == NULL) return false;
    memcpy(l->keywords, keywords, (size_t)count * sizeof *keywords);
    memcpy(l->values, values, (size_t)count * sizeof *values);
    l->count = count;
    return true;
}

static const char *either(const char *first, const char *second) {
    return first != NULL ? first : second;
}

static fpc_status log_in_with(const fpc_conninfo *info, const fpc_token *token, fpc_deadline deadline,
                              PGconn **out, fpc_error *err) {
    login l = {0};
    fpc_status status;
    if (prepare(info, &l)) {
        if (fpc_conninfo_get(info, "host") == NULL && fpc_conninfo_get(info, "hostaddr") == NULL)
            add(&l, "host", either(token->host, fpc_conninfo_fallback_host(info)));
        if (fpc_conninfo_get(info, "user") == NULL)
            add(&l, "user", either(token->user, fpc_conninfo_fallback_user(info)));
        add(&l, "password", token->password);
        status = log_in(l.keywords, l.values, deadline, out, err);
    } else {
        status = fpc_fail(err, FPC_NOMEM, "connection");
    }
    free(l.keywords);
    free(l.values);
    return status;
}

/* Whether another password may help.  Clouds' own ways to check it do not all say 28P01. */
static bool is_refused(const fpc_error *err) {
    if (strcmp(err->sqlstate, "28P01") == 0 || strcmp(err->sqlstate, "28000") == 0) return true;
    return err->sqlstate[0] != '\0' && (strcasestr(err->message, "authentication failed") != NULL ||
                                        strcasestr(err->message, "authorization failed") != NULL);
}

/* The server refused the password, and there is no other one because of `reason`. */
static fpc_status still_refused(const fpc_error *refusal, const fpc_error *reason, fpc_error *err) {
    if (reason->status == FPC_INTERRUPTED) return fpc_fail(err, FPC_INTERRUPTED, "%s", reason->message);
    fpc_fail(err, FPC_AUTH, "%.250s; %.200s", refusal->message, reason->message);
    if (err != NULL) memcpy(err->sqlstate, refusal->sqlstate, sizeof err->sqlstate);
    return FPC_AUTH;
}

fpc_status fpc_login(const fpc_conninfo *info, fpc_deadline deadline, PGconn **out, fpc_error *err) {
    fpc_token_keeper *keeper = fpc_conninfo_token(info);
    if (keeper == NULL)
        return log_in(fpc_conninfo_keywords(info), fpc_conninfo_values(info), deadline, out, err);
    fpc_token token = {0};
    uint64_t generation = 0;
    fpc_status status = fpc_token_keeper_get(keeper, deadline, &token, &generation, err);
    for (int logins = 1; status == FPC_OK; logins++) {
        fpc_error refusal, reason;
        status = log_in_with(info, &token, deadline, out, &refusal);
        fpc_token_clear(&token);
        if (status == FPC_OK) {
            fpc_token_keeper_accepted(keeper, generation);
            return FPC_OK;
        }
        if (!is_refused(&refusal) || logins == MAX_LOGINS) {
            if (err != NULL) *err = refusal;
            return status;
        }
        if (fpc_token_keeper_refused(keeper, deadline, &token, &generation, &reason) != FPC_OK)
            return still_refused(&refusal, &reason, err);
        status = FPC_OK;
    }
    return status;
}
