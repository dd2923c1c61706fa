/* filter.h -- approximate set of keys: a cuckoo filter.
 *
 * Answers "maybe" or "no" for a key; "no" is always true.  It keeps a few bits of each key's
 * hash, never the key.
 *
 * Words of this header:
 *   key            bytes of any length, or a 64-bit hash given directly (the *_hash calls); the
 *                  two are separate worlds: add_hash(x) says nothing about any byte string
 *   fingerprint    the bits kept of one key, `fingerprint_bits` long
 *   capacity       how many keys always fit, copies counted; what comes after it is FPC_FULL, or
 *                  growth
 *   false positive a "maybe" for a key that was never added; its rate is `estimated_fpr`
 *   seed           16 secret bytes that make the hashes of this filter its own
 *
 * Copies.  A filter is a multiset: add() of a key that is present stores one more copy, and
 * remove() takes one away.
 *
 * Remove.  Only a key that was added by add() and not yet removed may be removed.  Removing any
 * other key is undefined: the call may do nothing, or take away the fingerprint of another key,
 * which is then denied.  For the same reason remove() must not be used on a filter filled by
 * add_if_absent(): that call stores nothing for a key that looks present, so two keys may
 * share one fingerprint.
 *
 * Compact.  A filter made with `compact` takes 5 % less memory at the same rate of false positives, and calls
 * take up to twice as long (docs/filter.md has figures).  A reader beside a busy writer looks again more
 * often.  Everything else is the same.
 *
 * Thread rule: one writer (add, remove, clear, union, at most one at a time; the owner sees to
 * it) and any number of readers (contains, stats) at the same time, without locks.  A key that
 * is present before a contains() begins and until it ends is never denied, whatever the writer
 * does meanwhile; false positives may be a little more likely while it does.  copy() and save()
 * read everything and exclude the writer; delete() excludes everybody.  Two filters share nothing. */
#ifndef FPCACHE_FILTER_H
#define FPCACHE_FILTER_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FPC_FILTER_SEED_BYTES       16
#define FPC_FILTER_MIN_BITS         6
#define FPC_FILTER_MAX_BITS         28
#define FPC_FILTER_MAX_COMPACT_BITS 15
#define FPC_FILTER_MAX_CAPACITY     UINT64_C(3900000000)
#define FPC_FILTER_DEFAULT_FPR      0.001

typedef struct fpc_filter fpc_filter;

typedef struct fpc_filter_options {
    uint64_t capacity;         /* 1 to FPC_FILTER_MAX_CAPACITY keys */
    double fpr;                /* most false positives wanted, between 0 and 1; 0: by fingerprint_bits */
    unsigned fingerprint_bits; /* FPC_FILTER_MIN_BITS to _MAX_BITS; 0: by fpr.  Both 0: _DEFAULT_FPR */
    bool grow;                 /* past the capacity: double instead of FPC_FULL */
    bool compact;              /* see "Compact" above; then at most FPC_FILTER_MAX_COMPACT_BITS */
    const void *seed;          /* FPC_FILTER_SEED_BYTES, copied; NULL: random.  For tests. */
} fpc_filter_options;

typedef struct fpc_filter_stats {
    uint64_t size;             /* keys held, copies counted */
    uint64_t capacity;         /* keys that always fit, growth so far included */
    uint64_t slots;            /* fingerprints the tables have room for */
    uint64_t bytes;            /* memory in use */
    uint64_t overflow;         /* keys held beside the tables; 0 or nearly so */
    uint64_t full_adds;        /* adds refused with FPC_FULL since the filter was made */
    unsigned fingerprint_bits; /* of the first table; each growth has one more, up to the most allowed */
    unsigned tables;           /* 1 + growths; a "no" asks each */
    double load_factor;        /* size / slots */
    double bits_per_key;       /* 8 * bytes / size; 0 for an empty filter */
    double estimated_fpr;      /* now, at this load */
    bool grow, compact;
} fpc_filter_stats;

/* --- Life --- */

/* An empty filter in `*out`.  FPC_INVALID (an option is out of range; both fpr and
 * fingerprint_bits given; no random bytes) or FPC_NOMEM; then `*out` is NULL. */
fpc_status fpc_filter_new(const fpc_filter_options *options, fpc_filter **out, fpc_error *err);

/* An empty filter with the options and the seed of `model`: the two can be united. */
fpc_status fpc_filter_new_like(const fpc_filter *model, fpc_filter **out, fpc_error *err);

/* A filter with the same contents, options and seed.  FPC_NOMEM. */
fpc_status fpc_filter_copy(const fpc_filter *filter, fpc_filter **out, fpc_error *err);

void fpc_filter_delete(fpc_filter *filter); /* NULL is allowed */

/* --- Use.  FPC_FULL and FPC_NOMEM leave the filter as it was.  --- */

fpc_status fpc_filter_add(fpc_filter *filter, const void *key, size_t len);
fpc_status fpc_filter_add_hash(fpc_filter *filter, uint64_t hash);

/* Adds nothing if the key looks present; `*added` (NULL is allowed) tells. */
fpc_status fpc_filter_add_if_absent(fpc_filter *filter, const void *key, size_t len, bool *added);
fpc_status fpc_filter_add_hash_if_absent(fpc_filter *filter, uint64_t hash, bool *added);

/* False: certainly not there.  True: there, or a false positive. */
bool fpc_filter_contains(const fpc_filter *filter, const void *key, size_t len);
bool fpc_filter_contains_hash(const fpc_filter *filter, uint64_t hash);

/* Takes one copy away; false if there is none.  See "Remove" above. */
bool fpc_filter_remove(fpc_filter *filter, const void *key, size_t len);
bool fpc_filter_remove_hash(fpc_filter *filter, uint64_t hash);

/* Removes everything.  Keeps the memory, the seed and the capacity reached by growth. */
void fpc_filter_clear(fpc_filter *filter);

/* --- Many at once: several memory accesses under way together --- */

/* Answers for keys[i] of lens[i] bytes in found[i]; the result counts the "maybe"s. */
size_t fpc_filter_contains_many(const fpc_filter *filter, const void *const *keys, const size_t *lens,
                                size_t count, bool *found);
size_t fpc_filter_contains_hash_many(const fpc_filter *filter, const uint64_t *hashes, size_t count,
                                     bool *found);

/* Adds in order and stops at the first failure, told in `*status` (NULL is allowed).  The result is
 * how many were added: all of them if it was FPC_OK. */
size_t fpc_filter_add_many(fpc_filter *filter, const void *const *keys, const size_t *lens, size_t count,
                           fpc_status *status);
size_t fpc_filter_add_hash_many(fpc_filter *filter, const uint64_t *hashes, size_t count, fpc_status *status);

/* --- Whole filters --- */

/* Adds everything that `from` holds, copies too.  All or nothing:
 *   FPC_INVALID  the two differ in seed, capacity, fingerprint bits or `compact`: keys are not kept,
 *                so their fingerprints cannot be translated (see fpc_filter_new_like)
 *   FPC_FULL     both together exceed the capacity and `into` may not grow
 *   FPC_NOMEM */
fpc_status fpc_filter_union(fpc_filter *into, const fpc_filter *from, fpc_error *err);

void fpc_filter_get_stats(const fpc_filter *filter, fpc_filter_stats *out);

/* Writes exactly fpc_filter_save_size() bytes to `out`; the same on every machine.  They hold the
 * seed: whoever reads them can craft keys that collide. */
size_t fpc_filter_save_size(const fpc_filter *filter);
void fpc_filter_save(const fpc_filter *filter, void *out);

/* The filter saved in `bytes`.  FPC_INVALID if they are not exactly what save() wrote (checksum), or
 * of a later version; FPC_NOMEM.  Any bytes may be given. */
fpc_status fpc_filter_load(const void *bytes, size_t len, fpc_filter **out, fpc_error *err);

#endif
