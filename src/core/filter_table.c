/* filter_table.c -- windows of two slots, filled by cuckoo moves.
 * Invariant: every entry sits in one of the two windows of its print, on the side it says, or its
 * print is in the stash.  An entry is never out of the table while it moves: add() first finds a whole
 * path of slots that ends in an empty one, then moves the entries from its far end backwards. */
#include "filter_compact.h"
#include "fpcache/filter.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_REFLECTIONS 1024u             /* enough to mix well; 4 kB stay in the L1 cache */
#define MAP_FROM        ((size_t)1 << 21) /* larger tables: own mapping, huge pages, zeroed lazily */
#define SEARCH_WINDOWS  1500              /* looked at before a key goes to the stash */
#define BUCKET          4u                /* slots of a bucket of the compact layout */

/* --- Life --- */

/* fpc_table_full_load(), exact on every machine. */
static uint64_t base_windows(const fpc_table_shape *s) {
    return s->compact ? s->capacity * 86 / (UINT64_C(83) * BUCKET) + 2 : s->capacity * 11 / 10 + 2;
}

double fpc_table_full_load(bool compact) {
    return compact ? 83.0 / 86.0 : 10.0 / 11.0;
}

unsigned fpc_table_max_bits(bool compact) {
    return compact ? FPC_FILTER_MAX_COMPACT_BITS : FPC_FILTER_MAX_BITS;
}

static unsigned bits_at(const fpc_table_shape *s, unsigned level) {
    unsigned most = fpc_table_max_bits(s->compact);
    return s->bits + level > most ? most : s->bits + level;
}

/* From one window to the next. */
static unsigned step_at(const fpc_table_shape *s, unsigned level) {
    return s->compact ? BUCKET * (bits_at(s, level) - 1) : bits_at(s, level);
}

bool fpc_table_possible(const fpc_table_shape *s, unsigned level) {
    return level < 32 && base_windows(s) < (UINT64_C(1) << 32) >> level;
}

uint64_t fpc_table_words(const fpc_table_shape *s, unsigned level) {
    uint64_t steps = (base_windows(s) << level) + !s->compact; /* a window more than its step: one slot */
    return (steps * step_at(s, level) + 63) / 64;
}

static uint64_t draw(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void *map_words(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return NULL;
    madvise(at, bytes, MADV_HUGEPAGE); /* fewer TLB misses; without it the table works as well */
    return at;
}

static bool allocate_words(fpc_table *t) {
    size_t bytes = t->word_count * sizeof *t->words;
    if (bytes >= MAP_FROM) {
        t->words = map_words(bytes);
        t->mapped_bytes = bytes;
    } else {
        t->words = calloc(1, bytes);
    }
    return t->words != NULL;
}

/* Reflections of a level are those of level 0 stretched: R' = (R + 1) * 2^level - 1.  With a window's
 * number halved from level to level, a + b = R' at a level gives a/2 + b/2 = R one below. */
static void draw_reflections(fpc_table *t, uint64_t windows, const uint64_t seed[2]) {
    uint64_t state = seed[0] ^ (seed[1] << 1 | seed[1] >> 63);
    for (uint32_t i = 0; i <= t->reflection_mask; i++) {
        uint64_t r = (uint64_t)(((unsigned __int128)draw(&state) * windows) >> 64);
        t->reflections[i] = (uint32_t)(((r + 1) << t->level) - 1);
    }
}

/* Tags have all the bits of a print but that of the side. */
static uint32_t mask_of(const fpc_table_shape *s, unsigned level) {
    return (UINT32_C(1) << (bits_at(s, level) - !s->compact)) - 1;
}

/* A small filter has few windows to tell apart: its reflections need not outweigh its slots. */
static uint32_t reflection_mask(uint32_t base_mask, uint64_t windows) {
    uint32_t mask = base_mask;
    while (mask >= MAX_REFLECTIONS || (mask > 31 && mask > windows / 16)) mask >>= 1;
    return mask;
}

uint32_t fpc_table_reflections(const fpc_table_shape *s) {
    return reflection_mask(mask_of(s, 0), base_windows(s)) + 1;
}

static size_t struct_bytes(uint32_t reflections) {
    size_t bytes = sizeof(fpc_table) + reflections * sizeof(uint32_t);
    return (bytes + _Alignof(fpc_table) - 1) & ~(_Alignof(fpc_table) - 1);
}

static void shape_windows(fpc_table *t) {
    t->low = 1 | UINT64_C(1) << t->bits;
    t->high = t->low << (t->bits - 1);
    t->spread = t->low << 1;
    t->second = UINT64_C(1) << t->bits;
    for (int i = 0; i < 2; i++) {
        t->lows[i] = t->low;
        t->highs[i] = t->high;
        t->seconds[i] = t->second;
        t->spreads[i] = t->spread;
        t->sevens[i] = 7;
    }
}

static void shape_buckets(fpc_table *t) {
    unsigned width = (unsigned)t->bits / BUCKET - 3; /* of a tag without its 4 low bits */
    t->compact.width = width;
    t->compact.high = FPC_COMPACT_LANES * ((1u << width) - 1) << 4;
    t->compact.single = (1 | UINT64_C(1) << 32) * ((1u << width) - 1);
    t->compact.pair = (1u << 2 * width) - 1;
    t->compact.fields = (UINT64_C(1) << 4 * width) - 1;
    for (int i = 0; i < 2; i++) {
        for (unsigned lane = 0; lane < BUCKET; lane++) {
            uint64_t high = 8 + lane * width; /* where bit 0 of the lane would be */
            t->low_picks[i] |= (uint64_t)(4 * lane) << 16 * lane;
            t->high_picks[i] |= (high | (high + 8) << 8) << 16 * lane;
        }
        t->low_lanes[i] = 15 * FPC_COMPACT_LANES;
        t->tag_lanes[i] = ((UINT64_C(16) << width) - 1) * FPC_COMPACT_LANES;
    }
    fpc_compact_init();
}

fpc_table *fpc_table_new(const fpc_table_shape *s, unsigned level, const uint64_t seed[2]) {
    if (!fpc_table_possible(s, level)) return NULL;
    uint64_t windows = base_windows(s);
    size_t bytes = struct_bytes(fpc_table_reflections(s));
    fpc_table *t = aligned_alloc(_Alignof(fpc_table), bytes);
    if (t == NULL) return NULL;
    memset(t, 0, bytes);
    fpc_stash_init(&t->stash);
    t->bits = step_at(s, level);
    t->level = level;
    t->windows = windows << level;
    t->capacity = s->capacity << level;
    t->is_compact = s->compact;
    if (s->compact) {
        shape_buckets(t);
    } else {
        shape_windows(t);
    }
    t->tag_mask = mask_of(s, level);
    t->base_mask = mask_of(s, 0);
    t->reflection_mask = fpc_table_reflections(s) - 1;
    t->word_count = (size_t)fpc_table_words(s, level) + 1;
    if (!allocate_words(t)) {
        fpc_table_free(t);
        return NULL;
    }
    draw_reflections(t, windows, seed);
    return t;
}

void fpc_table_free(fpc_table *t) {
    if (t == NULL) return;
    fpc_stash_free(&t->stash);
    if (t->mapped_bytes == 0) {
        free((void *)t->words);
    } else if (t->words != NULL) {
        munmap((void *)t->words, t->mapped_bytes);
    }
    free(t);
}

double fpc_table_fpr(const fpc_table_shape *s, unsigned level, double load) {
    /* Four slots are compared, or eight of two buckets; a tag that came out 0 took the place of 1, so that
     * one is twice as likely, for the entry and for the question. */
    double base_tags = (double)mask_of(s, 0) + 1, compared = s->compact ? 2 * BUCKET : 4;
    double fpr = compared * load / (double)(UINT32_C(1) << bits_at(s, level)) * (1 + 2 / base_tags);
    return fpr < 1 ? fpr : 1;
}

uint64_t fpc_table_slots(const fpc_table *t) {
    return t->is_compact ? BUCKET * t->windows : t->windows + 1;
}

size_t fpc_table_bytes(const fpc_table *t) {
    return struct_bytes(t->reflection_mask + 1) + t->word_count * sizeof *t->words +
           fpc_stash_bytes(&t->stash);
}

/* --- Slots --- */

static inline uint32_t entry_at(const fpc_table *t, uint32_t slot) {
    return (uint32_t)(fpc_table_window(t, slot) & ((UINT64_C(1) << t->bits) - 1));
}

static inline uint64_t stash_id(fpc_print p) {
    return (uint64_t)(p.first < p.second ? p.first : p.second) << 32 | p.tag;
}

/* Step (2) of filter_table.h: comes before anything disappears from its place.  By two: it stays even. */
static inline void announce(fpc_table *t) {
    uint64_t version = atomic_load_explicit(&t->version, memory_order_relaxed);
    fpc_filter_step();
    atomic_store_explicit(&t->version, version + 2, memory_order_release);
}

/* --- Add --- */

/* The windows looked at, in the order of their distance from the new key: its own two, then the other window
 * of the entry in each slot.  The entry in slot `side` of window k leads to window 2 * k + side + 2. */
typedef struct search {
    uint32_t window[SEARCH_WINDOWS];
    uint64_t pair[SEARCH_WINDOWS]; /* what was there: never changes while the search lasts */
} search;

static inline uint32_t entry_in(const fpc_table *t, uint64_t pair, uint32_t side) {
    return (uint32_t)(pair >> (side * t->bits)) & ((UINT32_C(1) << t->bits) - 1);
}

static inline void look_at(search *s, const fpc_table *t, uint32_t k, uint32_t window) {
    s->window[k] = window;
    s->pair[k] = fpc_table_window(t, window);
}

/* Moves the entry that leads to window `k` to the empty slot `to`, the entry before it to where that was, and
 * so on; the first slot of the path is then free for the new key and returned. */
static uint32_t move_along(const search *s, fpc_table *t, uint32_t k, uint32_t to) {
    for (;;) {
        uint32_t before = (k - 2) / 2, slot = s->window[before] + (k & 1);
        uint32_t entry = entry_in(t, s->pair[before], k & 1);
        uint32_t tag = entry >> 1, window = slot - (entry & 1);
        uint32_t side = to - window < 2 ? to - window : to - fpc_table_other(t, window, tag);
        fpc_table_put(t, to, tag << 1 | side);
        announce(t);
        to = slot; /* overwritten next: by the entry before, or by the caller */
        k = before;
        if (k < 2) return to;
    }
}

/* Searches breadth first, so that paths are short and no slot comes twice in one, for an entry that can move
 * to an empty slot.  Frees a slot of one of the two windows; false if none was found.  (Fetching windows of
 * the search early was tried, also from keys ahead: no faster, even with 50 million keys.) */
static bool make_room(fpc_table *t, fpc_print p, uint32_t *freed) {
    search s;
    look_at(&s, t, 0, p.first);
    look_at(&s, t, 1, p.second);
    for (uint32_t k = 2; k < SEARCH_WINDOWS; k++) {
        uint32_t side = k & 1, slot = s.window[k / 2 - 1] + side;
        uint32_t entry = entry_in(t, s.pair[k / 2 - 1], side);
        uint32_t own = slot - (entry & 1), sibling = slot + 1 - 2 * (entry & 1);
        look_at(&s, t, k, fpc_table_other(t, own, entry >> 1));
        uint64_t zeros = fpc_table_zeros(t, s.pair[k]);
        bool beside = entry_at(t, sibling) == 0;
        if (beside | (zeros != 0)) {
            *freed = move_along(&s, t, k, beside ? sibling : s.window[k] + fpc_table_side(t, zeros));
            return true;
        }
    }
    return false;
}

static void set_elsewhere(fpc_table *t, unsigned where) {
    fpc_filter_step();
    atomic_store_explicit(&t->elsewhere, where, memory_order_release);
}

void fpc_table_send_on(fpc_table *t, unsigned where) {
    set_elsewhere(t, fpc_table_elsewhere(t) | where);
}

bool fpc_table_stash(fpc_table *t, uint64_t id, uint64_t copies) {
    if (!fpc_stash_add(&t->stash, id, copies)) return false;
    fpc_table_send_on(t, FPC_IN_STASH);
    return true;
}

bool fpc_table_stash_print(fpc_table *t, fpc_print p) {
    return fpc_table_stash(t, stash_id(p), 1);
}

bool fpc_table_stashed(const fpc_table *t, fpc_print p) {
    return fpc_stash_copies(&t->stash) > 0 && fpc_stash_has(&t->stash, stash_id(p));
}

fpc_room fpc_table_add_crowded(fpc_table *t, fpc_print p) {
    uint32_t slot;
    /* With one copy in the stash the next ones need no search. */
    if (!fpc_table_stashed(t, p) && make_room(t, p, &slot)) {
        fpc_table_put(t, slot, p.tag << 1 | (slot - p.first < 2 ? slot - p.first : slot - p.second));
    } else if (!fpc_table_stash_print(t, p)) {
        return FPC_ROOM_NOMEM;
    }
    fpc_table_count(t, 1);
    return FPC_ROOM_OK;
}

bool fpc_table_look(const fpc_table *t, uint64_t hash) {
    fpc_print p = fpc_table_print(t, hash);
    if ((t->is_compact ? fpc_compact_match(t, p) : fpc_table_match(t, p)) != 0) return true;
    return (fpc_table_elsewhere(t) & FPC_IN_STASH) != 0 && fpc_stash_has(&t->stash, stash_id(p));
}

/* --- The rest --- */

/* One bit for each slot of the window that holds the entry of `tag`; perhaps one too many if there is any. */
static uint64_t copies_in(const fpc_table *t, uint32_t window, uint32_t tag) {
    uint64_t x = fpc_table_window(t, window) ^ fpc_table_pattern(t, tag);
    return (x - t->low) & ~x & t->high;
}

static bool remove_from_slots(fpc_table *t, fpc_print p) {
    if (t->is_compact) return fpc_compact_remove(t, p);
    uint64_t first = copies_in(t, p.first, p.tag), second = copies_in(t, p.second, p.tag);
    uint64_t here = first != 0 ? first : second;
    if (here == 0) return false;
    uint64_t left = (here & (here - 1)) | (first != 0 ? second : 0);
    uint32_t side = (here & -here) >> t->bits != 0;
    if (left != 0 || fpc_table_elsewhere(t) != 0) announce(t); /* a reader may have missed the other copy */
    fpc_table_put(t, (first != 0 ? p.first : p.second) + side, 0);
    return true;
}

static void stash_unused(fpc_table *t) {
    set_elsewhere(t, fpc_table_elsewhere(t) & ~FPC_IN_STASH);
}

static bool remove_from_stash(fpc_table *t, fpc_print p) {
    if (!fpc_table_stashed(t, p)) return false;
    announce(t);
    fpc_stash_remove(&t->stash, stash_id(p));
    if (fpc_stash_copies(&t->stash) == 0) stash_unused(t);
    return true;
}

bool fpc_table_remove(fpc_table *t, fpc_print p) {
    /* The stash first, so that it empties and readers need not look there. */
    bool removed = remove_from_stash(t, p) || remove_from_slots(t, p);
    if (removed) fpc_table_count(t, -1);
    return removed;
}

void fpc_table_clear(fpc_table *t) {
    for (size_t i = 0; i < t->word_count; i++) atomic_store_explicit(&t->words[i], 0, memory_order_release);
    fpc_stash_clear(&t->stash);
    stash_unused(t);
    atomic_store_explicit(&t->size, 0, memory_order_relaxed);
}

bool fpc_table_print_at(const fpc_table *t, uint64_t slot, fpc_print *p) {
    if (t->is_compact) {
        p->first = (uint32_t)(slot / BUCKET);
        p->tag = fpc_compact_read(t, p->first) >> 16 * (slot % BUCKET) & 0xffff;
    } else {
        uint32_t entry = entry_at(t, (uint32_t)slot);
        p->tag = entry >> 1;
        p->first = (uint32_t)slot - (entry & 1);
    }
    if (p->tag == 0) return false;
    p->second = fpc_table_other(t, p->first, p->tag);
    return true;
}

static bool stash_valid(const fpc_table *t) {
    for (size_t i = 0; i < fpc_stash_cells(&t->stash); i++) {
        uint64_t id, copies;
        if (!fpc_stash_cell(&t->stash, i, &id, &copies)) continue;
        fpc_print p = {(uint32_t)(id >> 32), 0, (uint32_t)id};
        if (p.first >= t->windows || (p.tag & ~t->tag_mask) != 0 || (p.tag & t->base_mask) == 0) return false;
        p.second = fpc_table_other(t, p.first, p.tag);
        if (copies == 0 || stash_id(p) != id) return false;
    }
    return true;
}

static bool windows_valid(const fpc_table *t, uint64_t *held) {
    *held = 0;
    for (uint32_t slot = 0; slot <= t->windows; slot++) {
        uint32_t entry = entry_at(t, slot);
        if (entry == 0) continue;
        (*held)++;
        if ((entry >> 1 & t->base_mask) == 0 || slot - (entry & 1) >= t->windows) return false;
    }
    return true;
}

bool fpc_table_valid(const fpc_table *t) {
    uint64_t held;
    if (!(t->is_compact ? fpc_compact_valid(t, &held) : windows_valid(t, &held))) return false;
    uint64_t end = (t->windows + !t->is_compact) * t->bits; /* nothing may follow the last slot */
    for (size_t i = (size_t)(end >> 6); i < t->word_count; i++) {
        uint64_t word = atomic_load_explicit(&t->words[i], memory_order_relaxed);
        if ((i == end >> 6 ? word >> (end & 63) : word) != 0) return false;
    }
    return stash_valid(t) && held + fpc_stash_copies(&t->stash) == fpc_table_size(t) &&
           fpc_table_size(t) <= t->capacity;
}

void fpc_table_copy(fpc_table *into, const fpc_table *from) {
    memcpy((void *)into->words, (const void *)from->words, from->word_count * sizeof *from->words);
    atomic_store_explicit(&into->size, fpc_table_size(from), memory_order_relaxed);
}
