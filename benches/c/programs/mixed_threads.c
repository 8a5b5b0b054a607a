/* Threads that replace objects of mixed sizes in a table they all share: about every second free is of
   another thread's object. The argument is the number of threads. */
#include "common.h"
#include <pthread.h>
#include <stdatomic.h>

enum { SLOTS = 1 << 15, STEPS = 8000000 };

static _Atomic(unsigned char *) slots[SLOTS];
static int threads;

static void *work(void *argument) {
    rng r = {(uint64_t)(uintptr_t)argument * 977 + 1};
    for (int i = 0; i < STEPS / threads; i++) {
        size_t size = usual_size(&r, i % 64 ? 10 : 14);
        unsigned char *object = must(malloc(size));
        object[0] = 1;
        object[size / 2] = 2;
        free(atomic_exchange_explicit(&slots[below(&r, SLOTS)], object, memory_order_acq_rel));
    }
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t ids[16];
    threads = argc > 1 ? atoi(argv[1]) : 2;
    if (threads < 1 || threads > 16) return 2;
    for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, work, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
    int used = 0;
    for (int i = 0; i < SLOTS; i++) {
        used += slots[i] != NULL;
        free(slots[i]);
    }
    printf("%d\n", used);
    return 0;
}
