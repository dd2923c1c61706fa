/* token_source.h -- where passwords that expire come from.
 *
 *   source   knows how to get a token now, and keeps what it needs for the next one (a login at a
 *            workspace, the name of a file); one source for each kind of cloud
 *   token    a password of PostgreSQL with an end, and what the source found out on the way
 *
 * A source only fetches.  When to fetch, for whom, and what to do after a failure is token.h's.
 * Owner: a token's strings belong to whoever holds it, until fpc_token_clear(), which wipes them.  No error
 * message quotes a secret.
 * Thread rule: one thread at a time fetches from a source; fetch never touches Lua. */
#ifndef FPCACHE_TOKEN_SOURCE_H
#define FPCACHE_TOKEN_SOURCE_H

#include "fpcache/clock.h"
#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>

/* A source's settings by name, as a user writes them; the values are text, and an empty one counts as not
 * given.  A list is one setting of that name for each element.  Each kind lists its names. */
typedef struct fpc_token_setting {
    const char *name, *value;
} fpc_token_setting;

typedef struct fpc_token {
    char *password;
    double valid_for_s; /* from the start of the fetch; below 0: the source cannot tell */
    char *host, *user;  /* where to log in and as whom, when the source knows; else NULL */
} fpc_token;

/* How to fetch. */
typedef struct fpc_token_fetch {
    fpc_deadline deadline;
    int stop_fd; /* readable: give up with FPC_INTERRUPTED; -1: none */
    bool fresh;  /* the last token was refused before its end: use nothing that was kept for it */
} fpc_token_fetch;

/* Why it failed, and what that means for the next try. */
typedef struct fpc_token_failure {
    fpc_error error;
    bool permanent;       /* the same again until somebody changes something: try rarely */
    double retry_after_s; /* as the other side asked; 0: it did not */
} fpc_token_failure;

typedef struct fpc_token_source fpc_token_source;

typedef struct fpc_token_source_class {
    const char *name; /* such as "databricks"; for reports */
    fpc_status (*fetch)(fpc_token_source *self, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure);
    void (*destroy)(fpc_token_source *self); /* wipes what it kept */
    double max_age_s; /* asking costs little: who needs a password gets none older than this; 0: it costs */
} fpc_token_source_class;

/* The head of every source's own struct. */
struct fpc_token_source {
    const fpc_token_source_class *class;
};

/* The source of a `kind` with these settings; it copies them.  FPC_INVALID for a kind or setting that is not
 * known, one that is missing, or two that contradict.  Reads the environment, and no network. */
fpc_status fpc_token_source_new(const char *kind, const fpc_token_setting *settings, size_t count,
                                fpc_token_source **out, fpc_error *err);
void fpc_token_source_delete(fpc_token_source *source); /* NULL is allowed */

/* Whether a source of this kind is made for one server and login: its settings host, port and user are then
 * taken from the connection's where they are not given. */
bool fpc_token_kind_is_of_server(const char *kind);

/* Whether the servers of this kind ask for the password as it is, so that any other way to log in is wrong.
 */
bool fpc_token_kind_is_plain(const char *kind);

/* Wipes and frees the strings; the struct is empty afterwards. */
void fpc_token_clear(fpc_token *token);

#endif
