/* filter_whole.c -- copy and union: what works on all fingerprints of a filter. */
#include "filter_internal.h"

#include <string.h>

/* --- Visiting all prints of a table --- */

typedef bool (*visitor)(void *context, fpc_print print); /* false: stop */

/* True if every print was visited, copies as often as they are there. */
static bool each_print(const fpc_table *t, visitor visit, void *context) {
    fpc_print p;
    for (uint64_t slot = 0; slot < fpc_table_slots(t); slot++) {
        if (fpc_table_print_at(t, slot, &p) && !visit(context, p)) return false;
    }
    for (size_t i = 0; i < fpc_stash_cells(&t->stash); i++) {
        uint64_t id, copies;
        if (!fpc_stash_cell(&t->stash, i, &id, &copies)) continue;
        p.first = (uint32_t)(id >> 32);
        p.tag = (uint32_t)id;
        p.second = fpc_table_other(t, p.first, p.tag);
        for (; copies > 0; copies--) {
            if (!visit(context, p)) return false;
        }
    }
    return true;
}

/* --- Copy --- */

static bool copy_stash(fpc_table *into, const fpc_table *from) {
    for (size_t i = 0; i < fpc_stash_cells(&from->stash); i++) {
        uint64_t id, copies;
        if (!fpc_stash_cell(&from->stash, i, &id, &copies)) continue;
        if (!fpc_table_stash(into, id, copies)) return false;
    }
    return true;
}

static fpc_table *copy_table(const fpc_filter *f, const fpc_table *from) {
    fpc_table *table = fpc_filter_make_table(f, from->level);
    if (table == NULL) return NULL;
    fpc_table_copy(table, from);
    if (copy_stash(table, from)) return table;
    fpc_table_free(table);
    return NULL;
}

fpc_status fpc_filter_copy(const fpc_filter *f, fpc_filter **out, fpc_error *err) {
    *out = NULL;
    fpc_filter *copy = fpc_filter_bare(&f->shape, f->grow, f->hasher.seed);
    if (copy == NULL) return fpc_fail(err, FPC_NOMEM, "filter");
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) {
        fpc_table *table = copy_table(f, f->tables[i]);
        if (table == NULL) {
            fpc_filter_delete(copy);
            return fpc_fail(err, FPC_NOMEM, "filter");
        }
        fpc_filter_publish_table(copy, table);
    }
    *out = copy;
    return FPC_OK;
}

/* --- Union --- */

/* Where the tables of `from` go: into one of ours of the same or a lower level that has room for all of
 * it (merged), or, whole, beside ours (appended). */
typedef struct plan {
    fpc_table *merged[FPC_FILTER_MAX_TABLES];
    fpc_table *appended[FPC_FILTER_MAX_TABLES];
} plan;

typedef struct merge {
    const fpc_table *from;
    fpc_table *into;
    uint64_t left; /* how many prints to take back */
    uint64_t done;
} merge;

static bool merge_one(void *context, fpc_print p) {
    merge *m = context;
    if (fpc_table_add_print(m->into, fpc_table_translate(m->from, m->into, p)) != FPC_ROOM_OK) return false;
    m->done++;
    return true;
}

static bool unmerge_one(void *context, fpc_print p) {
    merge *m = context;
    if (m->left == 0) return false;
    m->left--;
    fpc_table_remove(m->into, fpc_table_translate(m->from, m->into, p));
    return true;
}

static fpc_status make_plan(fpc_filter *into, const fpc_filter *from, plan *p) {
    uint64_t planned[FPC_FILTER_MAX_TABLES] = {0};
    unsigned count = fpc_filter_tables(into), appended = 0;
    memset(p, 0, sizeof *p);
    for (unsigned i = 0; i < fpc_filter_tables(from); i++) {
        const fpc_table *source = from->tables[i];
        for (unsigned j = 0; j < count && p->merged[i] == NULL; j++) {
            fpc_table *target = into->tables[j];
            if (target->level > source->level) continue;
            if (fpc_table_size(target) + planned[j] + fpc_table_size(source) > target->capacity) continue;
            planned[j] += fpc_table_size(source);
            p->merged[i] = target;
        }
        if (p->merged[i] != NULL) continue;
        if (!into->grow || count + appended == FPC_FILTER_MAX_TABLES) return FPC_FULL;
        p->appended[i] = copy_table(from, source);
        if (p->appended[i] == NULL) return FPC_NOMEM;
        appended++;
    }
    return FPC_OK;
}

static fpc_status merge_planned(const fpc_filter *from, const plan *p) {
    for (unsigned i = 0; i < fpc_filter_tables(from); i++) {
        merge m = {from->tables[i], p->merged[i], 0, 0};
        if (p->merged[i] == NULL || each_print(from->tables[i], merge_one, &m)) continue;
        for (unsigned j = 0; j <= i; j++) { /* no memory for the stash: take everything back */
            merge back = {from->tables[j], p->merged[j], j < i ? UINT64_MAX : m.done, 0};
            if (p->merged[j] != NULL) each_print(from->tables[j], unmerge_one, &back);
        }
        return FPC_NOMEM;
    }
    return FPC_OK;
}

static fpc_status unite(fpc_filter *into, const fpc_filter *from) {
    plan p;
    fpc_status status = make_plan(into, from, &p);
    if (status == FPC_OK) status = merge_planned(from, &p);
    for (unsigned i = 0; i < FPC_FILTER_MAX_TABLES; i++) {
        if (p.appended[i] == NULL) continue;
        if (status == FPC_OK) {
            fpc_filter_publish_table(into, p.appended[i]);
        } else {
            fpc_table_free(p.appended[i]);
        }
    }
    return status;
}

fpc_status fpc_filter_union(fpc_filter *into, const fpc_filter *from, fpc_error *err) {
    if (memcmp(into->hasher.seed, from->hasher.seed, sizeof into->hasher.seed) != 0) {
        return fpc_fail(err, FPC_INVALID, "the filters have different seeds: make one like the other");
    }
    const fpc_table_shape *a = &into->shape, *b = &from->shape;
    if (a->capacity != b->capacity || a->bits != b->bits || a->compact != b->compact) {
        return fpc_fail(err, FPC_INVALID, "the filters differ in capacity, fingerprint bits or compactness");
    }
    fpc_status status;
    if (into == from) { /* everything twice */
        fpc_filter *copy = NULL;
        status = fpc_filter_copy(from, &copy, err);
        if (copy == NULL) return status;
        status = unite(into, copy);
        fpc_filter_delete(copy);
    } else {
        status = unite(into, from);
    }
    if (status == FPC_FULL) return fpc_fail(err, status, "both filters together exceed the capacity");
    if (status == FPC_NOMEM) return fpc_fail(err, status, "union of filters");
    return status;
}
