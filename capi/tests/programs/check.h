// For the programs of these tests: CHECK(condition), on any allocator.
#ifndef CHECK_H
#define CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <malloc.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            static const char text[] = "failed: " __FILE__ ": " #condition "\n"; \
            ssize_t ignored = write(2, text, sizeof text - 1);                  \
            (void)ignored;                                                      \
            abort();                                                            \
        }                                                                       \
    } while (0)

// Null on other allocators: for what glibc of some version does otherwise, said where it is asked.
#ifndef __cplusplus
size_t nallocx(size_t, int) __attribute__((weak));
#endif

// What the compiler may not see through.
static inline void *hide(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

static inline size_t hide_size(size_t n) {
    __asm__ volatile("" : "+r"(n));
    return n;
}
#endif
