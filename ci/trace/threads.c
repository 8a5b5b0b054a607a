/* Four threads hand blocks on to each other: what one allocates another frees, and some resizes. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 200, BLOCKS = 100 };
static void *_Atomic box[THREADS][BLOCKS];

static void *work(void *at) {
    long me = (long)at, next = (me + 1) % THREADS;
    unsigned seed = 17 * me + 1;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            seed = seed * 1103515245 + 12345;
            size_t size = 1 + (seed >> 16) % (i == 7 ? 200000 : 900);
            char *block = i % 16 ? malloc(size) : aligned_alloc(64, (size + 63) / 64 * 64);
            memset(block, 1, size);
            if (i % 10 == 3) block = realloc(block, size * 2);
            /* The neighbour's box; what was there is mine to free. */
            free(__atomic_exchange_n(&box[next][i], block, __ATOMIC_ACQ_REL));
        }
    }
    return 0;
}

int main(void) {
    pthread_t threads[THREADS];
    for (long i = 0; i < THREADS; i++) pthread_create(&threads[i], 0, work, (void *)i);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    for (int i = 0; i < THREADS; i++)
        for (int j = 0; j < BLOCKS; j++) free(box[i][j]);
    return 0;
}
