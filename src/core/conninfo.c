/* conninfo.c -- keyword arrays for libpq.
 *
 * Two parallel arrays, NULL-terminated as libpq wants them.  A conninfo string is never built: libpq
 * quotes parts of a bad one in its errors, and a part may be the password. */
#include "fpcache/conninfo.h"
#include "secret.h"
#include "tls_policy.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KEYWORDS 64

struct fpc_conninfo {
    int count;
    char *keywords[MAX_KEYWORDS + 1];
    char *values[MAX_KEYWORDS + 1];
    fpc_token_keeper *token;             /* NULL: none */
    char *fallback_host, *fallback_user; /* with a token only */
};

fpc_conninfo *fpc_conninfo_new(void) {
    return calloc(1, sizeof(fpc_conninfo));
}

void fpc_conninfo_delete(fpc_conninfo *info) {
    if (info == NULL) return;
    for (int i = 0; i < info->count; i++) {
        free(info->keywords[i]);
        fpc_secret_free(info->values[i]);
    }
    fpc_token_keeper_close(info->token);
    free(info->fallback_host);
    free(info->fallback_user);
    free(info);
}

static int find(const fpc_conninfo *info, const char *keyword) {
    for (int i = 0; i < info->count; i++) {
        if (strcmp(info->keywords[i], keyword) == 0) return i;
    }
    return -1;
}

/* Whether PostgreSQL takes it for UTF-8: letters and digits count, in either case. */
static bool is_utf8(const char *encoding) {
    char name[8] = "";
    for (size_t length = 0; *encoding != '\0' && length < sizeof name - 1; encoding++) {
        if (isalnum((unsigned char)*encoding)) name[length++] = (char)tolower((unsigned char)*encoding);
    }
    return *encoding == '\0' && (strcmp(name, "utf8") == 0 || strcmp(name, "unicode") == 0);
}

/* Stores a keyword that is known to be good, unless it is set.  With another encoding the server would
 * read the names of namespaces as other letters, and two clients would not see each other's entries. */
static fpc_status put(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err) {
    if (find(info, keyword) >= 0) return FPC_OK;
    if (strcmp(keyword, "client_encoding") == 0 && !is_utf8(value))
        return fpc_fail(err, FPC_INVALID, "client_encoding is always UTF8; leave it out (got %.40s)", value);
    char *copy = strdup(value);
    char *name = strdup(keyword);
    if (copy == NULL || name == NULL || info->count == MAX_KEYWORDS) {
        free(name);
        fpc_secret_free(copy);
        return fpc_fail(err, FPC_NOMEM, "connection setting");
    }
    info->keywords[info->count] = name;
    info->values[info->count] = copy;
    info->count++;
    return FPC_OK;
}

/* Whether this libpq has the keyword; its list does not change, and asking costs 10 us.  Parsing nothing
 * gives the list without a look at the environment, its service file and its password. */
static bool is_known(const char *keyword) {
    PQconninfoOption *options = PQconninfoParse("", NULL);
    bool known = false;
    for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL && !known; o++) {
        known = strcmp(o->keyword, keyword) == 0;
    }
    PQconninfoFree(options);
    return known;
}

fpc_status fpc_conninfo_add(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err) {
    if (!is_known(keyword)) {
        int version = PQlibVersion();
        return fpc_fail(err, FPC_INVALID, "libpq %d.%d does not know the connection setting \"%.40s\"",
                        version / 10000, version % 10000, keyword);
    }
    return put(info, keyword, value, err);
}

fpc_status fpc_conninfo_default(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err) {
    if (!is_known(keyword)) return FPC_OK;
    return put(info, keyword, value, err);
}

static const char *value_of(const PQconninfoOption *options, const char *keyword) {
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (strcmp(o->keyword, keyword) == 0) return o->val == NULL ? "" : o->val;
    }
    return "";
}

/* Whether a host of the list has an @ inside.  At its start it says that a socket is abstract, and the
 * path of a socket may have one. */
static bool has_odd_host(const char *hosts) {
    for (const char *host = hosts; *host != '\0';) {
        size_t length = strcspn(host, ",");
        if (host[0] != '/' && length > 0 && memchr(host + 1, '@', length - 1) != NULL) return true;
        host += length;
        if (*host == ',') host++;
    }
    return false;
}

/* Whether a URL's path, written after the host, has an @. */
static bool has_odd_path(const char *text) {
    const char *host = strstr(text, "://");
    if (host == NULL || strncmp(text, "postgres", 8) != 0) return false;
    const char *path = host + 3 + strcspn(host + 3, "/?");
    return *path == '/' && memchr(path, '@', strcspn(path, "?")) != NULL;
}

/* A password that holds an @ or a / as it is makes libpq take its parts for host, port and database, which
 * its errors quote later on. */
static bool is_torn(const char *text, const PQconninfoOption *options) {
    const char *port = value_of(options, "port");
    return has_odd_host(value_of(options, "host")) || has_odd_path(text) ||
           port[strspn(port, "0123456789,")] != '\0';
}

static void wipe_and_free(PQconninfoOption *options) {
    for (PQconninfoOption *o = options; o->keyword != NULL; o++) {
        if (o->val != NULL) OPENSSL_cleanse(o->val, strlen(o->val));
    }
    PQconninfoFree(options);
}

fpc_status fpc_conninfo_parse(fpc_conninfo *info, const char *text, fpc_error *err) {
    char *reason = NULL;
    PQconninfoOption *options = PQconninfoParse(text, &reason);
    PQfreemem(reason); /* may quote the password */
    if (options == NULL) {
        return fpc_fail(
            err, FPC_INVALID,
            "connection_string is neither a postgresql:// URL nor a list of key=value settings that "
            "libpq understands (not quoted here: it may hold a password)");
    }
    fpc_status status = FPC_OK;
    if (is_torn(text, options)) {
        status = fpc_fail(err, FPC_INVALID,
                          "connection_string has an @ in its host or path, or a port that is no number; in a "
                          "URL write @ as %%40, / as %%2F and %% as %%25 (not quoted here: it may hold a "
                          "password)");
    }
    for (PQconninfoOption *o = options; o->keyword != NULL && status == FPC_OK; o++) {
        if (o->val != NULL) status = put(info, o->keyword, o->val, err);
    }
    wipe_and_free(options);
    return status;
}

static bool copy_text(const char *text, char **out) {
    *out = text == NULL ? NULL : strdup(text);
    return text == NULL || *out != NULL;
}

static bool share_token(fpc_conninfo *info, fpc_token_keeper *keeper, const char *host, const char *user) {
    info->token = fpc_token_keeper_share(keeper);
    bool has_host = copy_text(host, &info->fallback_host);
    return copy_text(user, &info->fallback_user) && has_host;
}

fpc_status fpc_conninfo_set_token(fpc_conninfo *info, fpc_token_keeper *keeper, const char *host,
                                  const char *user, fpc_error *err) {
    if (fpc_conninfo_get(info, "password") != NULL)
        return fpc_fail(err, FPC_INVALID, "a password beside %s: one of the two is too much",
                        fpc_token_keeper_kind(keeper));
    if (!share_token(info, keeper, host, user)) return fpc_fail(err, FPC_NOMEM, "connection setting");
    return fpc_tls_policy_apply(info, err);
}

fpc_token_keeper *fpc_conninfo_token(const fpc_conninfo *info) {
    return info->token;
}

const char *fpc_conninfo_fallback_host(const fpc_conninfo *info) {
    return info->fallback_host;
}

const char *fpc_conninfo_fallback_user(const fpc_conninfo *info) {
    return info->fallback_user;
}

fpc_conninfo *fpc_conninfo_copy(const fpc_conninfo *info) {
    fpc_conninfo *copy = fpc_conninfo_new();
    bool ok = copy != NULL;
    for (int i = 0; ok && i < info->count; i++) {
        ok = put(copy, info->keywords[i], info->values[i], NULL) == FPC_OK;
    }
    if (ok && info->token != NULL)
        ok = share_token(copy, info->token, info->fallback_host, info->fallback_user);
    if (ok) return copy;
    fpc_conninfo_delete(copy);
    return NULL;
}

bool fpc_conninfo_equal(const fpc_conninfo *a, const fpc_conninfo *b) {
    if (a->count != b->count || a->token != b->token) return false; /* a keyword is there at most once */
    for (int i = 0; i < a->count; i++) {
        const char *other = fpc_conninfo_get(b, a->keywords[i]);
        if (other == NULL || strcmp(a->values[i], other) != 0) return false;
    }
    return true;
}

const char *fpc_conninfo_get(const fpc_conninfo *info, const char *keyword) {
    int i = find(info, keyword);
    return i < 0 ? NULL : info->values[i];
}

const char *const *fpc_conninfo_keywords(const fpc_conninfo *info) {
    return (const char *const *)info->keywords;
}

const char *const *fpc_conninfo_values(const fpc_conninfo *info) {
    return (const char *const *)info->values;
}
