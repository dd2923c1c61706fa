/* filter_table.h -- one table of fingerprints, packed without gaps, in one of two layouts.
 *
 * What follows is the layout of windows.  The other, smaller one has buckets of four in place of windows, and
 * is told in filter_compact.h; prints, reflections, levels and the stash are the same.
 *
 * Words of this header:
 *   slot       `bits` bits; 0 means empty
 *   window     two neighbouring slots; windows overlap, so there is one fewer than there are slots
 *   print      what a key leaves: its tag in `bits` - 1 bits (never 0)
 *   entry      tag << 1 | side; the side tells whether the entry sits in the first or the second
 *              slot of its window
 *   reflection the number R of a tag; a key's two windows a and b satisfy a + b = R (mod windows),
 *              so each is found from the other for any number of windows
 *   level      how often this table's windows are doubled against the filter's first table.  A key's
 *              place at a level follows from its place at any higher one: equal prints at a level
 *              are equal at all lower ones.  remove() rests on that (see filter.c)
 *
 * Readers against the writer.  An entry disappears from a place (a slot, the stash) when it was moved, or
 * when one of several copies is removed.  The order is always: (1) the entry is written to its new place, or
 * another copy is there already; (2) `version` changes; (3) the old place is overwritten.  Every store is a
 * release.  A reader looks at the versions of all tables, then at all places of a key, then, before it says
 * "no", at the versions again, all acquire.  Suppose it missed an entry that was there throughout.  Then it
 * read the new place before (1) and the old place after (3).  Having seen (3) it sees (2) in its second look;
 * had it seen (2) in its first look, it would have seen (1).  So the two looks differ and it asks again.  An
 * entry may straddle two words: seeing half of (3) is seeing (3), and half of (1) is not needed.
 *
 * The version goes up by two, and stays even: odd means something in the compact layout only.
 *
 * The last copy of an entry goes without (2): whoever asks for a key of that print cannot count on it.  For
 * suppose the key was added before its reader began and removed after it ended.  The writer took this copy
 * away either before that add, then the reader sees what the add wrote; or after that removal, then the
 * reader has ended; or between, then the key's own copy was left, and this was not the last.
 *
 * `elsewhere` is set before the add that went there returns, so a reader whose key is there sees it.  A key
 * that gets a second copy there meanwhile loses the first one by (2) only.
 *
 * Thread rule: one writer, many readers of fpc_table_look(), _match(), _version(), _elsewhere() and _size().
 */
#ifndef FPC_FILTER_TABLE_H
#define FPC_FILTER_TABLE_H

#include "filter_stash.h"

typedef struct fpc_table { // NOLINT(clang-analyzer-optin.performance.Padding): the padding keeps lines apart
    /* -- fixed at creation -- */
    _Atomic uint64_t *words; /* slots from bit 0 up; one spare word at the end */
    uint64_t windows, bits;  /* `bits`: from one window to the next; of a slot, or of a bucket */
    uint32_t tag_mask, base_mask, reflection_mask;
    unsigned level;
    uint64_t low, high;      /* lowest and highest bit of both slots of a window */
    uint64_t spread, second; /* tag * spread + second is the pattern of a window with two such entries */
    /* low, high, second, spread, 7: for vectors */
    _Alignas(16) uint64_t lows[2], highs[2], seconds[2], spreads[2], sevens[2];
    /* of two buckets: where the bytes of lanes are in their codes and in the rest, and masks of lanes */
    uint64_t low_picks[2], high_picks[2], low_lanes[2], tag_lanes[2];
    uint64_t capacity;
    size_t word_count, mapped_bytes; /* mapped_bytes: 0 if malloc'ed */
    bool is_compact;
    struct { /* how the high parts of four tags are put together; filter_compact.h */
        unsigned width;
        uint64_t high;                 /* where they are in the lanes */
        uint64_t single, pair, fields; /* put together: the lower one of each two; the lower two; all */
    } compact;
    /* -- written by the writer: on lines of their own, so that readers lose a line only when they must -- */
    _Alignas(64) _Atomic uint64_t version; /* changes a reader must know of; odd: look again */
    _Atomic unsigned elsewhere;            /* where else a reader has to look, as below */
    _Alignas(64) _Atomic uint64_t size;    /* entries here and copies in the stash; lookups do not ask */
    fpc_stash stash;
    /* -- fixed at creation -- */
    _Alignas(64) uint32_t reflections[]; /* by tag & reflection_mask */
} fpc_table;

#define FPC_IN_STASH  1u
#define FPC_IN_TABLES 2u /* there are several */

typedef struct fpc_print {
    uint32_t first, second; /* windows */
    uint32_t tag;
} fpc_print;

typedef enum fpc_room { FPC_ROOM_OK, FPC_ROOM_FULL, FPC_ROOM_NOMEM } fpc_room;

/* What all tables of a filter have in common: those of its first one, at level 0. */
typedef struct fpc_table_shape {
    uint64_t capacity;
    unsigned bits; /* fingerprint bits: of a slot of a window, or of a tag in a bucket */
    bool compact;
} fpc_table_shape;

/* Whether a table for `capacity << level` keys can be numbered with 32 bits. */
bool fpc_table_possible(const fpc_table_shape *shape, unsigned level);
/* The 64-bit words its slots fill. */
uint64_t fpc_table_words(const fpc_table_shape *shape, unsigned level);
/* How many reflections each of its tables has: a power of two. */
uint32_t fpc_table_reflections(const fpc_table_shape *shape);
/* That table, empty.  NULL if out of memory or not possible. */
fpc_table *fpc_table_new(const fpc_table_shape *shape, unsigned level, const uint64_t seed[2]);
void fpc_table_free(fpc_table *table); /* NULL is allowed */

/* Most fingerprint bits: more for a table of a higher level do not fit. */
unsigned fpc_table_max_bits(bool compact);
/* Most false positives of a table at `load` (entries / slots). */
double fpc_table_fpr(const fpc_table_shape *shape, unsigned level, double load);
/* The load of a full table: capacity / slots.  Windows find room up to 0.965 in theory and 0.94 in practice,
 * buckets up to 0.98 and 0.97, but the last few per cent cost most of the time (docs/filter.md).  Part of the
 * saved format: the number of slots follows from the capacity. */
double fpc_table_full_load(bool compact);

/* The rare second half of fpc_table_add_print() in filter_slots.h, for a print whose four slots are taken: by
 * moving others, or in the stash.  NOMEM when that cannot grow. */
fpc_room fpc_table_add_crowded(fpc_table *table, fpc_print print);
/* What it does in the compact layout, after it has compared the size (filter_compact.c). */
fpc_room fpc_compact_add(fpc_table *table, fpc_print print);

/* Whether the print of `hash` is in the table or its stash, at one look: a reader beside the writer has to
 * compare versions (above). */
bool fpc_table_look(const fpc_table *table, uint64_t hash);

/* Puts `copies` of a saved id, or one of a print, into the stash; false if out of memory. */
bool fpc_table_stash(fpc_table *table, uint64_t id, uint64_t copies);
bool fpc_table_stash_print(fpc_table *table, fpc_print print);
/* Whether a copy is there; for the writer. */
bool fpc_table_stashed(const fpc_table *table, fpc_print print);
bool fpc_table_remove(fpc_table *table, fpc_print print);
void fpc_table_clear(fpc_table *table);
void fpc_table_copy(fpc_table *into, const fpc_table *from); /* of equal shape; without the stash */

uint64_t fpc_table_slots(const fpc_table *table);
/* The print in `slot`; false if it is empty. */
bool fpc_table_print_at(const fpc_table *table, uint64_t slot, fpc_print *print);
/* Whether every slot, the padding and the stash hold what add() could have written. */
bool fpc_table_valid(const fpc_table *table);
size_t fpc_table_bytes(const fpc_table *table);

/* Tells readers to look there too; for FPC_IN_TABLES it stays so. */
void fpc_table_send_on(fpc_table *table, unsigned where);

static inline uint64_t fpc_table_version(const fpc_table *table) {
    fpc_filter_step();
    return atomic_load_explicit(&table->version, memory_order_acquire);
}

static inline unsigned fpc_table_elsewhere(const fpc_table *table) {
    fpc_filter_step();
    return atomic_load_explicit(&table->elsewhere, memory_order_acquire);
}

static inline uint64_t fpc_table_size(const fpc_table *table) {
    return atomic_load_explicit(&table->size, memory_order_relaxed);
}

#endif
