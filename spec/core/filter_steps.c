/* filter_steps.c -- a reader beside the writer, in every order of their steps.
 *
 * Built with FPC_FILTER_STEPS: the filter calls fpc_filter_step() before each access that both sides share.
 * Each case is run again and again: the reader goes up to its i-th step, then the writer up to its j-th, then
 * the reader to its end, then the writer, for all i and j; where there are few steps also with the writer up
 * to its h-th before.  The key asked for is present all the time, so "no" is wrong. (What one processor sees
 * of another's stores is not tried here, but in filter_threads_test.c.) */
#include "filter_compact.h"
#include "filter_internal.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

void fpc_filter_step(void);

/* --- Two sides that take turns --- */

typedef struct actor {
    sem_t turn;
    int steps, stop_at, stop_before; /* the second one comes first; 0: not at all */
    bool done;
    struct actor *next;
} actor;

static _Thread_local actor *self;

static void hand_over(actor *a) {
    if (a->next->done) return;
    sem_post(&a->next->turn);
    while (sem_wait(&a->turn) != 0) continue;
}

void fpc_filter_step(void) {
    if (self == NULL) return;
    self->steps++;
    if (self->steps == self->stop_at || self->steps == self->stop_before) hand_over(self);
}

typedef struct scene {
    fpc_filter *filter;
    uint64_t key; /* present from before the reader starts, as are the `more` after it */
    uint64_t more;
    uint64_t another; /* what the writer works with */
} scene;

typedef struct play {
    const char *name;
    bool (*make)(scene *s, uint64_t seed); /* false: this seed does not lead there */
    void (*write)(scene *s);
    bool in_batch;
    bool writer_first; /* try that too */
} play;

typedef struct order {
    int h, i, j;
} order;

typedef struct stage {
    actor reader, writer;
    const play *play;
    scene scene;
} stage;

static void *writer_main(void *arg) {
    stage *s = arg;
    while (sem_wait(&s->writer.turn) != 0) continue;
    self = &s->writer;
    s->play->write(&s->scene);
    self = NULL;
    s->writer.done = true;
    sem_post(&s->reader.turn);
    return NULL;
}

#define MAX_KEYS 32

static bool ask(const scene *s, bool in_batch) {
    uint64_t keys[MAX_KEYS];
    bool found[MAX_KEYS], all = true;
    for (uint64_t i = 0; i <= s->more; i++) keys[i] = s->key + i;
    if (in_batch) return fpc_filter_contains_hash_many(s->filter, keys, s->more + 1, found) == s->more + 1;
    for (uint64_t i = 0; i <= s->more; i++) all &= fpc_filter_contains_hash(s->filter, keys[i]);
    return all;
}

/* False if the key was denied; `*reader_done` if the reader has no i-th step, `*writer_done` likewise. */
static bool run(const play *p, uint64_t seed, order o, bool *reader_done, bool *writer_done) {
    stage s = {.reader = {.stop_at = o.i, .next = &s.writer},
               .writer = {.stop_at = o.j, .stop_before = o.h, .next = &s.reader},
               .play = p};
    pthread_t thread;
    assert_true(p->make(&s.scene, seed));
    sem_init(&s.reader.turn, 0, 0);
    sem_init(&s.writer.turn, 0, 0);
    assert_int_equal(pthread_create(&thread, NULL, writer_main, &s), 0);
    if (o.h > 0) hand_over(&s.reader);
    self = &s.reader;
    bool found = ask(&s.scene, p->in_batch);
    self = NULL;
    /* It may wait to begin, or at its h-th or j-th step, or for one after the other. */
    for (int turn = 0; turn < 3; turn++) sem_post(&s.writer.turn);
    pthread_join(thread, NULL);
    found = found && ask(&s.scene, p->in_batch);
    *reader_done = s.reader.steps < o.i;
    *writer_done = s.writer.steps < o.j;
    sem_destroy(&s.reader.turn);
    sem_destroy(&s.writer.turn);
    fpc_filter_delete(s.scene.filter);
    return found;
}

/* All orders that begin with the writer's h-th step; false if there is none. */
static bool try_orders(const play *p, uint64_t seed, int h) {
    bool reader_done = false, writer_done;
    /* One look takes less than ten steps; a reader that waits for the writer takes a thousand looks. */
    for (int i = 1; !reader_done && (h == 0 || i <= 10); i++) {
        writer_done = false;
        for (int j = h + 1; !writer_done && !reader_done; j++) {
            if (!run(p, seed, (order){h, i, j}, &reader_done, &writer_done)) {
                fail_msg("%s, seed %d: denied with the reader at step %d and the writer at steps %d and %d",
                         p->name, (int)seed, i, h, j);
            }
            if (writer_done && j == h + 1 && i == 1) return false;
        }
    }
    return true;
}

static void try_all_orders(const play *p, uint64_t seed) {
    for (int h = 0; try_orders(p, seed, h) && p->writer_first; h++) continue;
}

static void try_seeds(const play *p, int wanted) {
    int tried = 0;
    for (uint64_t seed = 1; tried < wanted && seed < 100000; seed++) {
        scene s = {0};
        bool there = p->make(&s, seed);
        fpc_filter_delete(s.filter);
        if (!there) continue;
        try_all_orders(p, seed);
        tried++;
    }
    assert_int_equal(tried, wanted);
}

/* --- The cases, in both layouts --- */

static bool compact; /* the layout of the filters */

static fpc_filter *make(uint64_t capacity, unsigned bits, bool grow, uint64_t seed) {
    uint64_t seeds[2] = {seed, ~seed};
    if (compact && bits > FPC_FILTER_MAX_COMPACT_BITS) bits = FPC_FILTER_MAX_COMPACT_BITS;
    fpc_filter_options options = {
        .capacity = capacity, .fingerprint_bits = bits, .grow = grow, .compact = compact, .seed = seeds};
    fpc_filter *filter;
    assert_int_equal(fpc_filter_new(&options, &filter, NULL), FPC_OK);
    return filter;
}

static void add(scene *s, uint64_t key) {
    assert_int_equal(fpc_filter_add_hash(s->filter, key), FPC_OK);
}

static void remove_one(scene *s, uint64_t key) {
    assert_true(fpc_filter_remove_hash(s->filter, key));
}

static fpc_filter_stats stats_of(const scene *s) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(s->filter, &stats);
    return stats;
}

/* The key is in the second table and the first has room, where its second copy goes; the first copy is then
 * taken from the second table, which the reader, having missed it in the first, looks at last. */
static bool key_in_second_table(scene *s, uint64_t seed) {
    s->filter = make(4, 16, true, seed);
    s->key = 5;
    for (uint64_t key = 1; key <= 5; key++) add(s, key);
    remove_one(s, 1);
    return stats_of(s).tables == 2;
}

/* The key is beside the table: its slots hold copies of another.  One of these goes; the key's second copy
 * comes into its slot; the first copy is then taken from beside the table. */
static bool key_in_overflow(scene *s, uint64_t seed) {
    uint64_t slots = compact ? 8 : 4;
    s->filter = make(slots + 1, 16, false, seed);
    s->key = 2;
    for (uint64_t copy = 0; copy < slots; copy++) add(s, 1);
    bool beside = stats_of(s).overflow == 0;
    add(s, s->key);
    remove_one(s, 1);
    return beside && stats_of(s).overflow == 1;
}

static void second_copy_elsewhere(scene *s) {
    add(s, s->key);
    remove_one(s, s->key);
}

static void second_copy_twice(scene *s) {
    second_copy_elsewhere(s);
    add(s, s->key);
    remove_one(s, s->key);
}

static bool in_first_window(const scene *s, uint64_t key) {
    const fpc_table *t = s->filter->tables[0];
    fpc_print p = fpc_table_print(t, fpc_filter_hash_word(&s->filter->hasher, key));
    if (compact) return fpc_compact_zeros(fpc_compact_read(t, p.first) ^ p.tag * FPC_COMPACT_LANES) != 0;
    uint64_t x = fpc_table_window(t, p.first) ^ fpc_table_pattern(t, p.tag);
    return ((x - t->low) & ~x & t->high) != 0;
}

#define MOST 64

static uint64_t full(void) {
    return compact ? MOST : 12; /* so many that an add has to move others */
}

static void fill_but_one(scene *s, uint64_t seed) {
    s->filter = make(full(), 28, false, seed); /* wide: entries straddle words */
    for (uint64_t key = 1; key < full(); key++) add(s, key);
    s->another = 100;
}

/* A full table, whose last add moves an entry from the window that readers look at last to the first one.  In
 * windows all its keys are asked for; of the many in buckets the moved one, with whose bucket others move. */
static bool full_but_one(scene *s, uint64_t seed) {
    bool was_first[MOST];
    uint64_t moved = 0;
    fill_but_one(s, seed);
    for (uint64_t key = 1; key < full(); key++) was_first[key] = in_first_window(s, key);
    add(s, s->another);
    for (uint64_t key = 1; key < full(); key++) {
        if (!was_first[key] && in_first_window(s, key)) moved = key;
    }
    fpc_filter_delete(s->filter);
    fill_but_one(s, seed);
    s->key = compact ? moved : 1;
    s->more = compact ? 0 : full() - 2;
    return moved != 0;
}

static void add_another(scene *s) {
    add(s, s->another);
}

static void add_remove_add(scene *s) {
    add(s, s->another);
    remove_one(s, s->another);
    add(s, s->another + 1);
}

/* The filter doubles under the reader's eyes. */
static bool about_to_grow(scene *s, uint64_t seed) {
    s->filter = make(4, 11, true, seed);
    for (uint64_t key = 1; key <= 4; key++) add(s, key);
    s->key = 1;
    s->more = 3;
    s->another = 100;
    return true;
}

#define TRY(label, make_it, write_it, seeds)                                                                 \
    for (int batch = 0; batch < 2; batch++) {                                                                \
        play p = {label, make_it, write_it, batch != 0, false};                                              \
        try_seeds(&p, compact ? 1 : (seeds));                                                                \
    }

static void copies_in_two_tables(void **unused) {
    (void)unused;
    TRY("copies in two tables", key_in_second_table, second_copy_elsewhere, 3)
    TRY("copies in two tables, twice", key_in_second_table, second_copy_twice, 2)
}

static void copies_in_table_and_overflow(void **unused) {
    (void)unused;
    TRY("copies in table and overflow", key_in_overflow, second_copy_elsewhere, 3)
    TRY("copies in table and overflow, twice", key_in_overflow, second_copy_twice, 2)
}

static void moves(void **unused) {
    (void)unused;
    TRY("moves", full_but_one, add_another, 4)
    TRY("moves, there and back", full_but_one, add_remove_add, 1)
    if (!compact) return; /* asks for many keys: too many orders */
    const play p = {"moves, the writer first", full_but_one, add_another, false, true};
    try_seeds(&p, 2);
}

static void growth(void **unused) {
    (void)unused;
    TRY("growth", about_to_grow, add_another, 4)
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_in_two_tables),
        cmocka_unit_test(copies_in_table_and_overflow),
        cmocka_unit_test(moves),
        cmocka_unit_test(growth),
    };
    int failed = cmocka_run_group_tests_name("filter, step by step", tests, NULL, NULL);
    compact = true;
    return failed + cmocka_run_group_tests_name("filter, step by step, compact", tests, NULL, NULL);
}
