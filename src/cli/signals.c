/* A first SIGINT or SIGTERM interrupts the script: waits for the server end at once, and a hook raises an
 * error at the next Lua instruction.  Then the state is closed, which closes the connections, and the server
 * rolls back what was under way.  The hook is set in every coroutine that runs, and in those that are resumed
 * later.  Where it does not come to be called (in a long C function), the program ends anyway after some
 * seconds.  A second signal kills.
 *
 * In the shell SIGINT is an interrupt that is cleared when the call has ended.  Between two calls it is noted
 * only: the shell's own code must not be interrupted. */
#include "signals.h"

#include "coroutines.h"
#include "fpcache/wait.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define GRACE_SECONDS 2 /* from the first signal to the end */

static lua_State *interrupted_state; /* written before the handlers are installed */
static volatile sig_atomic_t caught_signal;
static volatile sig_atomic_t caught_in_call;
static volatile sig_atomic_t call_is_running;

static bool is_stopping(void) {
    return caught_signal != 0 || (caught_in_call != 0 && call_is_running != 0);
}

/* Raised again every few instructions, so that a script that catches errors in a loop ends too.  A coroutine
 * that caught it and yielded keeps the hook, and may go on when the interrupted call has ended. */
static void raise_interrupt(lua_State *L, lua_Debug *ar) {
    (void)ar;
    if (is_stopping())
        luaL_error(L, "interrupted");
    else
        lua_sethook(L, NULL, 0, 0);
}

static void stop(lua_State *L) {
    lua_sethook(L, raise_interrupt, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 100);
}

static void prepare_to_run(lua_State *co) {
    if (is_stopping()) stop(co);
}

static void interrupt(void) {
    fpc_interrupt_raise();
    stop(interrupted_state);
    fpc_cli_coroutines_each(stop);
}

static void on_grace_over(int number) {
    (void)number;
    _exit(128 + caught_signal); /* the kernel closes the connections */
}

static void on_signal(int number) {
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigaction(number, &fallback, NULL);
    caught_signal = number;
    alarm(GRACE_SECONDS);
    interrupt();
}

static void on_signal_in_call(int number) {
    (void)number;
    caught_in_call = 1;
    if (call_is_running != 0) interrupt();
}

void fpc_cli_signals_catch(lua_State *L) {
    fpc_error err;
    if (fpc_interrupt_enable(&err) != FPC_OK) fprintf(stderr, "fpcache: %s\n", err.message);
    interrupted_state = L;
    fpc_cli_coroutines_track(L, prepare_to_run);
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: waits must notice */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction last = {.sa_handler = on_grace_over};
    sigaction(SIGALRM, &last, NULL);
}

int fpc_cli_signals_caught(void) {
    return caught_signal;
}

void fpc_cli_signals_begin_call(bool heeds_earlier) {
    if (!heeds_earlier) caught_in_call = 0;
    struct sigaction action = {.sa_handler = on_signal_in_call};
    sigaction(SIGINT, &action, NULL);
    call_is_running = 1;
    if (caught_in_call != 0) interrupt();
}

bool fpc_cli_signals_end_call(lua_State *L) {
    call_is_running = 0;
    bool came = caught_in_call != 0;
    if (came) {
        lua_sethook(interrupted_state, NULL, 0, 0);
        if (L != interrupted_state) lua_sethook(L, NULL, 0, 0);
        if (caught_signal == 0) fpc_interrupt_clear(); /* SIGTERM's stays */
    }
    caught_in_call = 0;
    return came;
}
