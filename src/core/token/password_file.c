/* password_file.c -- a password that somebody else keeps fresh in a file, such as a side-car or an agent.
 *
 * The file is read at every fetch: how long its password is good for is not known, and reading it is cheap.
 * Settings: path. */
#include "secret.h"
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES ((size_t)64 * 1024)

typedef struct file_source {
    fpc_token_source head;
    char *path;
} file_source;

static fpc_status not_readable(const file_source *self, int why, fpc_token_failure *failure) {
    return fpc_token_fail(failure, true, why == EACCES ? FPC_DENIED : FPC_INVALID,
                          "password_file %s could not be read: %s", self->path, strerror(why));
}

/* Others must not be able to read or change it; the group may read. */
static fpc_status check_mode(const file_source *self, int fd, fpc_token_failure *failure) {
    struct stat is;
    if (fstat(fd, &is) != 0) return not_readable(self, errno, failure);
    if (S_ISDIR(is.st_mode)) return not_readable(self, EISDIR, failure);
    if (S_ISREG(is.st_mode) && (is.st_mode & (S_IRWXO | S_IWGRP)) != 0) {
        return fpc_token_fail(failure, true, FPC_DENIED,
                              "password_file %s is open to others (mode %04o); chmod it to 0600 or 0640",
                              self->path, (unsigned)(is.st_mode & 07777));
    }
    return FPC_OK;
}

/* Reads all there is, one byte more than allowed at most.  The bytes before an error. */
static ssize_t read_all(int fd, char *bytes, size_t room) {
    size_t length = 0;
    while (length < room) {
        ssize_t n = read(fd, bytes + length, room - length);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        length += (size_t)n;
    }
    return (ssize_t)length;
}

static fpc_status take(const file_source *self, char *bytes, ssize_t length, fpc_token_failure *failure) {
    if (length < 0) return not_readable(self, errno, failure);
    if (length > (ssize_t)MAX_BYTES)
        return fpc_token_fail(failure, true, FPC_INVALID, "password_file %s is longer than 64 KiB",
                              self->path);
    bytes[length] = '\0';
    while (length > 0 && (bytes[length - 1] == '\n' || bytes[length - 1] == '\r')) bytes[--length] = '\0';
    if (length == 0)
        return fpc_token_fail(failure, true, FPC_INVALID, "password_file %s is empty", self->path);
    if (strlen(bytes) != (size_t)length || strchr(bytes, '\n') != NULL) {
        return fpc_token_fail(failure, true, FPC_INVALID,
                              "password_file %s holds more than one line, or a NUL byte", self->path);
    }
    return FPC_OK;
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    (void)how; /* a file does not make us wait */
    file_source *self = (file_source *)source;
    fpc_token_init(out);
    int fd = open(self->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return not_readable(self, errno, failure);
    fpc_status status = check_mode(self, fd, failure);
    char *bytes = status == FPC_OK ? calloc(1, MAX_BYTES + 2) : NULL;
    if (bytes != NULL) {
        status = take(self, bytes, read_all(fd, bytes, MAX_BYTES + 1), failure);
        if (status == FPC_OK && (out->password = fpc_secret_dup(bytes)) == NULL)
            status = fpc_token_no_memory(failure);
        fpc_secret_free(bytes);
    } else if (status == FPC_OK) {
        status = fpc_token_no_memory(failure);
    }
    close(fd);
    return status;
}

static void destroy(fpc_token_source *source) {
    file_source *self = (file_source *)source;
    free(self->path);
    free(self);
}

static const fpc_token_source_class CLASS = {
    .name = "password_file", .fetch = fetch, .destroy = destroy, .max_age_s = 1};

fpc_status fpc_token_make_password_file(const fpc_token_settings *settings, fpc_token_source **out,
                                        fpc_error *err) {
    static const char *const NAMES[] = {"path", NULL};
    const char *values[1];
    fpc_status status = fpc_token_settings_read(settings, NAMES, values, err);
    if (status != FPC_OK) return status;
    if (values[0] == NULL) return fpc_fail(err, FPC_INVALID, "the path of the file is missing");
    file_source *self = calloc(1, sizeof *self);
    char *path = strdup(values[0]);
    if (self == NULL || path == NULL) {
        free(self);
        free(path);
        return fpc_fail(err, FPC_NOMEM, "source");
    }
    *self = (file_source){.head = {.class = &CLASS}, .path = path};
    *out = &self->head;
    return FPC_OK;
}
