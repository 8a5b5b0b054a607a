/* What the programs share: a seeded generator, so that every run does the same work. */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t state;
} rng;

static inline uint64_t next(rng *r) {
    uint64_t x = r->state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    r->state = x;
    return x * 0x2545F4914F6CDD1DULL;
}

/* Less than bound. */
static inline uint32_t below(rng *r, uint32_t bound) {
    return (uint32_t)(((next(r) >> 32) * bound) >> 32);
}

/* Sizes as programs ask for them: most of them small, a few large. */
static inline size_t usual_size(rng *r, uint32_t top_bits) {
    uint32_t bits = 4 + below(r, top_bits - 3);
    return (1u << (bits - 1)) + below(r, 1u << (bits - 1)) + 1;
}

static inline void *must(void *p) {
    if (!p) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return p;
}

#endif
