/* filter_io.c -- save and load.  All numbers little-endian:
 *
 *   header   magic "fpcuckoo" 8, version u32, fingerprint bits u8, grow u8, compact u8, zero u8,
 *            capacity u64, seed u64 u64, full adds u64, tables u32, zero u32                    = 56 bytes
 *   tables   each: level u32, stash ids u32, size u64, words u64 ..., then per stash id: id u64, copies u64
 *   end      XXH3 (64 bits, no seed) of all before, u64
 *
 * The version is 2, or 3 if compact is 1: so libraries from before that layout say what they cannot read.
 * The number of words follows from capacity, bits, compact and level, so that it cannot lie. */
#include "filter_internal.h"

#include <string.h>

#define FORMAT_WINDOWS 2u
#define FORMAT_COMPACT 3u
#define HEADER_BYTES   56
#define TABLE_BYTES    16
#define STASH_BYTES    16
#define SUM_BYTES      8

static const char MAGIC[8] = {'f', 'p', 'c', 'u', 'c', 'k', 'o', 'o'};

/* --- Save --- */

static unsigned char *put_number(unsigned char *to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) to[i] = (unsigned char)(value >> (8 * i));
    return to + bytes;
}

static size_t saved_words(const fpc_table *t) {
    return t->word_count - 1; /* without the spare one */
}

static size_t stash_ids(const fpc_table *t) {
    return atomic_load_explicit(&t->stash.live, memory_order_relaxed);
}

size_t fpc_filter_save_size(const fpc_filter *f) {
    size_t bytes = HEADER_BYTES + SUM_BYTES;
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) {
        const fpc_table *t = f->tables[i];
        bytes += TABLE_BYTES + 8 * saved_words(t) + STASH_BYTES * stash_ids(t);
    }
    return bytes;
}

static unsigned char *save_table(const fpc_table *t, unsigned char *to) {
    to = put_number(to, t->level, 4);
    to = put_number(to, stash_ids(t), 4);
    to = put_number(to, fpc_table_size(t), 8);
    for (size_t i = 0; i < saved_words(t); i++) {
        to = put_number(to, atomic_load_explicit(&t->words[i], memory_order_relaxed), 8);
    }
    for (size_t i = 0; i < fpc_stash_cells(&t->stash); i++) {
        uint64_t id, copies;
        if (!fpc_stash_cell(&t->stash, i, &id, &copies)) continue;
        to = put_number(to, id, 8);
        to = put_number(to, copies, 8);
    }
    return to;
}

void fpc_filter_save(const fpc_filter *f, void *out) {
    unsigned char *to = out;
    memcpy(to, MAGIC, sizeof MAGIC);
    to = put_number(to + sizeof MAGIC, f->shape.compact ? FORMAT_COMPACT : FORMAT_WINDOWS, 4);
    to = put_number(to, f->shape.bits, 1);
    to = put_number(to, f->grow, 1);
    to = put_number(to, f->shape.compact, 1);
    to = put_number(to, 0, 1);
    to = put_number(to, f->shape.capacity, 8);
    to = put_number(to, f->hasher.seed[0], 8);
    to = put_number(to, f->hasher.seed[1], 8);
    to = put_number(to, atomic_load_explicit(&f->full_adds, memory_order_relaxed), 8);
    to = put_number(to, fpc_filter_tables(f), 4);
    to = put_number(to, 0, 4);
    for (unsigned i = 0; i < fpc_filter_tables(f); i++) to = save_table(f->tables[i], to);
    put_number(to, XXH3_64bits(out, (size_t)(to - (unsigned char *)out)), SUM_BYTES);
}

/* --- Load --- */

typedef struct reader {
    const unsigned char *at;
    size_t left;
} reader;

/* The caller has checked that `bytes` are left. */
static uint64_t take(reader *r, int bytes) {
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--) value = value << 8 | r->at[i];
    r->at += bytes;
    r->left -= (size_t)bytes;
    return value;
}

static fpc_status broken(fpc_error *err, const char *what) {
    return fpc_fail(err, FPC_INVALID, "not a saved filter: %s", what);
}

static fpc_status load_table(fpc_filter *f, reader *r, fpc_error *err) {
    if (r->left < TABLE_BYTES) return broken(err, "too short for a table");
    unsigned level = (unsigned)take(r, 4);
    size_t ids = (size_t)take(r, 4);
    uint64_t size = take(r, 8);
    /* The length first: a few bytes must not make us allocate gigabytes. */
    if (!fpc_table_possible(&f->shape, level)) return broken(err, "level of a table");
    if (fpc_table_words(&f->shape, level) > r->left / 8) return broken(err, "too short for its size");
    fpc_table *t = fpc_filter_make_table(f, level);
    if (t == NULL) return fpc_fail(err, FPC_NOMEM, "filter");
    fpc_filter_publish_table(f, t);
    for (size_t i = 0; i < saved_words(t); i++) {
        atomic_store_explicit(&t->words[i], take(r, 8), memory_order_relaxed);
    }
    atomic_store_explicit(&t->size, size, memory_order_relaxed);
    if (ids > r->left / STASH_BYTES) return broken(err, "too short for its overflow");
    for (; ids > 0; ids--) {
        uint64_t id = take(r, 8), copies = take(r, 8);
        if (id == 0 || id == UINT64_MAX || copies > t->capacity - fpc_stash_copies(&t->stash)) {
            return broken(err, "overflow");
        }
        if (!fpc_table_stash(t, id, copies)) return fpc_fail(err, FPC_NOMEM, "filter");
    }
    return fpc_table_valid(t) ? FPC_OK : broken(err, "contents of a table");
}

static fpc_status load_tables(fpc_filter *f, unsigned count, reader *r, fpc_error *err) {
    fpc_status status = FPC_OK;
    for (unsigned i = 0; i < count && status == FPC_OK; i++) status = load_table(f, r, err);
    if (status == FPC_OK && r->left != 0) status = broken(err, "bytes left over");
    if (status == FPC_OK && f->tables[0]->level != 0) status = broken(err, "level of the first table");
    return status;
}

fpc_status fpc_filter_load(const void *bytes, size_t len, fpc_filter **out, fpc_error *err) {
    *out = NULL;
    if (len < HEADER_BYTES + SUM_BYTES) return broken(err, "too short");
    if (memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return broken(err, "wrong first bytes");
    reader r = {(const unsigned char *)bytes + sizeof MAGIC, len - sizeof MAGIC - SUM_BYTES};
    uint64_t version = take(&r, 4);
    if (version != FORMAT_WINDOWS && version != FORMAT_COMPACT) {
        return fpc_fail(err, FPC_INVALID, "a saved filter of format %u; this library reads %u and %u",
                        (unsigned)version, FORMAT_WINDOWS, FORMAT_COMPACT);
    }
    reader sum = {(const unsigned char *)bytes + len - SUM_BYTES, SUM_BYTES};
    if (take(&sum, SUM_BYTES) != XXH3_64bits(bytes, len - SUM_BYTES)) return broken(err, "wrong checksum");
    fpc_table_shape shape = {.bits = (unsigned)take(&r, 1)};
    unsigned grow = (unsigned)take(&r, 1), compact = (unsigned)take(&r, 1), zero = (unsigned)take(&r, 1);
    uint64_t seed[2], full_adds;
    shape.capacity = take(&r, 8);
    shape.compact = compact == 1;
    seed[0] = take(&r, 8);
    seed[1] = take(&r, 8);
    full_adds = take(&r, 8);
    unsigned count = (unsigned)take(&r, 4);
    zero |= (unsigned)take(&r, 4);
    if (shape.bits < FPC_FILTER_MIN_BITS || shape.bits > fpc_table_max_bits(shape.compact) || grow > 1 ||
        compact != (version == FORMAT_COMPACT) || zero != 0 || shape.capacity == 0 ||
        shape.capacity > FPC_FILTER_MAX_CAPACITY || count == 0 || count > FPC_FILTER_MAX_TABLES) {
        return broken(err, "header");
    }
    fpc_filter *f = fpc_filter_bare(&shape, grow, seed);
    if (f == NULL) return fpc_fail(err, FPC_NOMEM, "filter");
    atomic_store_explicit(&f->full_adds, full_adds, memory_order_relaxed);
    fpc_status status = load_tables(f, count, &r, err);
    if (status != FPC_OK) {
        fpc_filter_delete(f);
        return status;
    }
    *out = f;
    return FPC_OK;
}
