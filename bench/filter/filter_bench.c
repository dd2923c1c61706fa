/* filter_bench.c -- how fast and how small is the filter, beside a CMU-style one and a Bloom filter?
 *
 * Usage: filter_bench TABLE.json [quick | CLASS]    (called by run.sh; takes four minutes, quick ten seconds;
 *        a CLASS, for instance 13-bit, is measured alone)
 * All sides get the same random 64-bit keys (fixed seed) and the same numbers of rounds in turn; the best
 * counts.  Keys and questions are made before the clock starts.  The results stand in docs/filter.md. */
#include "fpcache/clock.h"
#include "fpcache/filter.h"
#include "sides.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ROUNDS 25
#define MAX_SIDES  6

typedef struct workload {
    size_t count;
    uint64_t *present, *absent, *half;
} workload;

typedef struct result {
    double add, absent, half, present; /* millions a second */
    double bits, fpr;                  /* bits a key, share of absent keys answered "maybe" */
} result;

static uint64_t state = 7;

static uint64_t rnd(void) {
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static void *allocate(size_t bytes) {
    void *at = malloc(bytes);
    if (at == NULL) {
        fprintf(stderr, "filter_bench: out of memory\n");
        exit(1);
    }
    return at;
}

static workload make_workload(size_t count) {
    workload w = {count, allocate(8 * count), allocate(8 * count), allocate(8 * count)};
    for (size_t i = 0; i < count; i++) w.present[i] = rnd();
    for (size_t i = 0; i < count; i++) w.absent[i] = rnd();
    for (size_t i = 0; i < count; i++) w.half[i] = rnd() & 1 ? w.present[i] : w.absent[i];
    return w;
}

static void free_workload(workload *w) {
    free(w->present);
    free(w->absent);
    free(w->half);
}

/* What disturbs a round makes it slower, never faster. */
static double best(const double *values, int count) {
    double most = values[0];
    for (int i = 1; i < count; i++) most = values[i] > most ? values[i] : most;
    return most;
}

/* The processor time of this thread: what others run meanwhile does not count (but for the caches). */
static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * FPC_NS_PER_SECOND + t.tv_nsec;
}

static double millions_a_second(size_t count, int64_t since) {
    return (double)count * 1000 / (double)(now_ns() - since);
}

static void complain(const side *s, const char *what) {
    fprintf(stderr, "filter_bench: %s: %s\n", s->name, what);
    exit(1);
}

/* Runs all sides in turn, round after round. */
static void compare(const side *sides, int count, const workload *w, int rounds, result *results) {
    double add[MAX_SIDES][MAX_ROUNDS], absent[MAX_SIDES][MAX_ROUNDS], half[MAX_SIDES][MAX_ROUNDS],
        present[MAX_SIDES][MAX_ROUNDS];
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < count; i++) {
            const side *s = &sides[i];
            void *filter = s->make(s->shape, w->count);
            if (filter == NULL) complain(s, "could not be made");
            s->add(filter, w->present, w->count); /* warm-up: the memory is touched */
            s->clear(filter);
            int64_t t = now_ns();
            size_t added = s->add(filter, w->present, w->count);
            add[i][round] = millions_a_second(w->count, t);
            if (added != w->count) complain(s, "some keys found no room");
            t = now_ns();
            size_t wrong = s->find(filter, w->absent, w->count);
            absent[i][round] = millions_a_second(w->count, t);
            t = now_ns();
            s->find(filter, w->half, w->count);
            half[i][round] = millions_a_second(w->count, t);
            t = now_ns();
            size_t right = s->find(filter, w->present, w->count);
            present[i][round] = millions_a_second(w->count, t);
            if (right != w->count) complain(s, "a key is denied");
            results[i].bits = 8 * (double)s->bytes(filter) / (double)w->count;
            results[i].fpr = (double)wrong / (double)w->count;
            s->free(filter);
        }
    }
    for (int i = 0; i < count; i++) {
        results[i].add = best(add[i], rounds);
        results[i].absent = best(absent[i], rounds);
        results[i].half = best(half[i], rounds);
        results[i].present = best(present[i], rounds);
    }
}

static void print_result(FILE *json, const char *class, size_t keys, const char *name, const result *r) {
    static const char *separator = "";
    char half[16] = "-"; /* not asked */
    if (r->half > 0) snprintf(half, sizeof half, "%.1f", r->half);
    printf("%-8s %4zuM  %-18s %8.1f %8.1f %8s %8.1f   %8.4f %8.2f\n", class, keys / 1000000, name, r->add,
           r->absent, half, r->present, 100 * r->fpr, r->bits);
    fprintf(json,
            "%s\n    {\"class\": \"%s\", \"keys\": %zu, \"side\": \"%s\", \"add_M_per_s\": %.1f, "
            "\"find_absent_M_per_s\": %.1f, \"find_half_M_per_s\": %.1f, \"find_present_M_per_s\": %.1f, "
            "\"fpr\": %.6f, \"bits_per_key\": %.3f}",
            separator, class, keys, name, r->add, r->absent, r->half, r->present, r->fpr, r->bits);
    separator = ",";
    fflush(stdout);
}

static const char *only; /* this class alone, or NULL */

static side shaped(side s, int shape) {
    s.shape = shape;
    return s;
}

/* Ours with `our_bits` in both forms, beside `others`, of which those that this machine cannot do are left
 * out. */
static void compare_class(FILE *json, const char *class, int our_bits, const side *others, int other_count,
                          const workload *w, int rounds) {
    if (only != NULL && strcmp(only, class) != 0) return;
    side sides[MAX_SIDES] = {shaped(SIDE_ONE, our_bits), shaped(SIDE_MANY, our_bits)};
    int count = 2;
    for (int i = 0; i < other_count; i++) {
        void *probe = others[i].make(others[i].shape, 1);
        if (probe == NULL) continue;
        others[i].free(probe);
        sides[count++] = others[i];
    }
    result results[MAX_SIDES];
    compare(sides, count, w, rounds, results);
    for (int i = 0; i < count; i++) print_result(json, class, w->count, sides[i].name, &results[i]);
}

/* A slot of ours is one bit narrower than theirs, for the same false positives. */
static void compare_with_cmu(FILE *json, const char *class, int bits, const workload *w, int rounds) {
    side others[] = {shaped(SIDE_AS_LARGE, bits - 1), shaped(SIDE_CMU_STYLE, bits),
                     shaped(SIDE_CMU_CALLED, bits), shaped(SIDE_BLOOM, bits)};
    compare_class(json, class, bits - 1, others, 4, w, rounds);
}

/* --- String keys of 20 bytes --- */

typedef struct strings {
    char *bytes;
    const void **keys;
    size_t *lens;
} strings;

static strings make_strings(size_t count, const char *prefix) {
    strings s = {allocate(count * 21), allocate(count * sizeof *s.keys), allocate(count * sizeof *s.lens)};
    for (size_t i = 0; i < count; i++) {
        snprintf(s.bytes + 21 * i, 21, "%.4s%016llx", prefix, (unsigned long long)rnd());
        s.keys[i] = s.bytes + 21 * i;
        s.lens[i] = 20;
    }
    return s;
}

static void free_strings(strings *s) {
    free(s->bytes);
    free(s->keys);
    free(s->lens);
}

static double find_strings(const fpc_filter *filter, const strings *s, size_t count, bool batch,
                           size_t *hits) {
    bool found[1024];
    int64_t t = now_ns();
    *hits = 0;
    for (size_t at = 0; at < count; at += 1000) {
        if (batch) {
            *hits += fpc_filter_contains_many(filter, s->keys + at, s->lens + at, 1000, found);
        } else {
            for (size_t i = at; i < at + 1000; i++)
                *hits += fpc_filter_contains(filter, s->keys[i], s->lens[i]);
        }
    }
    return millions_a_second(count, t);
}

static void compare_strings(FILE *json, size_t count, int rounds) {
    strings present = make_strings(count, "key:"), absent = make_strings(count, "not:");
    double add[2][MAX_ROUNDS], no[2][MAX_ROUNDS], yes[2][MAX_ROUNDS];
    result r = {0};
    for (int round = 0; round < rounds; round++) {
        for (int batch = 0; batch < 2; batch++) {
            fpc_filter_options options = {.capacity = count, .fingerprint_bits = 11};
            fpc_filter *filter;
            size_t hits;
            if (fpc_filter_new(&options, &filter, NULL) != FPC_OK) exit(1);
            int64_t t = now_ns();
            if (batch) {
                fpc_filter_add_many(filter, present.keys, present.lens, count, NULL);
            } else {
                for (size_t i = 0; i < count; i++) fpc_filter_add(filter, present.keys[i], present.lens[i]);
            }
            add[batch][round] = millions_a_second(count, t);
            no[batch][round] = find_strings(filter, &absent, count, batch, &hits);
            r.fpr = (double)hits / (double)count;
            yes[batch][round] = find_strings(filter, &present, count, batch, &hits);
            if (hits != count) complain(&SIDE_ONE, "a string key is denied");
            fpc_filter_stats stats;
            fpc_filter_get_stats(filter, &stats);
            r.bits = stats.bits_per_key;
            fpc_filter_delete(filter);
        }
    }
    for (int batch = 0; batch < 2; batch++) {
        r.add = best(add[batch], rounds);
        r.absent = best(no[batch], rounds);
        r.present = best(yes[batch], rounds);
        print_result(json, "strings", count, batch ? "fpcache batch" : "fpcache", &r);
    }
    free_strings(&present);
    free_strings(&absent);
}

int main(int argc, char **argv) {
    bool quick = argc > 2 && strcmp(argv[2], "quick") == 0;
    FILE *json = argc > 1 ? fopen(argv[1], "w") : NULL;
    if (json == NULL) {
        fprintf(stderr, "usage: filter_bench TABLE.json [quick | CLASS]\n");
        return 2;
    }
    if (argc > 2 && !quick) only = argv[2];
    int rounds = quick ? 3 : 25;
    fprintf(json, "[");
    printf(
        "class    keys  side               M adds/s  M finds/s: absent, half, present   fpr %%  bits/key\n");
    workload small = make_workload(1000000);
    compare_with_cmu(json, "12-bit", 12, &small, rounds);
    compare_with_cmu(json, "8-bit", 8, &small, rounds);
    compare_with_cmu(json, "16-bit", 16, &small, rounds);
    const side thirteen[] = {shaped(SIDE_COMPACT_ONE, 13), shaped(SIDE_COMPACT_MANY, 13), SIDE_SEMI_SORTED,
                             SIDE_SEMI_SORTED_CALLED};
    compare_class(json, "13-bit", 12, thirteen, 4, &small, rounds);
    compare_class(json, "14-bit", 13, &SIDE_VECTOR, 1, &small, rounds); /* as many false positives */
    free_workload(&small);
    if (only == NULL) compare_strings(json, 1000000, rounds);
    if (!quick && only == NULL) {
        workload large = make_workload(50000000);
        compare_with_cmu(json, "12-bit", 12, &large, 3);
        compare_with_cmu(json, "8-bit", 8, &large, 3);
        compare_with_cmu(json, "16-bit", 16, &large, 3);
        free_workload(&large);
    }
    fprintf(json, "\n]\n");
    return fclose(json) == 0 ? 0 : 1;
}
