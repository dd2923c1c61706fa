/* process_test.c -- real programs: their ends, output, files, deadlines, and what may not leak. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fpcache/file_lock.h"
#include "fpcache/os.h"
#include "fpcache/process.h"
#include "fpcache/wait.h"

#define SOON     fpc_deadline_in(20) /* far more than any program here takes */
#define ROOM     4096
#define OTHER_ID 65533 /* an account that need not exist */

static fpc_process_result result;
static fpc_error err;

static int clear(void **state) {
    (void)state;
    fpc_process_result_clear(&result);
    memset(&err, 0, sizeof err);
    return 0;
}

static fpc_status sh_with(fpc_process_options *options, const char *script, fpc_deadline deadline) {
    const char *const argv[] = {"sh", "-c", script, NULL};
    options->argv = argv;
    fpc_process_result_clear(&result);
    fpc_status status = fpc_process_run(options, ROOM, deadline, &result, &err);
    options->argv = NULL;
    return status;
}

static fpc_status sh(const char *script) {
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    return sh_with(&options, script, SOON);
}

static void keeps_output_of_both_streams_and_the_status(void **state) {
    (void)state;
    assert_int_equal(sh("echo out; echo err >&2; exit 7"), FPC_OK);
    assert_string_equal(result.output, "out\nerr\n");
    assert_int_equal(result.output_len, 8);
    assert_int_equal(result.exit_status, 7);
    assert_int_equal(result.signal, 0);
    assert_false(result.truncated);
}

static void reports_the_signal(void **state) {
    (void)state;
    assert_int_equal(sh("kill -TERM $$"), FPC_OK);
    assert_int_equal(result.signal, SIGTERM);
    assert_int_equal(result.exit_status, -1);
}

static void arguments_see_no_shell(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    const char *const argv[] = {"printf", "%s", "$(id) `id` \"; '*", NULL};
    options.argv = argv;
    assert_int_equal(fpc_process_run(&options, ROOM, SOON, &result, &err), FPC_OK);
    assert_string_equal(result.output, "$(id) `id` \"; '*");
}

static void output_is_bounded_and_the_program_still_ends(void **state) {
    (void)state;
    assert_int_equal(sh("head -c 1000000 /dev/zero | tr '\\0' x; exit 3"), FPC_OK);
    assert_int_equal(result.output_len, ROOM);
    assert_true(result.truncated);
    assert_int_equal(result.exit_status, 3);
}

static void exactly_the_room_is_not_truncated(void **state) {
    (void)state;
    assert_int_equal(sh("head -c 4096 /dev/zero | tr '\\0' x"), FPC_OK);
    assert_int_equal(result.output_len, ROOM);
    assert_false(result.truncated);
}

static void a_missing_program_is_named(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    const char *const argv[] = {"/nosuch/program", "secret", NULL};
    options.argv = argv;
    assert_int_equal(fpc_process_run(&options, ROOM, SOON, &result, &err), FPC_INVALID);
    assert_string_equal(err.message, "could not run /nosuch/program: No such file or directory");
    fpc_process_result_clear(&result);
    const char *const none[] = {NULL};
    options.argv = none;
    assert_int_equal(fpc_process_run(&options, ROOM, SOON, &result, &err), FPC_INVALID);
    assert_string_equal(err.message, "no program to run");
}

static void a_missing_directory_is_said(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.dir = "/nosuch";
    assert_int_equal(sh_with(&options, "pwd", SOON), FPC_INVALID);
    assert_string_equal(err.message,
                        "could not enter the working directory of sh: No such file or directory");
    options.dir = "/usr";
    assert_int_equal(sh_with(&options, "pwd", SOON), FPC_OK);
    assert_string_equal(result.output, "/usr\n");
}

static void input_arrives_whole_even_if_larger_than_a_pipe(void **state) {
    (void)state;
    size_t len = 300000;
    char *bytes = malloc(len);
    memset(bytes, 'y', len);
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.input = bytes;
    options.input_len = len;
    assert_int_equal(sh_with(&options, "wc -c", SOON), FPC_OK);
    assert_int_equal(atoi(result.output), 300000);
    assert_int_equal(sh_with(&options, "exit 0", SOON), FPC_OK); /* not read: harmless */
    free(bytes);
    assert_int_equal(sh("wc -c"), FPC_OK); /* none: /dev/null */
    assert_int_equal(atoi(result.output), 0);
}

static void environment_is_added_replaced_or_cleared(void **state) {
    (void)state;
    setenv("FPC_TEST_SECRET", "inherited", 1);
    const char *const env[] = {"FPC_TEST_SECRET=replaced", "FPC_TEST_NEW=1", NULL};
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    const char *script = "echo ${FPC_TEST_SECRET-none} ${FPC_TEST_NEW-none} ${HOME+home}";
    setenv("HOME", "/", 1);
    assert_int_equal(sh_with(&options, script, SOON), FPC_OK);
    assert_string_equal(result.output, "inherited none home\n");
    options.env = env;
    assert_int_equal(sh_with(&options, script, SOON), FPC_OK);
    assert_string_equal(result.output, "replaced 1 home\n");
    options.clear_env = true;
    options.env = NULL;
    assert_int_equal(sh_with(&options, script, SOON), FPC_OK);
    assert_string_equal(result.output, "none none\n");
}

static void the_deadline_kills_the_whole_group(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    int64_t before = fpc_clock_ns();
    /* The grandchild ignores polite signals and holds the output pipe. */
    const char *script = "(trap '' TERM; sleep 100) & echo $!; sleep 100";
    assert_int_equal(sh_with(&options, script, fpc_deadline_in(0.3)), FPC_TIMEOUT);
    assert_string_equal(err.message, "sh did not finish in time and was killed");
    assert_true(fpc_clock_ns() - before < 5 * FPC_NS_PER_SECOND);
    char path[64], state_line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", atoi(result.output));
    for (int i = 0; i < 200; i++) { /* whoever adopted it may reap it a moment later */
        FILE *stat = fopen(path, "r");
        if (stat == NULL) return;
        size_t n = fread(state_line, 1, sizeof state_line - 1, stat);
        fclose(stat);
        state_line[n] = '\0';
        if (strstr(state_line, ") Z ") != NULL) return;
        fpc_os_sleep(0.01);
    }
    fail_msg("still alive: %s", state_line);
}

static void a_deadline_in_the_past_is_a_timeout(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    assert_int_equal(sh_with(&options, "sleep 100", fpc_deadline_in(-1)), FPC_TIMEOUT);
}

static void an_interrupt_kills_it(void **state) {
    (void)state;
    assert_int_equal(fpc_interrupt_enable(&err), FPC_OK);
    fpc_interrupt_raise();
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    fpc_status status = sh_with(&options, "sleep 100", SOON);
    fpc_interrupt_clear();
    assert_int_equal(status, FPC_INTERRUPTED);
    assert_string_equal(err.message, "sh was killed because of an interrupt");
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(sh("exit 0"), FPC_OK);
}

static void the_stop_of_a_thread_kills_it(void **state) {
    (void)state;
    int stop = eventfd(1, EFD_CLOEXEC);
    fpc_wait_stop_by(stop);
    assert_int_equal(sh("sleep 100"), FPC_INTERRUPTED);
    fpc_wait_stop_by(-1);
    close(stop);
    assert_int_equal(sh("true"), FPC_OK);
}

static void stderr_is_kept_apart_when_asked_for(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.max_errors = 4;
    assert_int_equal(sh_with(&options, "echo secret; echo warning >&2; echo more", SOON), FPC_OK);
    assert_string_equal(result.output, "secret\nmore\n");
    assert_string_equal(result.errors, "warn");
    assert_int_equal(result.errors_len, 4);
    assert_false(result.truncated);
}

static void what_runs_on_in_the_background_is_not_waited_for(void **state) {
    (void)state;
    int64_t before = fpc_clock_ns();
    assert_int_equal(sh("sleep 30 & echo $!"), FPC_OK);
    assert_true(fpc_clock_ns() - before < 10 * FPC_NS_PER_SECOND);
    kill(atoi(result.output), SIGKILL);
}

static void no_file_of_ours_leaks_into_it(void **state) {
    (void)state;
    int leaky = open("/etc/passwd", O_RDONLY); /* without O_CLOEXEC, on purpose */
    assert_true(leaky > 2);
    assert_int_equal(sh("ls -l /proc/self/fd"), FPC_OK);
    close(leaky);
    assert_non_null(strstr(result.output, " 2 -> pipe:"));
    assert_null(strstr(result.output, "passwd"));
}

static void works_when_our_standard_files_are_closed(void **state) {
    (void)state;
    int saved[3];
    for (int fd = 0; fd < 3; fd++) saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    for (int fd = 0; fd < 3; fd++) close(fd);
    fpc_status status = sh("cat; echo out; echo err >&2");
    for (int fd = 0; fd < 3; fd++) dup2(saved[fd], fd);
    for (int fd = 0; fd < 3; fd++) close(saved[fd]);
    assert_int_equal(status, FPC_OK);
    assert_string_equal(result.output, "out\nerr\n");
}

static void signals_are_at_their_defaults(void **state) {
    (void)state;
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, &before);
    void (*old)(int) = signal(SIGPIPE, SIG_IGN);
    fpc_status status = sh("grep -E '^Sig(Blk|Ign)' /proc/self/status");
    signal(SIGPIPE, old);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert_int_equal(status, FPC_OK);
    assert_string_equal(result.output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

static void a_reaping_host_is_reported(void **state) {
    (void)state;
    void (*old)(int) = signal(SIGCHLD, SIG_IGN); /* the kernel reaps: nobody can ask for the status */
    fpc_status status = sh("exit 0");
    signal(SIGCHLD, old);
    assert_int_equal(status, FPC_SERVER);
    assert_string_equal(err.message, "the exit status of sh was taken by other code of this process");
}

static void runs_as_another_user_with_no_other_groups(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.uid = OTHER_ID;
    options.gid = OTHER_ID;
    if (geteuid() != 0) {
        assert_int_equal(sh_with(&options, "id", SOON), FPC_DENIED);
        assert_string_equal(err.message, "could not become the user for sh: Operation not permitted");
        return;
    }
    assert_int_equal(sh_with(&options, "id -u; id -g; id -G", SOON), FPC_OK);
    assert_string_equal(result.output, "65533\n65533\n65533\n");
}

/* --- spawn and locks, in a directory of their own --- */

static char folder[64], log_path[96], lock_path[96];

static int make_folder(void **state) {
    (void)state;
    strcpy(folder, "/tmp/fpcache-process-XXXXXX");
    if (fpc_os_mkdtemp(folder, &err) != FPC_OK) return -1;
    snprintf(log_path, sizeof log_path, "%s/log", folder);
    snprintf(lock_path, sizeof lock_path, "%s/lock", folder);
    return 0;
}

static int remove_folder(void **state) {
    clear(state);
    return fpc_os_remove_tree(folder, &err) == FPC_OK ? 0 : -1;
}

static void spawned_program_is_a_daemon_and_holds_its_lock(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    const char *const argv[] = {"sh", "-c", "echo started; sleep 100", NULL};
    fpc_file_lock *lock, *second = NULL;
    int64_t pid = 0;
    assert_int_equal(fpc_file_lock_new(lock_path, false, SOON, &lock, &err), FPC_OK);
    options.argv = argv;
    options.keep_fd = fpc_file_lock_fd(lock);
    assert_int_equal(fpc_process_spawn(&options, log_path, SOON, &pid, &err), FPC_OK);
    assert_true(pid > 1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child of ours */
    assert_int_equal(getsid((pid_t)pid) == getsid(0), 0);
    fpc_file_lock_delete(lock); /* the daemon has it now */
    assert_int_equal(fpc_file_lock_new(lock_path, false, fpc_deadline_in(0.05), &second, &err), FPC_BUSY);
    assert_int_equal(kill(-getpgid((pid_t)pid), SIGKILL), 0);
    assert_int_equal(fpc_file_lock_new(lock_path, false, SOON, &second, &err), FPC_OK);
    fpc_file_lock_delete(second);
    FILE *log = fopen(log_path, "r");
    char line[32] = "";
    assert_non_null(log);
    assert_non_null(fgets(line, sizeof line, log));
    fclose(log);
    assert_string_equal(line, "started\n");
}

static void spawn_tells_why_it_failed(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    const char *const argv[] = {"/nosuch/daemon", NULL};
    int64_t pid = 0;
    options.argv = argv;
    assert_int_equal(fpc_process_spawn(&options, log_path, SOON, &pid, &err), FPC_INVALID);
    assert_string_equal(err.message, "could not run /nosuch/daemon: No such file or directory");
    assert_int_equal(fpc_process_spawn(&options, "/nosuch/log", SOON, &pid, &err), FPC_INVALID);
    assert_string_equal(err.message,
                        "could not open the output file of /nosuch/daemon: No such file or directory");
    assert_int_equal(symlink("/dev/null", lock_path), 0);
    assert_int_equal(fpc_process_spawn(&options, lock_path, SOON, &pid, &err), FPC_SERVER); /* ELOOP */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

static void shared_locks_exclude_only_exclusive_ones(void **state) {
    (void)state;
    fpc_file_lock *a, *b, *c = NULL;
    assert_int_equal(fpc_file_lock_new(lock_path, true, 0, &a, &err), FPC_OK);
    assert_int_equal(fpc_file_lock_new(lock_path, true, 0, &b, &err), FPC_OK);
    assert_int_equal(fpc_file_lock_new(lock_path, false, 0, &c, &err), FPC_BUSY);
    fpc_file_lock_delete(a);
    fpc_file_lock_delete(b);
    assert_int_equal(fpc_file_lock_new(lock_path, false, 0, &c, &err), FPC_OK);
    fpc_file_lock_delete(c);
    fpc_file_lock_delete(NULL);
}

static void a_removed_lock_file_does_not_let_two_in(void **state) {
    (void)state;
    /* A child waits for the lock; we put another file in the place of the one it waits for, locked already,
     * since it could rightly take one that nobody holds. */
    fpc_file_lock *old, *fresh;
    char other[160];
    snprintf(other, sizeof other, "%s.other", lock_path);
    assert_int_equal(fpc_file_lock_new(lock_path, false, SOON, &old, &err), FPC_OK);
    pid_t child = fork();
    if (child == 0) {
        fpc_file_lock *mine;
        fpc_file_lock_delete(old); /* inherited: ours alone must keep it */
        _exit(fpc_file_lock_new(lock_path, false, fpc_deadline_in(1), &mine, NULL) == FPC_BUSY ? 0 : 1);
    }
    fpc_os_sleep(0.1); /* a child not yet waiting makes the test weaker, not wrong */
    assert_int_equal(fpc_file_lock_new(other, false, SOON, &fresh, &err), FPC_OK);
    assert_int_equal(rename(other, lock_path), 0);
    fpc_file_lock_delete(old);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    fpc_file_lock_delete(fresh);
    assert_int_equal(status, 0);
}

static void remove_tree_takes_all_and_follows_no_link(void **state) {
    (void)state;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.dir = folder;
    assert_int_equal(sh_with(&options,
                             "mkdir -p tree/a/b keep && touch tree/a/b/f tree/.hidden keep/file &&"
                             "ln -s ../keep tree/link && ln -s keep top",
                             SOON),
                     FPC_OK);
    assert_int_equal(result.exit_status, 0);
    char path[128];
    fpc_os_stat st;
    snprintf(path, sizeof path, "%s/tree", folder);
    assert_int_equal(fpc_os_remove_tree(path, &err), FPC_OK);
    assert_int_equal(fpc_os_stat_path(path, false, &st, &err), FPC_INVALID);
    assert_int_equal(fpc_os_remove_tree(path, &err), FPC_OK); /* not there: nothing to do */
    snprintf(path, sizeof path, "%s/top", folder);
    assert_int_equal(fpc_os_remove_tree(path, &err), FPC_OK); /* the link, not its target */
    snprintf(path, sizeof path, "%s/keep/file", folder);
    assert_int_equal(fpc_os_stat_path(path, false, &st, &err), FPC_OK);
    assert_int_equal(st.type, FPC_OS_FILE);
}

static void no_group_is_ever_signalled(void **state) {
    (void)state;
    assert_int_equal(fpc_os_kill(0, 0, &err), FPC_INVALID);
    assert_int_equal(fpc_os_kill(-1, 0, &err), FPC_INVALID);
    assert_int_equal(fpc_os_kill(INT64_C(1) << 32, 0, &err), FPC_INVALID);
    assert_int_equal(fpc_os_kill(getpid(), 0, &err), FPC_OK);
}

#define TEST(f)      cmocka_unit_test_setup_teardown(f, clear, clear)
#define IN_FOLDER(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(keeps_output_of_both_streams_and_the_status),
        TEST(reports_the_signal),
        TEST(arguments_see_no_shell),
        TEST(output_is_bounded_and_the_program_still_ends),
        TEST(exactly_the_room_is_not_truncated),
        TEST(a_missing_program_is_named),
        TEST(a_missing_directory_is_said),
        TEST(input_arrives_whole_even_if_larger_than_a_pipe),
        TEST(environment_is_added_replaced_or_cleared),
        TEST(the_deadline_kills_the_whole_group),
        TEST(a_deadline_in_the_past_is_a_timeout),
        TEST(an_interrupt_kills_it),
        TEST(the_stop_of_a_thread_kills_it),
        TEST(stderr_is_kept_apart_when_asked_for),
        TEST(what_runs_on_in_the_background_is_not_waited_for),
        TEST(no_file_of_ours_leaks_into_it),
        TEST(works_when_our_standard_files_are_closed),
        TEST(signals_are_at_their_defaults),
        TEST(a_reaping_host_is_reported),
        TEST(runs_as_another_user_with_no_other_groups),
        TEST(no_group_is_ever_signalled),
        IN_FOLDER(spawned_program_is_a_daemon_and_holds_its_lock),
        IN_FOLDER(spawn_tells_why_it_failed),
        IN_FOLDER(shared_locks_exclude_only_exclusive_ones),
        IN_FOLDER(a_removed_lock_file_does_not_let_two_in),
        IN_FOLDER(remove_tree_takes_all_and_follows_no_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
