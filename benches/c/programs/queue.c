/* Producers allocate messages, consumers free them: every object dies on another thread than it was
   born on. The argument is the number of threads, half of them producers. */
#include "common.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SLOTS = 1024, TOTAL = 9600000 };

/* One ring per pair: one writer, one reader. */
typedef struct {
    _Alignas(64) _Atomic size_t head;
    _Alignas(64) _Atomic size_t tail;
    _Alignas(64) unsigned char *slots[SLOTS];
    size_t messages;
    uint64_t seed, sum;
} ring;

static void *produce(void *argument) {
    ring *q = argument;
    rng r = {q->seed};
    for (size_t i = 0; i < q->messages; i++) {
        size_t size = usual_size(&r, 10);
        unsigned char *message = must(malloc(size));
        message[0] = (unsigned char)i;
        message[size - 1] = (unsigned char)i;
        while (i - atomic_load_explicit(&q->tail, memory_order_acquire) == SLOTS) sched_yield();
        q->slots[i % SLOTS] = message;
        atomic_store_explicit(&q->head, i + 1, memory_order_release);
    }
    return NULL;
}

static void *consume(void *argument) {
    ring *q = argument;
    for (size_t i = 0; i < q->messages; i++) {
        while (atomic_load_explicit(&q->head, memory_order_acquire) == i) sched_yield();
        unsigned char *message = q->slots[i % SLOTS];
        atomic_store_explicit(&q->tail, i + 1, memory_order_release);
        q->sum += message[0];
        free(message);
    }
    return NULL;
}

int main(int argc, char **argv) {
    int pairs = (argc > 1 ? atoi(argv[1]) : 2) / 2;
    ring *rings = must(aligned_alloc(64, sizeof(ring) * pairs));
    pthread_t threads[2 * 16];
    if (pairs < 1 || pairs > 16) return 2;
    memset(rings, 0, sizeof(ring) * pairs);
    for (int i = 0; i < pairs; i++) {
        rings[i].messages = TOTAL / pairs;
        rings[i].seed = 1 + i;
        pthread_create(&threads[2 * i], NULL, produce, &rings[i]);
        pthread_create(&threads[2 * i + 1], NULL, consume, &rings[i]);
    }
    uint64_t sum = 0;
    for (int i = 0; i < 2 * pairs; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < pairs; i++) sum += rings[i].sum;
    printf("%llu\n", (unsigned long long)sum);
    free(rings);
    return 0;
}
