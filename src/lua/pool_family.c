/* pool_family.c -- a short list under a mutex: programs have few caches. */
#include "pool_family.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct member {
    fpc_lua_shared_pool *shared;
    char *description;
    size_t length;
    struct member *next;
} member;

struct fpc_lua_pool_family {
    pthread_mutex_t lock;
    member *first; /* under the lock */
};

static const char FAMILY_KEY; /* its address, in the registry */

fpc_lua_pool_family *fpc_lua_pool_family_new(void) {
    fpc_lua_pool_family *family = calloc(1, sizeof *family);
    if (family != NULL) pthread_mutex_init(&family->lock, NULL);
    return family;
}

void fpc_lua_pool_family_delete(fpc_lua_pool_family *family) {
    if (family == NULL) return;
    pthread_mutex_destroy(&family->lock);
    free(family);
}

int fpc_lua_pool_family_count(fpc_lua_pool_family *family) {
    int count = 0;
    pthread_mutex_lock(&family->lock);
    for (const member *one = family->first; one != NULL; one = one->next) count++;
    pthread_mutex_unlock(&family->lock);
    return count;
}

void fpc_lua_join_pool_family(lua_State *L, fpc_lua_pool_family *family) {
    lua_pushlightuserdata(L, (void *)&FAMILY_KEY);
    lua_pushlightuserdata(L, family);
    lua_rawset(L, LUA_REGISTRYINDEX);
}

fpc_lua_pool_family *fpc_lua_pool_family_of(lua_State *L) {
    lua_pushlightuserdata(L, (void *)&FAMILY_KEY);
    lua_rawget(L, LUA_REGISTRYINDEX);
    fpc_lua_pool_family *family = lua_touserdata(L, -1);
    lua_pop(L, 1);
    return family;
}

static member *new_member(fpc_lua_shared_pool *shared, const char *description, size_t length) {
    member *one = calloc(1, sizeof *one);
    char *copy = malloc(length + 1);
    if (one == NULL || copy == NULL) {
        free(one);
        free(copy);
        return NULL;
    }
    memcpy(copy, description, length);
    *one = (member){shared, copy, length, NULL};
    return one;
}

/* The description may hold a password. */
static void free_member(member *one) {
    volatile char *bytes = one->description;
    for (size_t i = 0; i < one->length; i++) bytes[i] = 0;
    free(one->description);
    free(one);
}

static member *find(const fpc_lua_pool_family *family, const char *description, size_t length) {
    member *one = family->first;
    while (one != NULL && (one->length != length || memcmp(one->description, description, length) != 0))
        one = one->next;
    return one;
}

fpc_lua_shared_pool *fpc_lua_pool_family_join(fpc_lua_pool_family *family, fpc_lua_shared_pool *mine,
                                              const char *description, size_t length) {
    pthread_mutex_lock(&family->lock);
    member *one = find(family, description, length);
    fpc_lua_shared_pool *joined = one == NULL ? mine : one->shared;
    if (one != NULL) {
        atomic_fetch_add(&joined->references, 1);
    } else if ((one = new_member(mine, description, length)) != NULL) {
        one->next = family->first;
        family->first = one;
        mine->family = family;
    }
    pthread_mutex_unlock(&family->lock);
    return joined;
}

bool fpc_lua_pool_family_drop(fpc_lua_shared_pool *shared) {
    fpc_lua_pool_family *family = shared->family;
    pthread_mutex_lock(&family->lock);
    bool last = atomic_fetch_sub(&shared->references, 1) == 1;
    for (member **at = &family->first; last && *at != NULL; at = &(*at)->next) {
        member *one = *at;
        if (one->shared != shared) continue;
        *at = one->next;
        free_member(one);
        break;
    }
    pthread_mutex_unlock(&family->lock);
    return last;
}
