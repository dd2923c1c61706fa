/* server.c -- the guardian and its server. */
#include "server.h"

#include "fpcache/os.h"

#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_SECONDS 60

static char folder[64], url[128], socket_path[96];
static int commands = -1; /* to the guardian: one letter each, answered by 'k' */
static pid_t guardian;

static void die(const char *what) {
    perror(what);
    _exit(99);
}

/* --- in the guardian --- */

static char bin[256];
static uid_t uid;
static gid_t gid;
static pid_t server;

static void find_programs(void) {
    glob_t found;
    if (glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found) == 0) {
        snprintf(bin, sizeof bin, "%s", found.gl_pathv[found.gl_pathc - 1]);
        *strrchr(bin, '/') = '\0';
        globfree(&found);
        return;
    }
    FILE *pipe = popen("pg_config --bindir", "r");
    if (pipe == NULL || fgets(bin, sizeof bin, pipe) == NULL) die("no PostgreSQL server found");
    bin[strcspn(bin, "\n")] = '\0';
    pclose(pipe);
}

/* PostgreSQL refuses to run as root. */
static void choose_account(void) {
    uid = geteuid();
    gid = getegid();
    if (uid != 0) return;
    struct passwd *account = getpwnam("postgres");
    if (account == NULL) account = getpwnam("nobody");
    if (account == NULL) die("no account to run the server as");
    uid = account->pw_uid;
    gid = account->pw_gid;
}

static pid_t run(const char *const *argv) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    char path[320];
    snprintf(path, sizeof path, "%s/%s", bin, argv[0]);
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setgid(gid) != 0 || setuid(uid) != 0)) die("setuid");
    prctl(PR_SET_PDEATHSIG, SIGQUIT); /* if even the guardian is killed */
    if (chdir(folder) != 0) die(folder);
    int log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (log < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0) die("log");
    signal(SIGINT, SIG_DFL);
    /* PostgreSQL's programs find each other by their own path, so they must be told it. */
    char *words[32] = {path};
    for (int i = 1; argv[i] != NULL && i < 31; i++) words[i] = (char *)argv[i];
    execv(path, words);
    die(path);
    return -1;
}

static void write_hba(void) {
    char path[96];
    snprintf(path, sizeof path, "%s/data/pg_hba.conf", folder);
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "local all pw_user scram-sha-256\nlocal all all trust\n") < 0 ||
        fclose(file) != 0) {
        die(path);
    }
}

/* The eighth line of postmaster.pid says what the server is doing. */
static int is_ready(void) {
    char path[96], line[128] = "";
    snprintf(path, sizeof path, "%s/data/postmaster.pid", folder);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    for (int i = 0; i < 8; i++) {
        if (fgets(line, sizeof line, file) == NULL) line[0] = '\0';
    }
    fclose(file);
    return strncmp(line, "ready", 5) == 0;
}

static void show_log(void) {
    char command[96];
    snprintf(command, sizeof command, "tail -n 20 %s/log >&2", folder);
    if (system(command) != 0) perror("log");
}

static void start(void) {
    const char *argv[] = {"postgres",
                          "-D",
                          "data",
                          "-k",
                          folder,
                          "-c",
                          "listen_addresses=",
                          "-c",
                          "fsync=off",
                          "-c",
                          "max_connections=40",
                          "-c",
                          "shared_buffers=16MB",
                          "-c",
                          "max_wal_size=64MB",
                          "-c",
                          "deadlock_timeout=100ms",
                          NULL};
    server = run(argv);
    for (int i = 0; i < START_SECONDS * 100 && !is_ready(); i++) {
        if (waitpid(server, NULL, WNOHANG) == server) {
            show_log();
            die("the server did not start");
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

static void stop(int sig) {
    if (server <= 0) return;
    kill(server, sig);
    waitpid(server, NULL, 0);
    server = 0;
}

static void guard(int channel) {
    setsid();
    signal(SIGINT, SIG_IGN);
    find_programs();
    choose_account();
    if (geteuid() == 0 && chown(folder, uid, gid) != 0) die("chown");
    const char *initdb[] = {"initdb",   "-D",        "data",       "-A", "trust", "-U",
                            "postgres", "--no-sync", "--locale=C", "-E", "UTF8",  NULL};
    int status = 0;
    waitpid(run(initdb), &status, 0);
    if (status != 0) {
        show_log();
        die("initdb");
    }
    write_hba();
    start();
    char command = 'k';
    do {
        if (command == 'S') stop(SIGINT);
        if (command == 'G') start();
        command = 'k';
        if (write(channel, &command, 1) != 1) break;
    } while (read(channel, &command, 1) == 1);
    stop(SIGQUIT); /* the test program is gone */
    fpc_os_remove_tree(folder, NULL);
    _exit(0);
}

/* --- in the test program --- */

static void await_guardian(void) {
    char answer = 0;
    if (read(commands, &answer, 1) != 1 || answer != 'k') {
        fprintf(stderr, "the test server failed\n");
        abort();
    }
}

static void command(char letter) {
    if (write(commands, &letter, 1) != 1) abort();
    await_guardian();
}

int server_setup(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/fpc-core-XXXXXX");
    if (mkdtemp(folder) == NULL) abort();
    snprintf(socket_path, sizeof socket_path, "%s/.s.PGSQL.5432", folder);
    snprintf(url, sizeof url, "postgresql:///postgres?host=%s&user=postgres", folder);
    int channel[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) != 0) abort();
    fflush(NULL);
    guardian = fork();
    if (guardian < 0) abort();
    if (guardian == 0) {
        close(channel[0]);
        guard(channel[1]);
    }
    close(channel[1]);
    commands = channel[0];
    signal(SIGPIPE, SIG_IGN);
    await_guardian();
    return 0;
}

int server_teardown(void **state) {
    (void)state;
    close(commands);
    waitpid(guardian, NULL, 0);
    return 0;
}

const char *server_url(void) {
    return url;
}

const char *server_folder(void) {
    return folder;
}

const char *server_socket_path(void) {
    return socket_path;
}

void server_stop(void) {
    command('S');
}

void server_start(void) {
    command('G');
}
