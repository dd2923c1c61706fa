/* conn.c -- libpq in its non-blocking mode, with a deadline on every wait.
 *
 * A connection is either idle (libpq expects nothing) or busy with one statement.  Whoever gives up in
 * the middle breaks it: the rest of that answer could otherwise be taken for the next one. */
#include "fpcache/conn.h"
#include "conn_internal.h"
#include "conn_login.h"
#include "fpcache/fork.h"
#include "fpcache/wait.h"
#include "id_set.h"
#include "server_error.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The server takes messages of less than 1 GB; the rest is for the statement's text and lengths. */
#define MAX_PARAMS_BYTES ((size_t)(1 << 30) - (1 << 20))

/* How often a connection is asked for more of what it says while idle. */
#define MAX_IDLE_READS 100

struct fpc_conn {
    PGconn *pg;
    unsigned fork_generation;
    int64_t opened_ns;
    bool use_prepared;
    bool broken;
    bool sent_write; /* the statement under way may change something by itself */
    bool sent_ours;  /* ... and is one of ours, not a caller's SQL */
    bool stale;      /* the server does not have or cannot use what is in `prepared` */
    fpc_id_set prepared;
};

/* Notices are dropped.  An error while the connection is idle comes this way too: the server says why it
 * ends the session, a moment before the socket is closed. */
static void on_notice(void *arg, const PGresult *result) {
    fpc_conn *conn = arg;
    if (fpc_is_fatal(result)) conn->broken = true;
}

static fpc_status run_script(fpc_conn *conn, const char *sql, bool is_write, fpc_deadline deadline,
                             fpc_result **out, fpc_error *err);

/* `sql` with the number that the server told at login in place of each FPC_BACKEND.  NULL: no memory. */
static char *fill_backend(const char *sql, int backend) {
    char *filled = malloc(2 * strlen(sql) + 16), *to = filled; /* the word is half as long as its number */
    if (filled == NULL) return NULL;
    for (const char *at; (at = strstr(sql, FPC_BACKEND)) != NULL; sql = at + strlen(FPC_BACKEND)) {
        memcpy(to, sql, (size_t)(at - sql));
        to += at - sql;
        to += sprintf(to, "%d", backend);
    }
    strcpy(to, sql);
    return filled;
}

static fpc_status run_session_sql(fpc_conn *conn, const char *sql, fpc_deadline deadline, fpc_error *err) {
    fpc_result *result = NULL;
    char *filled = fill_backend(sql, PQbackendPID(conn->pg));
    if (filled == NULL) return fpc_fail(err, FPC_NOMEM, "session SQL");
    fpc_status status = run_script(conn, filled, false, deadline, &result, err);
    free(filled);
    fpc_result_delete(result);
    if (status == FPC_TIMEOUT && conn->broken) return fpc_no_answer(conn->pg, err);
    return status;
}

fpc_status fpc_conn_open(const fpc_conninfo *info, const fpc_conn_options *options, fpc_deadline deadline,
                         fpc_conn **out, fpc_error *err) {
    fpc_status status;
    fpc_conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL) return fpc_fail(err, FPC_NOMEM, "connection");
    conn->fork_generation = fpc_fork_generation();
    conn->use_prepared = options->prepared;
    status = fpc_login(info, deadline, &conn->pg, err);
    if (status != FPC_OK) goto fail;
    PQsetNoticeReceiver(conn->pg, on_notice, conn);
    if (PQsetnonblocking(conn->pg, 1) != 0) {
        status = fpc_fail(err, FPC_CONNECT, "could not make the connection non-blocking");
        goto fail;
    }
    conn->opened_ns = fpc_clock_ns();
    if (options->session_sql != NULL) {
        status = run_session_sql(conn, options->session_sql, deadline, err);
        if (status != FPC_OK) goto fail;
    }
    *out = conn;
    return FPC_OK;
fail:
    fpc_conn_delete(conn);
    return status;
}

/* The socket is the parent's: libpq must not say good-bye on it.  It gets a descriptor that leads nowhere
 * instead; false when there is none to be had. */
static bool cut_off(PGconn *pg) {
    int fd = PQsocket(pg);
    if (fd < 0) return true;
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool is_cut = nowhere >= 0 && dup3(nowhere, fd, O_CLOEXEC) >= 0;
    if (nowhere >= 0) close(nowhere);
    return is_cut;
}

void fpc_conn_delete(fpc_conn *conn) {
    if (conn == NULL) return;
    if (!fpc_conn_is_inherited(conn) || cut_off(conn->pg)) {
        PQfinish(conn->pg); /* NULL is allowed */
    } else {
        close(PQsocket(conn->pg)); /* and libpq's memory is left alone */
    }
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
    const char *reason = PQerrorMessage(conn->pg);
    int length = (int)strcspn(reason, "\n");
    return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost%s%.*s", length > 0 ? ": " : "",
                    length, reason);
}

/* libpq refused to send: the connection is gone, or memory is. */
static fpc_status not_sent(fpc_conn *conn, fpc_error *err) {
    if (PQstatus(conn->pg) == CONNECTION_BAD) return lost(conn, false, err);
    conn->broken = true; /* half a message may be left in its buffer */
    const char *reason = PQerrorMessage(conn->pg);
    return fpc_fail(err, FPC_NOMEM, "the statement could not be sent: %.*s", (int)strcspn(reason, "\n"),
                    reason);
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

/* Waits and reads once.  Past the deadline it still takes what is there already. */
static fpc_status wait_and_read(fpc_conn *conn, short events, bool all_sent, fpc_deadline deadline,
                                fpc_error *err) {
    fpc_status status = fpc_wait_fd(PQsocket(conn->pg), events, deadline, err);
    if (status == FPC_CONNECT) return lost(conn, all_sent, err);
    if (status != FPC_OK) return gave_up(conn, status, err);
    if (!PQconsumeInput(conn->pg)) return lost(conn, all_sent, err);
    return FPC_OK;
}

static fpc_status flush(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    for (bool waited = false;; waited = true) {
        int left = PQflush(conn->pg);
        if (left == 0) return FPC_OK;
        if (left < 0) return lost(conn, false, err);
        if (waited && fpc_deadline_passed(deadline)) return gave_up(conn, FPC_TIMEOUT, err);
        /* The server may be unable to read on before we took what it says. */
        fpc_status status = wait_and_read(conn, POLLIN | POLLOUT, false, deadline, err);
        if (status != FPC_OK) return status;
    }
}

/* The next result, or NULL at the end of the answer. */
static fpc_status next_result(fpc_conn *conn, fpc_deadline deadline, PGresult **out, fpc_error *err) {
    for (bool waited = false; PQisBusy(conn->pg); waited = true) {
        if (waited && fpc_deadline_passed(deadline)) return gave_up(conn, FPC_TIMEOUT, err);
        fpc_status status = wait_and_read(conn, POLLIN, true, deadline, err);
        if (status != FPC_OK) return status;
    }
    *out = PQgetResult(conn->pg);
    return FPC_OK;
}

/* A changed table has no state and no untranslated words of its own. */
bool fpc_is_stale_statement(const PGresult *error) {
    const char *state = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    const char *function = PQresultErrorField(error, PG_DIAG_SOURCE_FUNCTION);
    return strcmp(state, "26000") == 0 || (strcmp(state, "0A000") == 0 && function != NULL &&
                                           strcmp(function, "RevalidateCachedQuery") == 0);
}

/* Told only when preparing once more did not help. */
static void blame_pooler(fpc_error *err) {
    if (err == NULL) return;
    size_t length = strlen(err->message);
    snprintf(err->message + length, sizeof err->message - length,
             "; a pooler in transaction mode is in between: set prepared = false");
}

/* Takes an error of the server; `had_success`: other statements sent along with it succeeded. */
static fpc_status take_error(fpc_conn *conn, const PGresult *error, bool had_success, fpc_error *err) {
    fpc_status status = fpc_server_error(error, conn->sent_ours, err);
    if (conn->use_prepared && conn->sent_ours && fpc_is_stale_statement(error)) {
        conn->stale = true;
        if (strcmp(PQresultErrorField(error, PG_DIAG_SQLSTATE), "26000") == 0) blame_pooler(err);
    }
    if (status != FPC_CONNECT) return status;
    conn->broken = true;
    /* The session ended and its open transaction is rolled back.  But an earlier statement of a script may
     * have committed, and a pooler that lost its server (class 08) knows as little as we do. */
    const char *state = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    bool in_doubt = had_success || strncmp(state, "08", 2) == 0;
    return in_doubt && conn->sent_write ? lost(conn, true, err) : status;
}

static fpc_status check_usable(const fpc_conn *conn, fpc_error *err) {
    if (fpc_conn_is_inherited(conn)) {
        return fpc_fail(err, FPC_CLOSED, "the connection belongs to the parent process");
    }
    if (conn->broken) return fpc_fail(err, FPC_CONNECT, "the connection to the server was lost");
    return FPC_OK;
}

fpc_status fpc_conn_wait(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    fpc_status usable = check_usable(conn, err);
    if (usable != FPC_OK) return usable;
    while (PQisBusy(conn->pg)) {
        fpc_status status = fpc_wait_fd(PQsocket(conn->pg), POLLIN, deadline, err);
        if (status != FPC_OK) return status;
        if (!PQconsumeInput(conn->pg)) return lost(conn, true, err);
    }
    return FPC_OK;
}

fpc_status fpc_conn_receive(fpc_conn *conn, fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    fpc_status usable = check_usable(conn, err);
    if (usable != FPC_OK) return usable;
    if (PQtransactionStatus(conn->pg) != PQTRANS_ACTIVE && PQstatus(conn->pg) != CONNECTION_BAD) {
        return fpc_fail(err, FPC_INVALID, "no statement was sent on this connection");
    }
    fpc_result *last = NULL;
    fpc_status failure = FPC_OK;
    for (;;) {
        PGresult *result = NULL;
        fpc_status status = next_result(conn, deadline, &result, failure == FPC_OK ? err : NULL);
        if (status != FPC_OK) {
            fpc_result_delete(last);
            return failure != FPC_OK ? failure : status; /* the first reason is the reason */
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
            /* Without a state they are libpq's own words: the connection went away. */
            failure = PQresultErrorField(result, PG_DIAG_SQLSTATE) == NULL
                          ? lost(conn, true, err)
                          : take_error(conn, result, last != NULL, err);
            PQclear(result);
            if (!conn->broken) break;
            fpc_result_delete(last); /* nothing follows but the end, and that would hide the reason */
            return failure;
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

/* After this every statement is prepared anew. */
static fpc_status forget_prepared(fpc_conn *conn, fpc_deadline deadline, fpc_error *err) {
    conn->sent_write = false;
    if (!PQsendQuery(conn->pg, "DEALLOCATE ALL")) return not_sent(conn, err);
    fpc_status status = flush(conn, deadline, err);
    if (status == FPC_OK) status = receive_and_drop(conn, deadline, err);
    if (status != FPC_OK) return status;
    fpc_id_set_clear(&conn->prepared);
    conn->stale = false;
    return FPC_OK;
}

/* Before a statement is sent. */
static fpc_status begin(fpc_conn *conn, bool is_write, bool is_ours, fpc_deadline deadline, fpc_error *err) {
    fpc_status status = check_usable(conn, err);
    if (status != FPC_OK) return status;
    PGTransactionStatusType transaction = PQtransactionStatus(conn->pg);
    if (transaction == PQTRANS_ACTIVE) {
        return fpc_fail(err, FPC_INVALID, "the answer to the statement before was not received yet");
    }
    if (conn->stale && transaction != PQTRANS_INERROR) status = forget_prepared(conn, deadline, err);
    /* Inside a transaction nothing has happened before COMMIT, which is none of our statements. */
    conn->sent_write = is_write && !(is_ours && transaction == PQTRANS_INTRANS);
    conn->sent_ours = is_ours;
    return status;
}

fpc_status fpc_check_statement_size(size_t bytes, fpc_error *err) {
    if (bytes <= MAX_PARAMS_BYTES) return FPC_OK;
    return fpc_fail(err, FPC_INVALID, "the values of one statement are more than 1 GB");
}

static fpc_status prepare(fpc_conn *conn, const fpc_statement *statement, fpc_deadline deadline,
                          fpc_error *err) {
    conn->sent_write = false; /* preparing changes nothing */
    if (!PQsendPrepare(conn->pg, statement->name, statement->sql, statement->param_count,
                       statement->param_oids)) {
        return not_sent(conn, err);
    }
    fpc_error local;
    fpc_status status = flush(conn, deadline, &local);
    if (status == FPC_OK) status = receive_and_drop(conn, deadline, &local);
    /* Same name, same text; but a transaction does not survive the error. */
    bool exists = status != FPC_OK && strcmp(local.sqlstate, "42P05") == 0;
    if (exists && PQtransactionStatus(conn->pg) != PQTRANS_INERROR) status = FPC_OK;
    if (status != FPC_OK && err != NULL) *err = local;
    if (status == FPC_OK && !fpc_id_set_add(&conn->prepared, statement->id)) {
        status = fpc_fail(err, FPC_NOMEM, "prepared statement");
    }
    return status;
}

fpc_status fpc_conn_send(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_error *err) {
    static const int BINARY[FPC_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    size_t bytes = 0;
    for (int i = 0; i < params->count; i++) bytes += (size_t)params->lengths[i];
    fpc_status status = fpc_check_statement_size(bytes, err);
    if (status == FPC_OK) status = begin(conn, !statement->read_only, true, deadline, err);
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
    if (!sent) return not_sent(conn, err);
    return flush(conn, deadline, err);
}

fpc_status fpc_conn_exec(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    for (int attempt = 0;; attempt++) {
        fpc_status status = fpc_conn_send(conn, statement, params, deadline, err);
        if (status == FPC_OK) status = fpc_conn_receive(conn, deadline, out, err);
        if (status == FPC_OK || attempt > 0 || !conn->stale || conn->broken) return status;
        if (PQtransactionStatus(conn->pg) != PQTRANS_IDLE) return status; /* the transaction is lost anyway */
    }
}

fpc_status fpc_conn_query(fpc_conn *conn, const char *sql, int count, const char *const *values,
                          fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    size_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += values[i] == NULL ? 0 : strlen(values[i]);
    fpc_status status = fpc_check_statement_size(bytes, err);
    if (status == FPC_OK) status = begin(conn, true, false, deadline, err);
    if (status != FPC_OK) return status;
    if (!PQsendQueryParams(conn->pg, sql, count, NULL, values, NULL, NULL, 0)) return not_sent(conn, err);
    status = flush(conn, deadline, err);
    if (status != FPC_OK) return status;
    return fpc_conn_receive(conn, deadline, out, err);
}

static fpc_status run_script(fpc_conn *conn, const char *sql, bool is_write, fpc_deadline deadline,
                             fpc_result **out, fpc_error *err) {
    fpc_status status = begin(conn, is_write, false, deadline, err);
    if (status != FPC_OK) return status;
    if (!PQsendQuery(conn->pg, sql)) return not_sent(conn, err);
    status = flush(conn, deadline, err);
    if (status != FPC_OK) return status;
    return fpc_conn_receive(conn, deadline, out, err);
}

fpc_status fpc_conn_script(fpc_conn *conn, const char *sql, fpc_deadline deadline, fpc_result **out,
                           fpc_error *err) {
    fpc_result *dropped = NULL;
    fpc_status status = run_script(conn, sql, true, deadline, out == NULL ? &dropped : out, err);
    fpc_result_delete(dropped);
    return status;
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

/* Whether there was a notification with this payload (NULL: whether there was any). */
static bool take_notifications(fpc_conn *conn, const char *payload) {
    bool heard = false;
    PGnotify *notification;
    while ((notification = PQnotifies(conn->pg)) != NULL) {
        heard = heard || payload == NULL || strcmp(notification->extra, payload) == 0;
        PQfreemem(notification);
    }
    return heard;
}

/* Reads what the server says while nothing is asked of it: a notice, a notification, or the end. */
static bool read_idle(fpc_conn *conn, const char *payload) {
    bool heard = take_notifications(conn, payload); /* came with an answer */
    struct pollfd fd = {.fd = PQsocket(conn->pg), .events = POLLIN};
    /* A server that talks without end is alive. */
    for (int i = 0; i < MAX_IDLE_READS && poll(&fd, 1, 0) > 0; i++) {
        if (!PQconsumeInput(conn->pg) || PQstatus(conn->pg) == CONNECTION_BAD) {
            conn->broken = true;
            break;
        }
        heard = take_notifications(conn, payload) || heard;
    }
    return heard;
}

bool fpc_conn_is_alive(fpc_conn *conn) {
    if (fpc_conn_is_broken(conn)) return false;
    read_idle(conn, NULL);
    return !conn->broken;
}

int fpc_conn_fd(const fpc_conn *conn) {
    return PQsocket(conn->pg);
}

bool fpc_conn_heard(fpc_conn *conn, const char *payload) {
    return !fpc_conn_is_broken(conn) && read_idle(conn, payload);
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

PGconn *fpc_conn_pg(const fpc_conn *conn) {
    return conn->pg;
}
