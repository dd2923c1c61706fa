/* registry.c -- one keeper for each kind with its settings, so that all caches of a process share one token.
 *
 * After fork(2) the child forgets the list, which may be half changed; keepers that it has in its hands go
 * on. */
#include "keeper.h"
#include "secret.h"
#include "source.h"

#include <stdlib.h>
#include <string.h>

typedef struct order {
    char kind[32];
    size_t count;
    fpc_token_setting *settings; /* by name; the order of equal names is the user's */
} order;

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static fpc_token_keeper *first; /* under the lock */

/* In the child, before anything else runs there: another thread of the parent may have held the lock. */
static void forget_in_child(void) {
    pthread_mutex_init(&registry_lock, NULL);
    first = NULL;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_in_child);
}

static void lock_registry(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    pthread_mutex_lock(&registry_lock);
}

/* --- What was asked for --- */

static void destroy_order(void *arg) {
    order *o = arg;
    for (size_t i = 0; o->settings != NULL && i < o->count; i++) {
        free((char *)o->settings[i].name);
        fpc_secret_free((char *)o->settings[i].value); /* a client's secret, say */
    }
    free(o->settings);
    free(o);
}

static fpc_status make_source(void *arg, fpc_token_source **out, fpc_error *err) {
    const order *o = arg;
    return fpc_token_source_new(o->kind, o->settings, o->count, out, err);
}

/* Puts a setting behind those whose names are not greater. */
static bool insert(order *o, const fpc_token_setting *setting) {
    fpc_token_setting copy = {.name = strdup(setting->name), .value = strdup(setting->value)};
    if (copy.name == NULL || copy.value == NULL) {
        free((char *)copy.name);
        fpc_secret_free((char *)copy.value);
        return false;
    }
    size_t at = o->count++;
    for (; at > 0; at--) {
        const char *before = o->settings[at - 1].name;
        if (before == NULL || strcmp(before, copy.name) <= 0) break;
        o->settings[at] = o->settings[at - 1];
    }
    o->settings[at] = copy;
    return true;
}

static order *make_order(const char *kind, const fpc_token_setting *settings, size_t count) {
    order *o = calloc(1, sizeof *o);
    if (o == NULL) return NULL;
    strncpy(o->kind, kind, sizeof o->kind - 1);
    o->settings = calloc(count + 1, sizeof *o->settings);
    bool ok = o->settings != NULL;
    for (size_t i = 0; i < count && ok; i++) ok = insert(o, &settings[i]);
    if (ok) return o;
    destroy_order(o);
    return NULL;
}

static bool is_same(const fpc_token_setting *a, const fpc_token_setting *b) {
    if (a->name == NULL || a->value == NULL || b->name == NULL || b->value == NULL) return false;
    return strcmp(a->name, b->name) == 0 && strcmp(a->value, b->value) == 0;
}

static bool is_equal(const order *a, const order *b) {
    if (strcmp(a->kind, b->kind) != 0 || a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        if (!is_same(&a->settings[i], &b->settings[i])) return false;
    }
    return true;
}

/* --- The list --- */

fpc_status fpc_token_keeper_open(const char *kind, const fpc_token_setting *settings, size_t count,
                                 fpc_token_keeper **out, fpc_error *err) {
    order *o = make_order(kind, settings, count);
    if (o == NULL) return fpc_fail(err, FPC_NOMEM, "token");
    fpc_token_origin origin = {.make = make_source, .destroy = destroy_order, .arg = o};
    fpc_status status = FPC_OK;
    lock_registry();
    fpc_token_keeper *keeper = first;
    while (keeper != NULL && !is_equal(keeper->origin.arg, o)) keeper = keeper->next;
    if (keeper != NULL) {
        destroy_order(o);
        atomic_fetch_add(&keeper->holders, 1);
    } else if ((status = fpc_token_keeper_new(o->kind, &origin, &keeper, err)) == FPC_OK) {
        keeper->next = first;
        first = keeper;
    }
    pthread_mutex_unlock(&registry_lock);
    if (status == FPC_OK) *out = keeper;
    return status;
}

fpc_token_keeper *fpc_token_keeper_share(fpc_token_keeper *keeper) {
    atomic_fetch_add(&keeper->holders, 1);
    return keeper;
}

void fpc_token_keeper_close(fpc_token_keeper *keeper) {
    if (keeper == NULL) return;
    lock_registry(); /* nobody finds it meanwhile */
    bool is_last = atomic_fetch_sub(&keeper->holders, 1) == 1;
    fpc_token_keeper **at = &first;
    while (is_last && *at != NULL && *at != keeper) at = &(*at)->next;
    if (is_last && *at == keeper) *at = keeper->next;
    pthread_mutex_unlock(&registry_lock);
    if (is_last) fpc_token_keeper_end(keeper);
}
