/* filter_compact.c -- buckets of four, sorted and numbered, filled by cuckoo moves.
 * Invariant: the tag of every print is in one of its two buckets, or its print is in the stash. */
#include "filter_compact.h"

#include <pthread.h>

#define SEARCH_BUCKETS 2000 /* looked at before a key goes to the stash */

uint16_t fpc_compact_lows[FPC_COMPACT_CODES];

/* --- From lanes to codes and back --- */

/* How many sorted lists of i + 1 halves come before those whose last one is n: the code is the sum. */
static const uint16_t BEFORE[4][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {0, 1, 3, 6, 10, 15, 21, 28, 36, 45, 55, 66, 78, 91, 105, 120},
    {0, 1, 4, 10, 20, 35, 56, 84, 120, 165, 220, 286, 364, 455, 560, 680},
    {0, 1, 5, 15, 35, 70, 126, 210, 330, 495, 715, 1001, 1365, 1820, 2380, 3060},
};

static inline uint32_t code_of(uint64_t lanes) {
    return BEFORE[0][lanes & 15] + BEFORE[1][lanes >> 16 & 15] + BEFORE[2][lanes >> 32 & 15] +
           BEFORE[3][lanes >> 48 & 15];
}

static void fill_lows(void) {
    for (uint64_t d = 0; d < 16; d++)
        for (uint64_t c = 0; c <= d; c++)
            for (uint64_t b = 0; b <= c; b++)
                for (uint64_t a = 0; a <= b; a++)
                    fpc_compact_lows[code_of(a | b << 16 | c << 32 | d << 48)] =
                        (uint16_t)(a | b << 4 | c << 8 | d << 12);
}

void fpc_compact_init(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_lows);
}

/* Exchanges lanes i and j if their low halves are in the wrong order; without a branch, which would be missed
 * half the time. */
static inline uint64_t in_order(uint64_t lanes, int i, int j) {
    uint64_t a = lanes >> 16 * i, b = lanes >> 16 * j;
    uint64_t swap = (a ^ b) & 0xffff & -(uint64_t)((a & 15) > (b & 15));
    return lanes ^ swap << 16 * i ^ swap << 16 * j;
}

static inline uint64_t pack(const fpc_table *t, uint64_t lanes) {
    unsigned width = t->compact.width;
    lanes = in_order(in_order(lanes, 0, 1), 2, 3);
    lanes = in_order(in_order(lanes, 0, 2), 1, 3);
    lanes = in_order(lanes, 1, 2);
    uint64_t high = (lanes & t->compact.high) >> 4;
    uint64_t stays = high & t->compact.single;
    high = stays | (high ^ stays) >> (16 - width);
    stays = high & t->compact.pair;
    high = stays | (high ^ stays) >> (32 - 2 * width);
    return code_of(lanes) | high * FPC_COMPACT_CODES;
}

/* --- Writing: between begin() and end() --- */

static void change_version(fpc_table *t) {
    uint64_t version = atomic_load_explicit(&t->version, memory_order_relaxed);
    fpc_filter_step();
    atomic_store_explicit(&t->version, version + 1, memory_order_release);
}

static void begin(fpc_table *t) {
    change_version(t);
}

static void end(fpc_table *t) {
    change_version(t);
}

static void write_bucket(fpc_table *t, uint32_t bucket, uint64_t lanes) {
    fpc_table_put_bits(t, bucket * t->bits, (unsigned)t->bits, pack(t, lanes));
}

/* `lanes` with `tag` in the empty one that `zeros` tells first. */
static inline uint64_t with_tag(uint64_t lanes, uint64_t zeros, uint64_t tag) {
    return lanes | tag << (__builtin_ctzll(zeros) - 15);
}

/* How many lanes such bits tell. */
static inline uint64_t count(uint64_t highest_bits) {
    return (highest_bits >> 15) * FPC_COMPACT_LANES >> 48;
}

/* --- Add --- */

/* The buckets looked at, in the order of their distance from the new key: its own two, then the other bucket
 * of each tag.  Lane i of bucket k leads to bucket 4 * k + i + 2. */
typedef struct search {
    uint32_t bucket[SEARCH_BUCKETS];
    uint64_t lanes[SEARCH_BUCKETS]; /* what was there: never changes while the search lasts */
} search;

static inline uint64_t look_at(search *s, const fpc_table *t, uint32_t k, uint32_t bucket) {
    s->bucket[k] = bucket;
    s->lanes[k] = fpc_compact_read(t, bucket);
    return fpc_compact_zeros(s->lanes[k]);
}

/* Puts `tag` into the path that ends with the empty lane of bucket `k`: each tag on it moves one on.  No
 * bucket comes twice in it, or the search would have found a shorter one. */
static void move_along(const search *s, fpc_table *t, uint32_t k, uint64_t zeros, uint64_t tag) {
    uint64_t empty = (unsigned)__builtin_ctzll(zeros) - 15;
    begin(t);
    for (;;) {
        bool last = k < 2;
        uint32_t before = last ? 0 : (k - 2) / 4;
        unsigned lane = 16 * ((k - 2) & 3);
        uint64_t comes = last ? tag : s->lanes[before] >> lane & 0xffff;
        write_bucket(t, s->bucket[k], (s->lanes[k] & ~(UINT64_C(0xffff) << empty)) | comes << empty);
        if (last) break;
        empty = lane;
        k = before;
    }
    end(t);
}

/* Breadth first, so that paths are short.  False if no room was found. */
static bool add_by_moves(fpc_table *t, fpc_print p) {
    search s;
    look_at(&s, t, 0, p.first);
    look_at(&s, t, 1, p.second);
    for (uint32_t k = 2; k < SEARCH_BUCKETS; k++) {
        uint32_t before = (k - 2) / 4, tag = s.lanes[before] >> 16 * ((k - 2) & 3) & 0xffff;
        uint64_t zeros = look_at(&s, t, k, fpc_table_other(t, s.bucket[before], tag));
        if (zeros == 0) continue;
        move_along(&s, t, k, zeros, p.tag);
        return true;
    }
    return false;
}

static __attribute__((noinline)) fpc_room add_crowded(fpc_table *t, fpc_print p) {
    bool known = fpc_table_stashed(t, p); /* one copy there: the next ones need no search */
    if ((known || !add_by_moves(t, p)) && !fpc_table_stash_print(t, p)) return FPC_ROOM_NOMEM;
    fpc_table_count(t, 1);
    return FPC_ROOM_OK;
}

fpc_room fpc_compact_add(fpc_table *t, fpc_print p) {
    uint64_t first = fpc_compact_read(t, p.first), second = fpc_compact_read(t, p.second);
    uint64_t first_zeros = fpc_compact_zeros(first), second_zeros = fpc_compact_zeros(second);
    if (__builtin_expect((first_zeros | second_zeros) == 0, 0)) return add_crowded(t, p);
    bool to_second = count(second_zeros) > count(first_zeros); /* so that fewer keys find both full later */
    uint64_t lanes = to_second ? second : first, zeros = to_second ? second_zeros : first_zeros;
    begin(t);
    write_bucket(t, to_second ? p.second : p.first, with_tag(lanes, zeros, p.tag));
    end(t);
    fpc_table_count(t, 1);
    return FPC_ROOM_OK;
}

/* --- The rest --- */

bool fpc_compact_remove(fpc_table *t, fpc_print p) {
    const uint32_t buckets[2] = {p.first, p.second};
    for (int i = 0; i < 2; i++) {
        uint64_t lanes = fpc_compact_read(t, buckets[i]);
        uint64_t held = fpc_compact_zeros(lanes ^ p.tag * FPC_COMPACT_LANES);
        if (held == 0) continue;
        begin(t);
        write_bucket(t, buckets[i], lanes & ~(UINT64_C(0xffff) << (__builtin_ctzll(held) - 15)));
        end(t);
        return true;
    }
    return false;
}

bool fpc_compact_valid(const fpc_table *t, uint64_t *held) {
    *held = 0;
    for (uint32_t bucket = 0; bucket < t->windows; bucket++) {
        uint64_t lanes = fpc_compact_read(t, bucket);
        uint64_t bits = fpc_table_window(t, bucket) & ((UINT64_C(1) << t->bits) - 1);
        if (pack(t, lanes) != bits) return false; /* a code not in use */
        for (int lane = 0; lane < 4; lane++) {
            uint64_t tag = lanes >> 16 * lane & 0xffff;
            *held += tag != 0;
            if (tag != 0 && (tag & t->base_mask) == 0) return false;
        }
    }
    return true;
}
