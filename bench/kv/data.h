/* data.h -- what the C sides of the bench store and ask for: the same as data.lua. */
#ifndef BENCH_DATA_H
#define BENCH_DATA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAMESPACE  "bench"
#define ROWS       100000
#define FIRST_KEY  10000000
#define KEY_LENGTH 8
#define VALUE_SIZE 100
#define TTL_S      3600.0
#define WARM_UP    1000
#define LIST       1000
#define LISTS      20
#define SCATTER    38197 /* no common divisor with ROWS */

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void fill_value(char value[VALUE_SIZE]) {
    memset(value, 'x', VALUE_SIZE);
}

/* The key of row `i`: KEY_LENGTH digits and no NUL. */
static inline void write_key(char *to, int i) {
    for (int place = KEY_LENGTH - 1, rest = FIRST_KEY + i; place >= 0; place--, rest /= 10) {
        to[place] = (char)('0' + rest % 10);
    }
}

/* The key that arrives as number `i` in a bulk load: each key once, in no order. */
static inline void write_scattered_key(char *to, int i) {
    write_key(to, (int)((int64_t)i * SCATTER % ROWS));
}

/* `count` random keys of KEY_LENGTH bytes one after the other; free(3) them. */
static inline char *random_keys(int count, int seed) {
    char *keys = malloc((size_t)count * KEY_LENGTH);
    uint64_t state = (uint64_t)seed * 7919;
    for (int i = 0; i < count; i++) {
        state = state * 16807 % 2147483647;
        write_key(keys + (size_t)i * KEY_LENGTH, (int)(state % ROWS));
    }
    return keys;
}

#endif
