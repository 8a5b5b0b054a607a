/* Loops of malloc and free for ci/instructions_c.sh, which counts their instructions. The first
 * argument picks the loop, the second says how often. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned long long state = 88172645463325252ull;
static size_t below(size_t n) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (size_t)(state >> 33) % n;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    long count = atol(argv[2]);
    if (strcmp(argv[1], "same") == 0) {
        /* One object of 64 bytes. */
        for (long i = 0; i < count; i++) {
            void *p = malloc(64);
            __asm__ volatile("" : "+r"(p) : : "memory");
            free(p);
        }
    } else if (strcmp(argv[1], "random") == 0) {
        /* One object of 8 to 1024 bytes. */
        for (long i = 0; i < count; i++) {
            void *p = malloc(8 + below(1017));
            __asm__ volatile("" : "+r"(p) : : "memory");
            free(p);
        }
    } else if (strcmp(argv[1], "lifo") == 0) {
        /* 100 objects of 64 bytes, the youngest first; count pairs. */
        static void *p[100];
        for (long i = 0; i < count / 100; i++) {
            for (int k = 0; k < 100; k++)
                p[k] = malloc(64);
            __asm__ volatile("" : : : "memory");
            for (int k = 99; k >= 0; k--)
                free(p[k]);
        }
    } else if (strcmp(argv[1], "fifo") == 0) {
        /* 1000 objects of 8 to 1024 bytes, the oldest first. */
        static void *p[1000];
        for (long i = 0; i < count; i++) {
            free(p[i % 1000]);
            p[i % 1000] = malloc(8 + below(1017));
        }
    } else {
        return 2;
    }
    return 0;
}
