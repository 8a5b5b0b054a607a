/* Leaves a heap full of holes, and raises SIGUSR2 for one more snapshot. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>
#include <signal.h>
static void *keep[200000];
__attribute__((noinline)) static void *grow_cache(size_t size) { return malloc(size); }

int main(void) {
    unsigned seed = 1;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 200000; i++) {
            seed = seed * 1103515245 + 12345;
            if (!keep[i] && (seed >> 16) % 3) keep[i] = grow_cache(16 + (seed >> 8) % 900);
        }
        for (int i = 0; i < 200000; i++) {
            seed = seed * 1103515245 + 12345;
            if (keep[i] && (seed >> 16) % 100 < 60) { free(keep[i]); keep[i] = 0; }
        }
        usleep(30000);
    }
    for (int i = 0; i < 200000; i++) { if (keep[i] && i % 64) { free(keep[i]); keep[i] = 0; } }
    void *volatile big = malloc(200 << 20); memset(big, 1, 1 << 20);
    void *volatile large = malloc(3 << 20); memset(large, 1, 3 << 20);
    raise(SIGUSR2);
    return 0;
}
