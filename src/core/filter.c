/* filter.c -- the life and the single-key calls of a filter: a list of tables.
 * Invariant: each key added and not removed has its print in one of the tables.
 *
 * Why remove() may take any equal print.  Say A is in table i and remove(A) finds an equal print in
 * table j.  Tables are asked from the highest level down, so level j >= level i, and the print found
 * belongs to some B equal to A at level j, hence equal at level i, where A's own print now
 * stands for B.  Asked the other way round, B would be lost. */
#include "filter_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* --- Life --- */

static double fpr_of(fpc_table_shape *s, unsigned bits) {
    s->bits = bits;
    return fpc_table_fpr(s, 0, fpc_table_full_load(s->compact));
}

static fpc_status check(const fpc_filter_options *o, fpc_table_shape *s, fpc_error *err) {
    unsigned most = fpc_table_max_bits(o->compact);
    *s = (fpc_table_shape){.capacity = o->capacity, .compact = o->compact};
    if (o->capacity == 0 || o->capacity > FPC_FILTER_MAX_CAPACITY) {
        return fpc_fail(err, FPC_INVALID, "capacity must be 1 to %llu",
                        (unsigned long long)FPC_FILTER_MAX_CAPACITY);
    }
    if (o->fingerprint_bits != 0) {
        if (o->fpr != 0) return fpc_fail(err, FPC_INVALID, "give fpr or fingerprint_bits, not both");
        if (o->fingerprint_bits < FPC_FILTER_MIN_BITS || o->fingerprint_bits > most) {
            return fpc_fail(err, FPC_INVALID, "fingerprint_bits must be %d to %u%s", FPC_FILTER_MIN_BITS,
                            most, o->compact ? " in a compact filter" : "");
        }
        s->bits = o->fingerprint_bits;
        return FPC_OK;
    }
    double fpr = o->fpr == 0 ? FPC_FILTER_DEFAULT_FPR : o->fpr;
    if (!(fpr > 0 && fpr < 1)) return fpc_fail(err, FPC_INVALID, "fpr must be between 0 and 1");
    for (unsigned bits = FPC_FILTER_MIN_BITS; bits <= most; bits++) {
        if (fpr_of(s, bits) <= fpr) return FPC_OK;
    }
    return fpc_fail(err, FPC_INVALID, "fpr must be at least %.2g%s", fpr_of(s, most),
                    o->compact ? " in a compact filter" : "");
}

static bool random_seed(uint64_t seed[2]) {
    ssize_t n;
    do {
        n = getrandom(seed, FPC_FILTER_SEED_BYTES, 0);
    } while (n < 0 && errno == EINTR);
    return n == FPC_FILTER_SEED_BYTES;
}

static uint64_t read_word(const unsigned char *p) {
    uint64_t word = 0;
    for (int i = 7; i >= 0; i--) word = word << 8 | p[i];
    return word;
}

static size_t bytes_of(const fpc_table_shape *shape) {
    size_t leaps = fpc_filter_leaps(shape) ? fpc_table_reflections(shape) : 0;
    size_t bytes = sizeof(fpc_filter) + leaps * sizeof(uint32_t);
    return (bytes + _Alignof(fpc_filter) - 1) & ~(_Alignof(fpc_filter) - 1);
}

fpc_filter *fpc_filter_bare(const fpc_table_shape *shape, bool grow, const uint64_t seed[2]) {
    size_t bytes = bytes_of(shape);
    fpc_filter *f = aligned_alloc(_Alignof(fpc_filter), bytes);
    if (f == NULL) return NULL;
    memset(f, 0, bytes);
    f->hasher.seed[0] = seed[0];
    f->hasher.seed[1] = seed[1];
    fpc_filter_hasher_init(&f->hasher);
    f->shape = *shape;
    f->grow = grow;
    f->find = *fpc_filter_finders(shape, 0);
    return f;
}

fpc_table *fpc_filter_make_table(const fpc_filter *f, unsigned level) {
    return fpc_table_new(&f->shape, level, f->hasher.seed);
}

static void set_leaps(fpc_filter *f, const fpc_table *first) {
    f->span = (uint32_t)(first->windows * first->bits);
    for (uint32_t i = 0; i <= first->reflection_mask; i++)
        f->leaps[i] = (uint32_t)(first->reflections[i] * first->bits);
}

void fpc_filter_publish_table(fpc_filter *f, fpc_table *table) {
    unsigned count = fpc_filter_tables(f);
    if (count == 0 && fpc_filter_leaps(&f->shape)) set_leaps(f, table);
    f->tables[count] = table;
    fpc_filter_step();
    atomic_store_explicit(&f->table_count, count + 1, memory_order_release);
    for (unsigned i = 0; count > 0 && i <= count; i++) fpc_table_send_on(f->tables[i], FPC_IN_TABLES);
}

static fpc_filter *with_first_table(fpc_filter *f) {
    fpc_table *first = f == NULL ? NULL : fpc_filter_make_table(f, 0);
    if (first == NULL) {
        fpc_filter_delete(f);
        return NULL;
    }
    fpc_filter_publish_table(f, first);
    return f;
}

fpc_status fpc_filter_new(const fpc_filter_options *options, fpc_filter **out, fpc_error *err) {
    uint64_t seed[2];
    fpc_table_shape shape;
    *out = NULL;
    fpc_status status = check(options, &shape, err);
    if (status != FPC_OK) return status;
    if (options->seed != NULL) {
        seed[0] = read_word(options->seed);
        seed[1] = read_word((const unsigned char *)options->seed + 8);
    } else if (!random_seed(seed)) {
        return fpc_fail(err, FPC_INVALID, "no random bytes for the seed: %s", strerror(errno));
    }
    *out = with_first_table(fpc_filter_bare(&shape, options->grow, seed));
    return *out != NULL ? FPC_OK : fpc_fail(err, FPC_NOMEM, "filter");
}

fpc_status fpc_filter_new_like(const fpc_filter *model, fpc_filter **out, fpc_error *err) {
    *out = with_first_table(fpc_filter_bare(&model->shape, model->grow, model->hasher.seed));
    return *out != NULL ? FPC_OK : fpc_fail(err, FPC_NOMEM, "filter");
}

void fpc_filter_delete(fpc_filter *f) {
    if (f == NULL) return;
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) fpc_table_free(f->tables[i]);
    free(f);
}

/* --- Add --- */

static unsigned highest_level(const fpc_filter *f) {
    unsigned level = 0;
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) {
        if (f->tables[i]->level > level) level = f->tables[i]->level;
    }
    return level;
}

static fpc_status refuse(fpc_filter *f) {
    uint64_t refused = atomic_load_explicit(&f->full_adds, memory_order_relaxed);
    atomic_store_explicit(&f->full_adds, refused + 1, memory_order_relaxed);
    return FPC_FULL;
}

static fpc_status grow_and_add(fpc_filter *f, uint64_t mixed) {
    unsigned level = highest_level(f) + 1;
    if (!f->grow || fpc_filter_tables(f) == FPC_FILTER_MAX_TABLES || !fpc_table_possible(&f->shape, level)) {
        return refuse(f);
    }
    fpc_table *table = fpc_filter_make_table(f, level);
    if (table == NULL) return FPC_NOMEM;
    fpc_table_add(table, mixed); /* empty: it has room */
    fpc_filter_publish_table(f, table);
    return FPC_OK;
}

fpc_status fpc_filter_add_mixed(fpc_filter *f, uint64_t mixed) {
    unsigned count = fpc_filter_tables(f);
    for (unsigned i = 0; i < count; i++) { /* room that remove() made in older tables is used first */
        fpc_table *table = f->tables[i];
        switch (fpc_table_add(table, mixed)) {
        case FPC_ROOM_OK: return FPC_OK;
        case FPC_ROOM_NOMEM: return FPC_NOMEM;
        case FPC_ROOM_FULL: break;
        }
    }
    return grow_and_add(f, mixed);
}

static fpc_status add_if_absent(fpc_filter *f, uint64_t mixed, bool *added) {
    bool present = fpc_filter_contains_mixed(f, mixed);
    fpc_status status = present ? FPC_OK : fpc_filter_add_mixed(f, mixed);
    if (added != NULL) *added = !present && status == FPC_OK;
    return status;
}

fpc_status fpc_filter_add(fpc_filter *f, const void *key, size_t len) {
    return fpc_filter_add_mixed(f, fpc_filter_hash_bytes(&f->hasher, key, len));
}

fpc_status fpc_filter_add_hash(fpc_filter *f, uint64_t hash) {
    return fpc_filter_add_mixed(f, fpc_filter_hash_word(&f->hasher, hash));
}

fpc_status fpc_filter_add_if_absent(fpc_filter *f, const void *key, size_t len, bool *added) {
    return add_if_absent(f, fpc_filter_hash_bytes(&f->hasher, key, len), added);
}

fpc_status fpc_filter_add_hash_if_absent(fpc_filter *f, uint64_t hash, bool *added) {
    return add_if_absent(f, fpc_filter_hash_word(&f->hasher, hash), added);
}

/* --- Remove --- */

static bool remove_mixed(fpc_filter *f, uint64_t mixed) {
    unsigned count = fpc_filter_tables(f);
    for (int level = (int)highest_level(f); level >= 0; level--) {
        for (unsigned i = 0; i < count; i++) {
            fpc_table *table = f->tables[i];
            if (table->level != (unsigned)level) continue;
            if (fpc_table_remove(table, fpc_table_print(table, mixed))) return true;
        }
    }
    return false;
}

bool fpc_filter_remove(fpc_filter *f, const void *key, size_t len) {
    return remove_mixed(f, fpc_filter_hash_bytes(&f->hasher, key, len));
}

bool fpc_filter_remove_hash(fpc_filter *f, uint64_t hash) {
    return remove_mixed(f, fpc_filter_hash_word(&f->hasher, hash));
}

void fpc_filter_clear(fpc_filter *f) {
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) fpc_table_clear(f->tables[i]);
}

/* --- Statistics --- */

void fpc_filter_get_stats(const fpc_filter *f, fpc_filter_stats *out) {
    double all_say_no = 1;
    memset(out, 0, sizeof *out);
    out->tables = fpc_filter_tables(f);
    out->bytes = bytes_of(&f->shape);
    for (unsigned i = 0; i < out->tables; i++) {
        const fpc_table *t = f->tables[i];
        uint64_t size = fpc_table_size(t), slots = fpc_table_slots(t);
        out->size += size;
        out->capacity += t->capacity;
        out->slots += slots;
        out->bytes += fpc_table_bytes(t);
        out->overflow += fpc_stash_copies(&t->stash);
        all_say_no *= 1 - fpc_table_fpr(&f->shape, t->level, (double)size / (double)slots);
    }
    out->full_adds = atomic_load_explicit(&f->full_adds, memory_order_relaxed);
    out->fingerprint_bits = f->shape.bits;
    out->load_factor = (double)out->size / (double)out->slots;
    out->bits_per_key = out->size == 0 ? 0 : 8 * (double)out->bytes / (double)out->size;
    out->estimated_fpr = 1 - all_say_no;
    out->grow = f->grow;
    out->compact = f->shape.compact;
}
