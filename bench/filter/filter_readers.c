/* filter_readers.c -- what does a writer at work cost a reader?
 *
 * Usage: filter_readers RESULT.json     (5 s, wants two processors; the results stand in docs/filter.md)
 * One thread asks for absent keys, one call each, in three settings by turns: nobody writes; a writer adds
 * and removes in a filter half full, where little is moved; the same in a full one, where each add moves
 * entries. */
#include "fpcache/clock.h"
#include "fpcache/filter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define CAPACITY 1000000u
#define ROUNDS   5
#define SETTINGS 3

static const char *const NAMES[SETTINGS] = {"nobody writes", "a writer, half full", "a writer, full"};
static const double LOADS[SETTINGS] = {0.5, 0.5, 1};

typedef struct writer {
    fpc_filter *filter;
    uint64_t held, changes;
    double seconds;
    _Atomic int stop;
} writer;

static void *write_on(void *arg) {
    writer *w = arg;
    uint64_t oldest = 0, next = w->held;
    int64_t since = fpc_clock_ns();
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        fpc_filter_remove_hash(w->filter, oldest++);
        fpc_filter_add_hash(w->filter, next++);
        w->changes += 2;
    }
    w->seconds = (double)(fpc_clock_ns() - since) / (double)FPC_NS_PER_SECOND;
    return NULL;
}

/* Nanoseconds a question; `*changes` gets the millions of changes a second made meanwhile. */
static double ask(int setting, double *changes) {
    fpc_filter_options options = {.capacity = CAPACITY, .fingerprint_bits = 11};
    writer w = {.held = (uint64_t)(CAPACITY * LOADS[setting])};
    pthread_t thread;
    uint64_t hits = 0;
    if (fpc_filter_new(&options, &w.filter, NULL) != FPC_OK) exit(1);
    for (uint64_t i = 0; i < w.held; i++) fpc_filter_add_hash(w.filter, i);
    if (setting > 0 && pthread_create(&thread, NULL, write_on, &w) != 0) exit(1);
    enum { QUESTIONS = 20000000 };
    int64_t since = fpc_clock_ns();
    for (uint64_t i = 0; i < QUESTIONS; i++) hits += fpc_filter_contains_hash(w.filter, UINT64_MAX - i);
    double ns = (double)(fpc_clock_ns() - since) / QUESTIONS;
    *changes = 0;
    if (setting > 0) {
        atomic_store(&w.stop, 1);
        pthread_join(thread, NULL);
        *changes = (double)w.changes / w.seconds / 1e6;
    }
    fpc_filter_delete(w.filter);
    if (hits > QUESTIONS / 100) exit(1);
    return ns;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    double ns[SETTINGS][ROUNDS], changes[SETTINGS][ROUNDS];
    FILE *json = argc == 2 ? fopen(argv[1], "w") : NULL;
    if (json == NULL) {
        fprintf(stderr, "usage: filter_readers RESULT.json\n");
        return 2;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int s = 0; s < SETTINGS; s++) ns[s][round] = ask(s, &changes[s][round]);
    }
    fprintf(json, "[");
    for (int s = 0; s < SETTINGS; s++) {
        qsort(ns[s], ROUNDS, sizeof *ns[s], by_value);
        qsort(changes[s], ROUNDS, sizeof *changes[s], by_value);
        printf("one reader, %-20s %6.1f ns a question, %5.1f M changes/s\n", NAMES[s], ns[s][ROUNDS / 2],
               changes[s][ROUNDS / 2]);
        fprintf(json, "%s\n    {\"setting\": \"%s\", \"ns_per_question\": %.1f, \"changes_M_per_s\": %.1f}",
                s > 0 ? "," : "", NAMES[s], ns[s][ROUNDS / 2], changes[s][ROUNDS / 2]);
    }
    fprintf(json, "\n]\n");
    return fclose(json) == 0 ? 0 : 1;
}
