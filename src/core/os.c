/* os.c -- small facts and acts of the operating system. */
#include "fpcache/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MODE_BITS 07777
#define MAX_DEPTH 100 /* of a tree to remove; each level holds a file open */

fpc_status fpc_os_fail(fpc_error *err, int why, const char *format, ...) {
    char words[sizeof err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    fpc_status status = FPC_SERVER;
    switch (why) {
    case EACCES:
    case EPERM:
    case EROFS: status = FPC_DENIED; break;
    case ENOMEM: status = FPC_NOMEM; break;
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EEXIST:
    case ENOTEMPTY:
    case ELOOP:
    case ENAMETOOLONG:
    case ESRCH:
    case EINVAL: status = FPC_INVALID; break;
    default: break;
    }
    return fpc_fail(err, status, "%s: %s", words, strerror(why));
}

/* --- time --- */

double fpc_os_wall_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void fpc_os_sleep(double seconds) {
    if (!(seconds > 0)) return; /* NaN too */
    if (seconds > 1e9) seconds = 1e9;
    struct timespec pause = {.tv_sec = (time_t)seconds};
    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    nanosleep(&pause, NULL);
}

/* --- users and processes --- */

fpc_status fpc_os_user_find(const char *name, int64_t uid, fpc_os_user *out, fpc_error *err) {
    struct passwd entry, *found = NULL;
    char buffer[16384];
    int why = name != NULL ? getpwnam_r(name, &entry, buffer, sizeof buffer, &found)
                           : getpwuid_r((uid_t)uid, &entry, buffer, sizeof buffer, &found);
    if (found == NULL && name != NULL)
        return fpc_os_fail(err, why != 0 ? why : ENOENT, "no user \"%s\"", name);
    if (found == NULL) return fpc_os_fail(err, why != 0 ? why : ENOENT, "no user %lld", (long long)uid);
    if (strlen(found->pw_name) >= sizeof out->name || strlen(found->pw_dir) >= sizeof out->home)
        return fpc_os_fail(err, ENAMETOOLONG, "user \"%.60s\"", found->pw_name);
    out->uid = found->pw_uid;
    out->gid = found->pw_gid;
    strcpy(out->name, found->pw_name);
    strcpy(out->home, found->pw_dir);
    return FPC_OK;
}

fpc_status fpc_os_kill(int64_t pid, int signal, fpc_error *err) {
    /* 0 and negative numbers mean whole groups to kill(): never what a caller here wants. */
    int why = pid <= 0 || pid > INT_MAX ? ESRCH : kill((pid_t)pid, signal) != 0 ? errno : 0;
    return why == 0 ? FPC_OK : fpc_os_fail(err, why, "could not signal process %lld", (long long)pid);
}

fpc_status fpc_os_random(void *out, size_t len, fpc_error *err) {
    unsigned char *at = out;
    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fpc_os_fail(err, errno, "no random bytes");
        at += n;
        len -= (size_t)n;
    }
    return FPC_OK;
}

fpc_status fpc_os_set_env(const char *name, const char *value, fpc_error *err) {
    int failed = value != NULL ? setenv(name, value, 1) : unsetenv(name);
    return failed == 0 ? FPC_OK : fpc_os_fail(err, errno, "could not set the variable \"%s\"", name);
}

fpc_status fpc_os_host_name(char *out, size_t size, fpc_error *err) {
    if (gethostname(out, size) != 0) return fpc_os_fail(err, errno, "no host name");
    out[size - 1] = '\0';
    return FPC_OK;
}

/* --- files --- */

static fpc_os_type type_of(mode_t mode) {
    if (S_ISREG(mode)) return FPC_OS_FILE;
    if (S_ISDIR(mode)) return FPC_OS_DIRECTORY;
    if (S_ISLNK(mode)) return FPC_OS_LINK;
    if (S_ISSOCK(mode)) return FPC_OS_SOCKET;
    return FPC_OS_OTHER;
}

fpc_status fpc_os_stat_path(const char *path, bool follow, fpc_os_stat *out, fpc_error *err) {
    struct stat st;
    if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0)
        return fpc_os_fail(err, errno, "could not look at %s", path);
    out->type = type_of(st.st_mode);
    out->mode = st.st_mode & MODE_BITS;
    out->uid = st.st_uid;
    out->gid = st.st_gid;
    out->size = st.st_size;
    out->modified = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9;
    return FPC_OK;
}

static bool is_dots(const char *name) {
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

fpc_status fpc_os_list(const char *path, char **names, size_t *count, fpc_error *err) {
    char *bytes = NULL;
    size_t used = 0, room = 0, n = 0;
    int why = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) return fpc_os_fail(err, errno, "could not read the directory %s", path);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) why = errno;
        if (entry == NULL) break;
        if (is_dots(entry->d_name)) continue;
        size_t len = strlen(entry->d_name) + 1;
        if (used + len > room) {
            room = 2 * room + len + 256;
            char *bigger = realloc(bytes, room);
            if (bigger == NULL) why = ENOMEM;
            if (bigger == NULL) break;
            bytes = bigger;
        }
        memcpy(bytes + used, entry->d_name, len);
        used += len;
        n++;
    }
    closedir(dir);
    if (why != 0) {
        free(bytes);
        return fpc_os_fail(err, why, "could not read the directory %s", path);
    }
    *names = bytes;
    *count = n;
    return FPC_OK;
}

fpc_status fpc_os_mkdir(const char *path, unsigned mode, fpc_error *err) {
    /* chmod() because the umask may have taken bits away; nobody else can have replaced it: only
     * those who may write to the parent, and they could replace it later as well. */
    if (mkdir(path, mode) != 0 || chmod(path, mode) != 0)
        return fpc_os_fail(err, errno, "could not make the directory %s", path);
    return FPC_OK;
}

fpc_status fpc_os_chmod(const char *path, unsigned mode, fpc_error *err) {
    return chmod(path, mode) == 0 ? FPC_OK : fpc_os_fail(err, errno, "could not change the mode of %s", path);
}

fpc_status fpc_os_chown(const char *path, int64_t uid, int64_t gid, fpc_error *err) {
    if (lchown(path, (uid_t)uid, (gid_t)gid) == 0) return FPC_OK;
    return fpc_os_fail(err, errno, "could not change the owner of %s", path);
}

fpc_status fpc_os_rename(const char *from, const char *to, fpc_error *err) {
    return rename(from, to) == 0 ? FPC_OK : fpc_os_fail(err, errno, "could not rename %s", from);
}

fpc_status fpc_os_unlink(const char *path, fpc_error *err) {
    return remove(path) == 0 ? FPC_OK : fpc_os_fail(err, errno, "could not remove %s", path);
}

fpc_status fpc_os_mkdtemp(char *template, fpc_error *err) {
    if (mkdtemp(template) != NULL) return FPC_OK;
    return fpc_os_fail(err, errno, "could not make a directory %s", template);
}

/* Empties the directory open as `fd`; closes it.  Names are looked up relative to the open
 * directory, so nobody can lead us elsewhere by replacing a part of the path.  0 or an errno. */
static int remove_below(int fd, int depth) {
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int why = errno;
        close(fd);
        return why;
    }
    int why = 0;
    while (why == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (entry == NULL) why = errno;
        if (entry == NULL) break;
        if (is_dots(entry->d_name)) continue;
        if (unlinkat(fd, entry->d_name, 0) == 0 || errno == ENOENT) continue;
        if (errno != EISDIR && errno != EPERM) why = errno; /* EPERM: POSIX for "is a directory" */
        if (why != 0) break;
        int below = openat(fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below < 0 || depth == 0) {
            why = below < 0 ? errno : ELOOP;
            if (below >= 0) close(below);
        } else {
            why = remove_below(below, depth - 1);
        }
        if (why == ENOENT) why = 0;
        if (why == 0 && unlinkat(fd, entry->d_name, AT_REMOVEDIR) != 0 && errno != ENOENT) why = errno;
    }
    closedir(dir);
    return why;
}

fpc_status fpc_os_remove_tree(const char *path, fpc_error *err) {
    int why = 0;
    if (unlink(path) != 0) why = errno;
    if (why == EISDIR || why == EPERM) {
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        why = fd < 0 ? errno : remove_below(fd, MAX_DEPTH);
        if (why == 0 && rmdir(path) != 0) why = errno;
    }
    return why == 0 || why == ENOENT ? FPC_OK : fpc_os_fail(err, why, "could not remove %s", path);
}

fpc_status fpc_os_resolve(const char *path, bool real, char **out, fpc_error *err) {
    if (real) {
        *out = realpath(path, NULL);
        return *out != NULL ? FPC_OK : fpc_os_fail(err, errno, "could not resolve %s", path);
    }
    char *target = malloc(PATH_MAX);
    if (target == NULL) return fpc_fail(err, FPC_NOMEM, "path");
    ssize_t n = readlink(path, target, PATH_MAX);
    int why = n < 0 ? errno : n == PATH_MAX ? ENAMETOOLONG : 0;
    if (why != 0) {
        free(target);
        return fpc_os_fail(err, why, "could not read the link %s", path);
    }
    target[n] = '\0';
    *out = target;
    return FPC_OK;
}

bool fpc_os_socket_answers(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return false;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool answers = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(fd);
    return answers;
}
