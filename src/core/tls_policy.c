/* tls_policy.c -- verify-full by the system's roots, unless the user says something else that is safe. */
#include "tls_policy.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBPQ_WITH_SYSTEM_ROOTS 160000 /* sslrootcert=system */

/* Where Linux distributions and BSDs keep the public roots. */
static const char *const BUNDLES[] = {"/etc/ssl/certs/ca-certificates.crt",
                                      "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"};

static bool is_set(const char *text) {
    return text != NULL && *text != '\0';
}

/* Whether every host of the list is the folder of a unix socket: libpq uses no TLS there, and the kernel
 * knows who listens. */
static bool are_sockets(const char *hosts) {
    if (!is_set(hosts)) return false;
    for (;;) {
        if (*hosts != '/' && *hosts != '@') return false;
        hosts = strchr(hosts, ',');
        if (hosts == NULL) return true;
        hosts++;
    }
}

/* Whether the password cannot leave this machine.  An address wins over the host, also one from the
 * environment or from a service's file. */
static bool stays_here(const fpc_conninfo *info) {
    static const char *const ELSEWHERE[][2] = {{"hostaddr", "PGHOSTADDR"}, {"service", "PGSERVICE"}};
    for (size_t i = 0; i < sizeof ELSEWHERE / sizeof ELSEWHERE[0]; i++) {
        if (is_set(fpc_conninfo_get(info, ELSEWHERE[i][0])) || is_set(getenv(ELSEWHERE[i][1]))) return false;
    }
    return are_sockets(fpc_conninfo_get(info, "host"));
}

static const char *roots(const char *sslmode) {
    /* libpq takes "system" with verify-full only. */
    if (PQlibVersion() >= LIBPQ_WITH_SYSTEM_ROOTS && strcmp(sslmode, "verify-full") == 0) return "system";
    for (size_t i = 0; i < sizeof BUNDLES / sizeof BUNDLES[0]; i++) {
        if (access(BUNDLES[i], R_OK) == 0) return BUNDLES[i];
    }
    return NULL;
}

fpc_status fpc_tls_policy_apply(fpc_conninfo *info, fpc_error *err) {
    const char *kind = fpc_token_keeper_kind(fpc_conninfo_token(info));
    fpc_status status = fpc_conninfo_default(info, "gssencmode", "disable", err);
    if (status == FPC_OK && fpc_token_kind_is_plain(kind))
        status = fpc_conninfo_default(info, "require_auth", "password", err);
    /* For a socket too, which takes no notice: who knows where libpq finds another host. */
    if (status == FPC_OK) status = fpc_conninfo_default(info, "sslmode", "verify-full", err);
    if (status != FPC_OK) return status;
    const char *mode = fpc_conninfo_get(info, "sslmode");
    bool verifies = strcmp(mode, "verify-full") == 0 || strcmp(mode, "verify-ca") == 0;
    if (!verifies && strcmp(mode, "require") != 0 && !stays_here(info)) {
        return fpc_fail(
            err, FPC_INVALID,
            "sslmode=%.20s would show the password of %s to whoever is on the way; use verify-full "
            "(the default) or at least require",
            mode, kind);
    }
    const char *bundle = roots(mode);
    if (!verifies || bundle == NULL || is_set(getenv("PGSSLROOTCERT"))) return FPC_OK;
    return fpc_conninfo_default(info, "sslrootcert", bundle, err);
}
