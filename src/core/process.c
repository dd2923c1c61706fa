/* process.c -- runs another program, without a shell in between.
 *
 * fork() in a process with threads leaves the child one safe thing to do: system calls.  So
 * everything that allocates (environment, pipes, the copy of the input) happens before, in a
 * `plan`, and the child only carries it out.  The child reports through a pipe that execve()
 * closes: no bytes mean that the program is running, a `report` says which step failed. */
#include "fpcache/process.h"

#include "fpcache/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define TICK_MS           10   /* how often to look at a child where the kernel has no pidfd */
#define INTERRUPT_TICK_MS 100  /* how often to look for an interrupt that another thread got */
#define KILL_GRACE_S      5.0  /* a killed process may be inside the kernel for a moment */
#define READ_SIZE         4096 /* one read from the output pipe */
#define FALLBACK_FDS      65536

enum step { STEP_PID, STEP_FORK, STEP_USER, STEP_DIR, STEP_LOG, STEP_FILES, STEP_EXEC };

static const char *const STEP_WORDS[] = {
    [STEP_PID] = "",
    [STEP_FORK] = "could not start a process for",
    [STEP_USER] = "could not become the user for",
    [STEP_DIR] = "could not enter the working directory of",
    [STEP_LOG] = "could not open the output file of",
    [STEP_FILES] = "could not set up the files of",
    [STEP_EXEC] = "could not run",
};

struct report {
    enum step step;
    int value; /* STEP_PID: the daemon's pid; else an errno */
};

struct plan {
    const fpc_process_options *options;
    char **env;           /* owned; its strings are not */
    const char *log_path; /* NULL: output goes to `out` */
    bool daemon;
    int in, out, errors, report, keep; /* all above 2, or -1; errors: -1 for the same as out */
};

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* A copy of `fd` above the three standard numbers, so that dup2() onto those never clashes;
 * closes `fd`.  -1 with errno. */
static int lift(int fd) {
    if (fd < 0 || fd > 2) return fd;
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int saved = errno;
    close(fd);
    errno = saved;
    return high;
}

static bool make_pipe(int *read_end, int *write_end) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) return false;
    *read_end = lift(fds[0]);
    *write_end = lift(fds[1]);
    return *read_end >= 0 && *write_end >= 0;
}

/* A file with the input's bytes, read from its start.  A file and not a pipe: nothing has to be
 * fed while the program runs, and a program that does not read cannot break us. */
static int open_input(const fpc_process_options *options) {
    if (options->input == NULL) return lift(open("/dev/null", O_RDONLY | O_CLOEXEC));
    int fd = lift(memfd_create("fpcache-input", MFD_CLOEXEC));
    if (fd < 0) return -1;
    size_t done = 0;
    while (done < options->input_len) {
        ssize_t n = write(fd, options->input + done, options->input_len - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) goto fail;
        done += (size_t)n;
    }
    if (lseek(fd, 0, SEEK_SET) == 0) return fd;
fail:;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static bool same_name(const char *a, const char *b) {
    size_t n = strcspn(a, "=");
    return strncmp(a, b, n) == 0 && (b[n] == '=' || b[n] == '\0');
}

static char **make_env(const fpc_process_options *options) {
    size_t ours = 0, added = 0;
    while (!options->clear_env && environ != NULL && environ[ours] != NULL) ours++;
    while (options->env != NULL && options->env[added] != NULL) added++;
    char **env = malloc((ours + added + 1) * sizeof *env);
    if (env == NULL) return NULL;
    size_t n = 0;
    for (size_t i = 0; i < ours; i++) {
        bool replaced = false;
        for (size_t j = 0; j < added && !replaced; j++) replaced = same_name(options->env[j], environ[i]);
        if (!replaced) env[n++] = environ[i];
    }
    for (size_t j = 0; j < added; j++) env[n++] = (char *)options->env[j];
    env[n] = NULL;
    return env;
}

/* --- in the child: system calls only --- */

_Noreturn static void child_fail(const struct plan *plan, enum step step) {
    struct report report = {step, errno};
    ssize_t n = write(plan->report, &report, sizeof report); /* less than PIPE_BUF: whole or not */
    _exit(n == (ssize_t)sizeof report ? 127 : 126);
}

static void close_others_on_exec(void) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3U, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) == 0) return;
#endif
    struct rlimit limit;
    int top = FALLBACK_FDS;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < FALLBACK_FDS) top = (int)limit.rlim_cur;
    for (int fd = 3; fd < top; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void default_signals(void) {
    struct sigaction dfl;
    memset(&dfl, 0, sizeof dfl);
    dfl.sa_handler = SIG_DFL;
    for (int sig = 1; sig < NSIG; sig++) sigaction(sig, &dfl, NULL); /* some refuse; they stay default */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn static void child(const struct plan *plan) {
    const fpc_process_options *o = plan->options;
    if (plan->daemon) {
        setsid();
        pid_t pid = fork(); /* the first child ends at once: init adopts the second */
        if (pid < 0) child_fail(plan, STEP_FORK);
        if (pid > 0) _exit(0);
        struct report hello = {STEP_PID, getpid()};
        if (write(plan->report, &hello, sizeof hello) != (ssize_t)sizeof hello) _exit(126);
    } else {
        setpgid(0, 0);
    }
    if (o->uid >= 0 || o->gid >= 0) {
        gid_t gid = o->gid >= 0 ? (gid_t)o->gid : getegid();
        bool root = geteuid() == 0; /* only root can, and must, drop its other groups */
        if ((root && setgroups(1, &gid) != 0) || setgid(gid) != 0) child_fail(plan, STEP_USER);
        if (o->uid >= 0 && setuid((uid_t)o->uid) != 0) child_fail(plan, STEP_USER);
    }
    if (o->dir != NULL && chdir(o->dir) != 0) child_fail(plan, STEP_DIR); /* with the user's rights */
    int out = plan->out;
    if (plan->log_path != NULL) {
        out = open(plan->log_path,
                   O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
        if (out < 0 || fcntl(out, F_SETFL, O_APPEND) != 0) child_fail(plan, STEP_LOG);
        if (out <= 2) out = fcntl(out, F_DUPFD_CLOEXEC, 3);
    }
    int errors = plan->errors >= 0 ? plan->errors : out;
    if (dup2(plan->in, 0) < 0 || dup2(out, 1) < 0 || dup2(errors, 2) < 0) child_fail(plan, STEP_FILES);
    close_others_on_exec();
    if (plan->keep >= 0 && fcntl(plan->keep, F_SETFD, 0) != 0) child_fail(plan, STEP_FILES);
    default_signals();
    execvpe(o->argv[0], (char *const *)o->argv, plan->env); /* does not write them; its type is old */
    child_fail(plan, STEP_EXEC);
}

/* --- in the parent --- */

static pid_t start_child(const struct plan *plan) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of ours may run in the child */
    pid_t pid = fork();
    if (pid == 0) child(plan);
    int saved = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid > 0 && !plan->daemon) setpgid(pid, pid); /* whoever is first; EACCES after exec is fine */
    errno = saved;
    return pid;
}

static fpc_status step_failed(const fpc_process_options *options, struct report report, fpc_error *err) {
    fpc_status status = FPC_SERVER;
    if (report.value == ENOENT || report.value == ENOTDIR || report.value == EACCES ||
        report.value == ENOEXEC)
        status = FPC_INVALID;
    if (report.step == STEP_USER) status = FPC_DENIED;
    if (report.value == ENOMEM) status = FPC_NOMEM;
    return fpc_fail(err, status, "%s %s: %s", STEP_WORDS[report.step], options->argv[0],
                    strerror(report.value));
}

/* The error of a wait that ended before the program did. */
static fpc_status not_in_time(const fpc_process_options *options, fpc_status status, fpc_error *err) {
    if (status == FPC_TIMEOUT)
        return fpc_fail(err, FPC_TIMEOUT, "%s did not finish in time and was killed", options->argv[0]);
    return fpc_fail(err, status, "%s was killed because of an interrupt", options->argv[0]);
}

/* Reads the child's reports until it executes its program or says why it cannot. */
static fpc_status await_exec(const fpc_process_options *options, int fd, fpc_deadline deadline, int64_t *pid,
                             fpc_error *err) {
    for (;;) {
        fpc_status status = fpc_wait_fd(fd, POLLIN, deadline, err);
        if (status != FPC_OK) return not_in_time(options, status, err);
        struct report report;
        ssize_t n = read(fd, &report, sizeof report);
        if (n < 0 && errno == EINTR) continue;
        if (n == 0) return FPC_OK; /* execve() closed it */
        if (n != (ssize_t)sizeof report)
            return fpc_fail(err, FPC_SERVER, "could not run %s: it gave no report", options->argv[0]);
        if (report.step != STEP_PID) return step_failed(options, report, err);
        *pid = report.value;
    }
}

/* Fills the plan.  The plan is closed with plan_clear() in any case. */
static fpc_status plan_make(struct plan *plan, fpc_error *err) {
    const fpc_process_options *o = plan->options;
    if (o->argv == NULL || o->argv[0] == NULL || o->argv[0][0] == '\0')
        return fpc_fail(err, FPC_INVALID, "no program to run");
    plan->env = make_env(o);
    if (plan->env == NULL) return fpc_fail(err, FPC_NOMEM, "environment of %s", o->argv[0]);
    plan->in = open_input(o);
    bool ok = plan->in >= 0;
    if (ok && o->keep_fd >= 0) {
        plan->keep = fcntl(o->keep_fd, F_DUPFD_CLOEXEC, 3);
        ok = plan->keep >= 0;
    }
    if (!ok)
        return fpc_fail(err, FPC_SERVER, "could not set up the files of %s: %s", o->argv[0], strerror(errno));
    return FPC_OK;
}

static void plan_clear(struct plan *plan) {
    free(plan->env);
    plan->env = NULL;
    close_fd(&plan->in);
    close_fd(&plan->out);
    close_fd(&plan->errors);
    close_fd(&plan->report);
    close_fd(&plan->keep);
}

/* One of the program's streams, and what is kept of it. */
struct stream {
    int fd; /* our end of the pipe; -1 when it ended */
    char *bytes;
    size_t len, max;
    bool truncated;
};

static void append(struct stream *stream, const char *bytes, size_t len) {
    size_t room = stream->max - stream->len;
    if (len > room) {
        stream->truncated = true;
        len = room;
    }
    memcpy(stream->bytes + stream->len, bytes, len);
    stream->len += len;
    stream->bytes[stream->len] = '\0';
}

/* Takes what the pipe holds now; closes it at its end. */
static void drain(struct stream *stream) {
    char bytes[READ_SIZE];
    while (stream->fd >= 0) {
        ssize_t n = read(stream->fd, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n <= 0)
            close_fd(&stream->fd);
        else
            append(stream, bytes, (size_t)n);
        if (n > 0 && stream->truncated) break; /* a flood: let the caller look at its deadline */
    }
    OPENSSL_cleanse(bytes, sizeof bytes); /* the output may be a password */
}

/* Gives the stream memory and a pipe, whose other end goes to *write_end; false with errno. */
static bool open_stream(struct stream *stream, size_t max, int *write_end) {
    stream->bytes = malloc(max + 1);
    if (stream->bytes == NULL) return false;
    stream->bytes[0] = '\0';
    stream->max = max;
    return make_pipe(&stream->fd, write_end) && fcntl(stream->fd, F_SETFL, O_NONBLOCK) == 0;
}

static int open_pidfd(pid_t pid) {
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, pid, 0);
#else
    (void)pid;
    return -1;
#endif
}

/* Waits for the child's end, collecting its output.  An interrupt ends it only if it is `polite`. */
static fpc_status await_end(pid_t pid, struct stream streams[2], fpc_deadline deadline, int *wait_status,
                            bool *reaped_elsewhere, bool polite) {
    int pidfd = open_pidfd(pid);
    fpc_status status;
    *reaped_elsewhere = false;
    for (;;) {
        pid_t got = waitpid(pid, wait_status, WNOHANG);
        if (got < 0 && errno == ECHILD) *reaped_elsewhere = true;
        drain(&streams[0]); /* after the look: what it wrote before its end is in the pipe */
        drain(&streams[1]);
        status = FPC_OK;
        if (got == pid || *reaped_elsewhere) break;
        status = FPC_TIMEOUT;
        if (fpc_deadline_passed(deadline)) break;
        status = FPC_INTERRUPTED;
        if (polite && fpc_wait_stopped()) break;
        int ms = fpc_deadline_poll_ms(deadline), tick = pidfd < 0 ? TICK_MS : INTERRUPT_TICK_MS;
        if (ms < 0 || ms > tick) ms = tick;
        struct pollfd waits[3] = {{.fd = pidfd, .events = POLLIN},
                                  {.fd = streams[0].fd, .events = POLLIN},
                                  {.fd = streams[1].fd, .events = POLLIN}};
        poll(waits, 3, ms); /* an interrupted poll is one look more */
    }
    if (pidfd >= 0) close(pidfd);
    return status;
}

fpc_status fpc_process_run(const fpc_process_options *options, size_t max_output, fpc_deadline deadline,
                           fpc_process_result *result, fpc_error *err) {
    struct plan plan = {.options = options, .in = -1, .out = -1, .errors = -1, .report = -1, .keep = -1};
    struct stream streams[2] = {{.fd = -1}, {.fd = -1}}; /* stdout, stderr */
    int report = -1, wait_status = 0;
    int64_t unused = 0;
    pid_t pid = -1;
    bool reaped_elsewhere = false;
    memset(result, 0, sizeof *result);
    result->exit_status = -1;
    fpc_status status = plan_make(&plan, err);
    if (status != FPC_OK) goto done;
    if (!open_stream(&streams[0], max_output, &plan.out) ||
        (options->max_errors > 0 && !open_stream(&streams[1], options->max_errors, &plan.errors)) ||
        !make_pipe(&report, &plan.report) || (pid = start_child(&plan)) < 0) {
        status = step_failed(options, (struct report){STEP_FORK, errno}, err);
        goto done;
    }
    close_fd(&plan.out); /* ours would keep the pipes open */
    close_fd(&plan.errors);
    close_fd(&plan.report);
    status = await_exec(options, report, deadline, &unused, err);
    if (status == FPC_OK) {
        status = await_end(pid, streams, deadline, &wait_status, &reaped_elsewhere, true);
        if (status != FPC_OK) not_in_time(options, status, err);
    }
    if (status != FPC_OK) {
        if (status == FPC_TIMEOUT || status == FPC_INTERRUPTED) kill(-pid, SIGKILL);
        await_end(pid, streams, fpc_deadline_in(KILL_GRACE_S), &wait_status, &reaped_elsewhere, false);
    } else if (reaped_elsewhere) {
        status = fpc_fail(err, FPC_SERVER, "the exit status of %s was taken by other code of this process",
                          options->argv[0]);
    } else if (WIFSIGNALED(wait_status)) {
        result->signal = WTERMSIG(wait_status);
    } else {
        result->exit_status = WEXITSTATUS(wait_status);
    }
done:
    result->output = streams[0].bytes;
    result->output_len = streams[0].len;
    result->errors = streams[1].bytes;
    result->errors_len = streams[1].len;
    result->truncated = streams[0].truncated;
    close_fd(&streams[0].fd);
    close_fd(&streams[1].fd);
    close_fd(&report);
    plan_clear(&plan);
    return status;
}

void fpc_process_result_clear(fpc_process_result *result) {
    if (result->output != NULL) OPENSSL_cleanse(result->output, result->output_len);
    free(result->output);
    if (result->errors != NULL) OPENSSL_cleanse(result->errors, strlen(result->errors));
    free(result->errors);
    memset(result, 0, sizeof *result);
}

fpc_status fpc_process_spawn(const fpc_process_options *options, const char *log_path, fpc_deadline deadline,
                             int64_t *pid, fpc_error *err) {
    struct plan plan = {.options = options,
                        .log_path = log_path,
                        .daemon = true,
                        .in = -1,
                        .out = -1,
                        .errors = -1,
                        .report = -1,
                        .keep = -1};
    int report = -1;
    int64_t daemon_pid = -1;
    pid_t first = -1;
    fpc_status status = plan_make(&plan, err);
    if (status != FPC_OK) goto done;
    if (!make_pipe(&report, &plan.report) || (first = start_child(&plan)) < 0) {
        status = step_failed(options, (struct report){STEP_FORK, errno}, err);
        goto done;
    }
    close_fd(&plan.report);
    status = await_exec(options, report, deadline, &daemon_pid, err);
    if ((status == FPC_TIMEOUT || status == FPC_INTERRUPTED) && daemon_pid > 0)
        kill((pid_t)daemon_pid, SIGKILL);
    while (waitpid(first, NULL, 0) < 0 && errno == EINTR) { /* it ended when it forked */
    }
    if (status == FPC_OK) *pid = daemon_pid;
done:
    close_fd(&report);
    plan_clear(&plan);
    return status;
}
