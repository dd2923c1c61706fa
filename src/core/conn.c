/* conn.c -- libpq in its non-blocking mode, with a deadline on every wait.
 *
 * A connection is either idle (libpq expects nothing) or busy with one statement.  Whoever gives up in
 * the middle breaks it: the rest of that answer could otherwise be taken for the next one. */
#include "fpcache/conn.h"
#include "fpcache/fork.h"
#include "fpcache/wait.h"
#include "id_set.h"
#include "server_error.h"

#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fpc_conn {
    PGconn *pg;
    unsigned fork_generation;
    int64_t opened_ns;
    bool use_prepared;
    bool broken;
    bool sent_write; /* the statement under way may change something by itself */
    bool sent_ours;  /* ... and is one of ours, not a caller's SQL */
    fpc_id_set prepared;
};

static void ignore_notice(void *arg, const PGresult *result) {
    (void)arg;
    (void)result;
}

/* Waits until the handshake wants the processor again. */
static fpc_status connect_steps(PGconn *pg, fpc_deadline deadline, fpc_error *err) {
    PostgresPollingStatusType next = PGRES_POLLING_WRITING; /* libpq's documented first step */
    for (;;) {
        if (PQstatus(pg) == CONNECTION_BAD || next == PGRES_POLLING_FAILED) return fpc_connect_error(pg, err);
        if (next == PGRES_POLLING_OK) return FPC_OK;
        short events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        fpc_status status = fpc_wait_fd(PQsocket(pg), events, deadline, err); /* the socket may change */
        if (status == FPC_TIMEOUT) {
            const char *host = PQhost(pg);
            return fpc_fail(err, FPC_CONNECT, "no answer from %s port %s within connect_timeout",
                            host == NULL || *host == '\0' ? "the server" : host, PQport(pg));
        }
        if (status != FPC_OK) return status;
        next = PQconnectPoll(pg);
    }
}

fpc_status fpc_conn_open(const fpc_conninfo *info, const fpc_conn_options *options, fpc_deadline deadline,
                         fpc_conn **out, fpc_error *err) {
    fpc_status status;
    fpc_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL) return fpc_fail(err, FPC_NOMEM, "connection");
    conn->fork_generation = fpc_fork_generation();
    conn->use_prepared = options->prepared;
    conn->pg = PQconnectStartParams(fpc_conninfo_keywords(info), fpc_conninfo_values(info), 0);
    if (conn->pg == NULL) {
        status = fpc_fail(err, FPC_NOMEM, "connection");
        goto fail;
    }
    PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE); /* so that a refused login tells its SQLSTATE */
    PQsetNoticeReceiver(conn->pg, ignore_notice, NULL);
    status = connect_steps(conn->pg, deadline, err);
    if (status != FPC_OK) goto fail;
    if (PQsetnonblocking(conn->pg, 1) != 0) {
        status = fpc_fail(err, FPC_CONNECT, "could not make the connection non-blocking");
        goto fail;
    }
    conn->opened_ns = fpc_clock_ns();
    if (options->session_sql != NULL) {
        fpc_result *result = NULL;
        status = fpc_conn_script(conn, options->session_sql, deadline, &result, err);
        fpc_result_delete(result);
        if (status != FPC_OK) goto fail;
    }
    *out = conn;
    return FPC_OK;
fail:
    fpc_conn_delete(conn);
    return status;
}

void fpc_conn_delete(fpc_conn *conn) {
    if (conn == NULL) return;
    if (fpc_conn_is_inherited(conn)) {
        /* The parent's socket: libpq must not say good-bye on it.  It gets a descriptor that
         * leads nowhere instead. */
        int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
        int fd = PQsocket(conn->pg);
        if (nowhere >= 0 && fd >= 0) dup2(nowhere, fd);
        if (nowhere >= 0) close(nowhere);
    }
    PQfinish(conn->pg); /* NULL is allowed */
    fpc_id_set_destroy(&conn->prepared);
    free(conn);
}

/* The connection was lost while we waited or sent. */
static fpc_status lost(fpc_conn *conn, bool all_sent, fpc_error *err) {
    conn->broken = true;
    if (all_sent && conn->sent_write) {
        return fpc_fail(err, FPC_UNKNOWN,
                        "the connection was lost before the server answered: the change may or may not have "
                        "happened");
    }
    return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost");
}

/* Asks the server to end the statement under way.  Without it a statement that waits there, for a lock say,
 * would go on, and commit, long after we are gone. */
static void cancel(fpc_conn *conn) {
    char ignored[256];
    PGcancel *request = PQgetCancel(conn->pg);
    if (request == NULL) return;
    PQcancel(request, ignored, sizeof ignored);
    PQfreeCancel(request);
}

/* Gives up in the middle of a statement, because a wait failed with `status`.  After a timeout nothing is
 * cancelled: that would be one more wait, and the session's own timeouts end the statement. */
static fpc_status gave_up(fpc_conn *conn, fpc_status status, fpc_error *err) {
    conn->broken = true;
    if (status == FPC_INTERRUPTED) cancel(conn);
    if (status == FPC_TIMEOUT) {
        return fpc_fail(err, FPC_TIMEOUT, "no answer from the server in time%s",
                        conn->sent_write ? ": the change may still happen" : "");
    }
    return status;
}

static fpc_status flush(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    for (;;) {
        int left = PQflush(conn->pg);
        if (left == 0) return FPC_OK;
        if (left < 0) return lost(conn, false, err);
        fpc_status status = fpc_wait_fd(PQsocket(conn->pg), POLLIN | POLLOUT, deadline, err);
        if (status != FPC_OK) return gave_up(conn, status, err);
        /* The server may be unable to read on before we took what it says. */
        if (!PQconsumeInput(conn->pg)) return lost(conn, false, err);
    }
}

/* The next result, or NULL at the end of the answer. */
static fpc_status next_result(fpc_conn *conn, fpc_deadline deadline, PGresult **out, fpc_error *err) {
    while (PQisBusy(conn->pg)) {
        fpc_status status = fpc_wait_fd(PQsocket(conn->pg), POLLIN, deadline, err);
        if (status != FPC_OK) return gave_up(conn, status, err);
        if (!PQconsumeInput(conn->pg)) return lost(conn, true, err);
    }
    *out = PQgetResult(conn->pg);
    return FPC_OK;
}

fpc_status fpc_conn_wait(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    if (conn->broken) return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost");
    while (PQisBusy(conn->pg)) {
        fpc_status status = fpc_wait_fd(PQsocket(conn->pg), POLLIN, deadline, err);
        if (status != FPC_OK) return status;
        if (!PQconsumeInput(conn->pg)) return lost(conn, true, err);
    }
    return FPC_OK;
}

fpc_status fpc_conn_receive(fpc_conn *conn, fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    if (conn->broken) return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost");
    fpc_result *last = NULL;
    fpc_status failure = FPC_OK;
    for (;;) {
        PGresult *result = NULL;
        fpc_status status = next_result(conn, deadline, &result, err);
        if (status != FPC_OK) {
            fpc_result_delete(last);
            return status;
        }
        if (result == NULL) break;
        switch (PQresultStatus(result)) {
        case PGRES_TUPLES_OK:
        case PGRES_COMMAND_OK:
        case PGRES_EMPTY_QUERY:
            fpc_result_delete(last);
            last = result;
            break;
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
            PQclear(result);
            conn->broken = true; /* libpq would wait for the copy for ever */
            failure = fpc_fail(err, FPC_INVALID, "COPY cannot be run this way");
            fpc_result_delete(last);
            return failure;
        default:
            if (PQresultErrorField(result, PG_DIAG_SQLSTATE) == NULL) {
                PQclear(result); /* libpq's own words: the connection went away */
                fpc_result_delete(last);
                return lost(conn, true, err);
            }
            failure = fpc_server_error(result, conn->sent_ours, err);
            if (failure == FPC_CONNECT) conn->broken = true; /* the server ends this session */
            PQclear(result);
        }
    }
    if (PQstatus(conn->pg) == CONNECTION_BAD) conn->broken = true;
    if (failure != FPC_OK) {
        fpc_result_delete(last);
        return failure;
    }
    if (last == NULL) return lost(conn, true, err);
    *out = last;
    return FPC_OK;
}

static fpc_status receive_and_drop(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    fpc_result *result = NULL;
    fpc_status status = fpc_conn_receive(conn, deadline, &result, err);
    fpc_result_delete(result);
    return status;
}

static fpc_status begin(fpc_conn *conn, bool is_write, bool is_ours, fpc_error *err) {
    if (fpc_conn_is_inherited(conn)) {
        return fpc_fail(err, FPC_CLOSED, "the connection belongs to the parent process");
    }
    if (conn->broken) return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost");
    if (PQtransactionStatus(conn->pg) == PQTRANS_ACTIVE) {
        return fpc_fail(err, FPC_INVALID, "the connection is still busy with another statement");
    }
    /* Inside a transaction nothing has happened before COMMIT, which is none of our statements. */
    conn->sent_write = is_write && !(is_ours && PQtransactionStatus(conn->pg) == PQTRANS_INTRANS);
    conn->sent_ours = is_ours;
    return FPC_OK;
}

static fpc_status prepare(fpc_conn *conn, const fpc_statement *statement, fpc_deadline deadline,
                          fpc_error *err) {
    if (!PQsendPrepare(conn->pg, statement->name, statement->sql, statement->param_count,
                       statement->param_oids)) {
        return lost(conn, false, err);
    }
    conn->sent_write = false; /* preparing changes nothing */
    fpc_status status = flush(conn, deadline, err);
    fpc_error local = {0};
    if (status == FPC_OK) status = receive_and_drop(conn, deadline, &local);
    if (status != FPC_OK && strcmp(local.sqlstate, "42P05") == 0) status = FPC_OK; /* same name, same text */
    if (status != FPC_OK && local.status != FPC_OK && err != NULL) *err = local;
    if (status == FPC_OK && !fpc_id_set_add(&conn->prepared, statement->id)) {
        status = fpc_fail(err, FPC_NOMEM, "prepared statement");
    }
    return status;
}

fpc_status fpc_conn_send(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_error *err) {
    static const int BINARY[FPC_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    fpc_status status = begin(conn, !statement->read_only, true, err);
    if (status != FPC_OK) return status;
    bool is_write = conn->sent_write;
    int sent;
    if (conn->use_prepared) {
        if (!fpc_id_set_has(&conn->prepared, statement->id)) {
            status = prepare(conn, statement, deadline, err);
            if (status != FPC_OK) return status;
            conn->sent_write = is_write;
        }
        sent = PQsendQueryPrepared(conn->pg, statement->name, params->count, params->values, params->lengths,
                                   BINARY, 1);
    } else {
        sent = PQsendQueryParams(conn->pg, statement->sql, params->count, statement->param_oids,
                                 params->values, params->lengths, BINARY, 1);
    }
    if (!sent) return lost(conn, false, err);
    return flush(conn, deadline, err);
}

/* Whether the server lost the prepared statement (DISCARD ALL, a pooler) or cannot use it any more
 * (a changed table), so that preparing it again helps. */
static bool is_stale_statement(const fpc_error *err) {
    return strcmp(err->sqlstate, "26000") == 0 ||
           (strcmp(err->sqlstate, "0A000") == 0 && strstr(err->message, "cached plan") != NULL);
}

fpc_status fpc_conn_exec(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    fpc_error local;
    if (err == NULL) err = &local;
    for (int attempt = 0;; attempt++) {
        err->sqlstate[0] = '\0';
        fpc_status status = fpc_conn_send(conn, statement, params, deadline, err);
        if (status == FPC_OK) status = fpc_conn_receive(conn, deadline, out, err);
        if (status == FPC_OK || attempt > 0 || !is_stale_statement(err) || conn->broken) return status;
        fpc_id_set_clear(&conn->prepared); /* the others are likely to be gone too */
        fpc_error ignored;
        if (PQtransactionStatus(conn->pg) != PQTRANS_IDLE) return status; /* the transaction is lost anyway */
        if (fpc_conn_script(conn, "DEALLOCATE ALL", deadline, NULL, &ignored) != FPC_OK) return status;
    }
}

fpc_status fpc_conn_query(fpc_conn *conn, const char *sql, int count, const char *const *values,
                          fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    fpc_status status = begin(conn, true, false, err);
    if (status != FPC_OK) return status;
    if (!PQsendQueryParams(conn->pg, sql, count, NULL, values, NULL, NULL, 0)) return lost(conn, false, err);
    status = flush(conn, deadline, err);
    if (status != FPC_OK) return status;
    return fpc_conn_receive(conn, deadline, out, err);
}

fpc_status fpc_conn_script(fpc_conn *conn, const char *sql, fpc_deadline deadline, fpc_result **out,
                           fpc_error *err) {
    fpc_status status = begin(conn, true, false, err);
    if (status != FPC_OK) return status;
    if (!PQsendQuery(conn->pg, sql)) return lost(conn, false, err);
    status = flush(conn, deadline, err);
    if (status != FPC_OK) return status;
    if (out != NULL) return fpc_conn_receive(conn, deadline, out, err);
    return receive_and_drop(conn, deadline, err);
}

bool fpc_conn_is_inherited(const fpc_conn *conn) {
    return conn->fork_generation != fpc_fork_generation();
}

bool fpc_conn_is_broken(const fpc_conn *conn) {
    return conn->broken || fpc_conn_is_inherited(conn);
}

bool fpc_conn_in_transaction(const fpc_conn *conn) {
    return PQtransactionStatus(conn->pg) != PQTRANS_IDLE;
}

bool fpc_conn_is_alive(fpc_conn *conn) {
    if (fpc_conn_is_broken(conn)) return false;
    struct pollfd fd = {.fd = PQsocket(conn->pg), .events = POLLIN};
    while (poll(&fd, 1, 0) > 0) { /* readable while idle: a notice, or the end */
        PGnotify *notification;
        if (!PQconsumeInput(conn->pg) || PQstatus(conn->pg) == CONNECTION_BAD) {
            conn->broken = true;
            return false;
        }
        while ((notification = PQnotifies(conn->pg)) != NULL) PQfreemem(notification);
    }
    return true;
}

int fpc_conn_server_version(const fpc_conn *conn) {
    return PQserverVersion(conn->pg);
}

const char *fpc_conn_user(const fpc_conn *conn) {
    return PQuser(conn->pg);
}

int64_t fpc_conn_opened_ns(const fpc_conn *conn) {
    return conn->opened_ns;
}
