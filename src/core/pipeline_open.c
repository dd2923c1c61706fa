/* pipeline_open.c -- opening a connection beside the I/O thread, which so never waits for a name lookup, a
 * login or the session's first statements.
 *
 * An opener is a short-lived thread.  It follows the rules of fpc_conn_open(), leaves what it got in the
 * engine's list and wakes the I/O thread.  It ends early once the engine's stop_fd is readable. */
#include "fpcache/wait.h"
#include "pipeline_io.h"
#include "thread.h"

#include <stdlib.h>

typedef struct opener {
    fpc_pipeline *engine; /* a reference */
    fpc_opened *opened;
} opener;

static void *run(void *arg) {
    opener self = *(opener *)arg;
    free(arg);
    fpc_pipeline *engine = self.engine;
    fpc_opened *opened = self.opened;
    fpc_wait_stop_by(engine->stop_fd);
    fpc_status status =
        fpc_conn_open(engine->info, &engine->options.conn, fpc_deadline_in(engine->options.connect_timeout_s),
                      &opened->conn, &opened->error);
    if (status != FPC_OK) opened->conn = NULL;
    pthread_mutex_lock(&engine->lock);
    bool is_late = engine->closed && !engine->running; /* nobody takes it */
    if (!is_late) {
        opened->next = engine->opened;
        engine->opened = opened;
    }
    pthread_mutex_unlock(&engine->lock);
    if (is_late) {
        fpc_conn_delete(opened->conn);
        free(opened);
    } else {
        fpc_pipeline_wake(engine);
    }
    fpc_pipeline_drop(engine);
    return NULL;
}

bool fpc_pipeline_open(fpc_pipe *pipe) {
    fpc_pipeline *engine = pipe->io->engine;
    pthread_t thread;
    opener *self = malloc(sizeof *self);
    fpc_opened *opened = calloc(1, sizeof *opened);
    if (self == NULL || opened == NULL) goto fail;
    opened->pipe = pipe;
    *self = (opener){.engine = engine, .opened = opened};
    pthread_mutex_lock(&engine->lock);
    engine->references++;
    pthread_mutex_unlock(&engine->lock);
    if (fpc_thread_start(&thread, "fpcache-open", run, self) != 0) {
        fpc_pipeline_drop(engine);
        goto fail;
    }
    pthread_detach(thread);
    return true;
fail:
    free(self);
    free(opened);
    return false;
}
