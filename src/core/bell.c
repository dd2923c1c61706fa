/* bell.c -- a unix socket that lives until it has been connected to. */
#include "fpcache/bell.h"
#include "completions_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct fpc_bell {
    int fd;
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
    struct sockaddr_un address;
};

static fpc_status cannot_listen(fpc_bell *bell, fpc_error *err) {
    fpc_status status =
        fpc_fail(err, FPC_DENIED, "could not listen on %s: %s", bell->address.sun_path, strerror(errno));
    fpc_bell_delete(bell);
    return status;
}

fpc_status fpc_bell_new(const char *parent, fpc_bell **out, fpc_error *err) {
    fpc_bell *bell = calloc(1, sizeof *bell);
    if (bell == NULL) return fpc_fail(err, FPC_NOMEM, "bell");
    bell->fd = -1;
    bell->address.sun_family = AF_UNIX;
    int length = snprintf(bell->folder, sizeof bell->folder, "%s/fpcache-XXXXXX", parent);
    if (length < 0 || (size_t)length + sizeof "/bell" > sizeof bell->address.sun_path) {
        free(bell);
        return fpc_fail(err, FPC_INVALID, "the path of a socket in %s is too long (at most %zu bytes)",
                        parent, sizeof bell->address.sun_path - sizeof "/fpcache-XXXXXX/bell");
    }
    if (mkdtemp(bell->folder) == NULL) {
        fpc_status status =
            fpc_fail(err, FPC_DENIED, "could not make a folder in %s: %s", parent, strerror(errno));
        free(bell);
        return status;
    }
    memcpy(bell->address.sun_path, bell->folder, (size_t)length);
    memcpy(bell->address.sun_path + length, "/bell", sizeof "/bell");
    bell->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bell->fd < 0 || bind(bell->fd, (struct sockaddr *)&bell->address, sizeof bell->address) != 0 ||
        chmod(bell->address.sun_path, S_IRUSR | S_IWUSR) != 0 || listen(bell->fd, 1) != 0)
        return cannot_listen(bell, err);
    *out = bell;
    return FPC_OK;
}

const char *fpc_bell_path(const fpc_bell *bell) {
    return bell->address.sun_path;
}

fpc_status fpc_bell_attach(fpc_bell *bell, fpc_completions *queue, fpc_error *err) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    int fd = accept4(bell->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return fpc_fail(err, FPC_CONNECT, "nobody connected to %s: %s", bell->address.sun_path,
                        strerror(errno));
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid != getpid()) {
        close(fd);
        return fpc_fail(err, FPC_DENIED, "another process connected to %s", bell->address.sun_path);
    }
    fpc_completions_ring(queue, fd);
    return FPC_OK;
}

void fpc_bell_delete(fpc_bell *bell) {
    if (bell == NULL) return;
    if (bell->fd >= 0) close(bell->fd);
    unlink(bell->address.sun_path);
    rmdir(bell->folder);
    free(bell);
}
