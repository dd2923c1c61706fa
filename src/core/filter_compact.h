/* filter_compact.h -- buckets of four prints that share their order: the smaller layout of a table.
 *
 * Words of this header, beside those of filter_table.h:
 *   bucket  what a window is in the other layout: four places, here for any four tags, without a side.
 *           Buckets do not overlap
 *   lanes   the four tags of a bucket, 16 bits each, sorted by their low 4 bits; 0 means empty
 *   code    the number of the four low halves among all sorted ones: 3,876 fit into 12 bits, where the four
 *           by themselves take 16.  So a tag takes one bit less than it has
 *
 * A bucket in memory is its code and above it the four high parts.
 *
 * Readers against the writer.  A bucket is written as a whole and may lie in two words, so a reader may see a
 * mixture that holds neither what was nor what is.  So the writer makes `version` odd before it writes and
 * even after it, and a reader believes a "no" only if the version was even and is the same afterwards.  All
 * stores release and all loads acquire: a reader that sees any word of a change sees the odd version, or a
 * later one, in its second look; and one whose first look saw the version after a change sees all of it.  One
 * pair for all moves of an add: nobody sees them half done.
 *
 * Thread rule: as in filter_table.h. */
#ifndef FPC_FILTER_COMPACT_H
#define FPC_FILTER_COMPACT_H

#include "filter_slots.h"

#define FPC_COMPACT_LANES UINT64_C(0x0001000100010001)
#define FPC_COMPACT_CODES 4096 /* 3,876 are in use */

/* The low halves of each code, 4 bits each; set by fpc_compact_init(). */
extern uint16_t fpc_compact_lows[FPC_COMPACT_CODES];

/* Fills the table above, once in a process. */
void fpc_compact_init(void);

/* Spreads four fields of `width` bits out to lanes: first the upper two, then of each two the upper one.  The
 * masks tell what stays where it is.  (Not by `pdep`, which older processors take long for.) */
static inline uint64_t fpc_compact_spread(uint64_t fields, unsigned width, uint64_t pair, uint64_t single) {
    uint64_t stays = fields & pair;
    fields = stays | (fields ^ stays) << (32 - 2 * width);
    stays = fields & single;
    return stays | (fields ^ stays) << (16 - width);
}

/* What the bits of a bucket, and whatever follows them, stand for; `low` is that of its code. */
static inline uint64_t fpc_compact_unpack(const fpc_table *t, uint64_t bits, uint64_t low) {
    uint64_t high = bits / FPC_COMPACT_CODES & t->compact.fields;
    return fpc_compact_spread(low, 4, 0xff, UINT64_C(0x0000000f0000000f)) |
           fpc_compact_spread(high, t->compact.width, t->compact.pair, t->compact.single) << 4;
}

static inline uint64_t fpc_compact_read(const fpc_table *t, uint32_t bucket) {
    uint64_t bits = fpc_table_window(t, bucket);
    return fpc_compact_unpack(t, bits, fpc_compact_lows[bits % FPC_COMPACT_CODES]);
}

/* The highest bit of each lane that is 0.  Exact: no tag has 16 bits. */
static inline uint64_t fpc_compact_zeros(uint64_t lanes) {
    return ~(lanes + 0x7fff * FPC_COMPACT_LANES) & 0x8000 * FPC_COMPACT_LANES;
}

/* Nonzero if the print is in the table; the stash is not asked, and changes are not noticed. */
static inline uint64_t fpc_compact_match(const fpc_table *t, fpc_print p) {
    uint64_t pattern = p.tag * FPC_COMPACT_LANES;
    return fpc_compact_zeros(fpc_compact_read(t, p.first) ^ pattern) |
           fpc_compact_zeros(fpc_compact_read(t, p.second) ^ pattern);
}

/* Takes one copy out of the buckets; false if there is none. */
bool fpc_compact_remove(fpc_table *table, fpc_print print);
/* Whether each bucket is written as the writer writes it, and how many tags they hold. */
bool fpc_compact_valid(const fpc_table *table, uint64_t *held);

#endif
