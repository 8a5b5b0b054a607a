// Threads that are cancelled (deferred, as threads that allocate must be), detached, or simply end, all with
// full caches: as many as the argument says. Memory stays where it is.
#include "../check.h"
#include <pthread.h>
#include <semaphore.h>

enum { AT_A_TIME = 8 };
static sem_t ended;

static void cleanup(void *block) {
    free(block);
    sem_post(&ended);
}

static void *life(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg;
    char *mine = malloc(1000);
    CHECK(mine);
    pthread_cleanup_push(cleanup, mine);
    void *p[150];
    // A cancelled one goes on until it is, and not for ever.
    int turns = seed % 3 == 0 ? 100000 : 2;
    for (int turn = 0; turn < turns; turn++) {
        for (int i = 0; i < 150; i++)
            CHECK((p[i] = malloc(1 + (size_t)rand_r(&seed) % 2500)) != NULL);
        for (int i = 0; i < 150; i++)
            free(p[i]);
        pthread_testcancel();
    }
    pthread_cleanup_pop(1);
    return NULL;
}

static size_t resident(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    size_t all, pages;
    CHECK(file && fscanf(file, "%zu %zu", &all, &pages) == 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

int main(int argc, char **argv) {
    uintptr_t many = argc > 1 ? (uintptr_t)atol(argv[1]) : 3000;
    CHECK(sem_init(&ended, 0, 0) == 0);
    size_t early = 0, live = 0, cancelled = 0;
    for (uintptr_t i = 0; i < many; i += AT_A_TIME) {
        pthread_t threads[AT_A_TIME];
        for (uintptr_t t = 0; t < AT_A_TIME; t++)
            CHECK(pthread_create(&threads[t], NULL, life, (void *)(i + t)) == 0);
        for (uintptr_t t = 0; t < AT_A_TIME; t++) {
            void *end;
            if ((i + t) % 3 == 0) {
                CHECK(pthread_cancel(threads[t]) == 0);
                CHECK(pthread_join(threads[t], &end) == 0 && (end == PTHREAD_CANCELED || end == NULL));
                cancelled += end == PTHREAD_CANCELED;
            } else if ((i + t) % 3 == 1)
                CHECK(pthread_detach(threads[t]) == 0);
            else
                CHECK(pthread_join(threads[t], NULL) == 0);
        }
        // One that was cancelled before it began has no cleanup to run.
        while (sem_trywait(&ended) == 0)
            ;
        if (i == AT_A_TIME * 40) {
            early = resident();
            live = mallinfo2().uordblks;
        }
    }
    CHECK(cancelled > many / 6);
    // The last detached ones.
    usleep(200000);
    size_t late = resident(), now = mallinfo2().uordblks;
    if (late > early + (16 << 20) || (nallocx && now > live + (1 << 20))) {
        fprintf(stderr, "%zu KiB resident after 320 threads, %zu after %zu; %zu KiB live, %zu\n", early >> 10,
                late >> 10, (size_t)many, live >> 10, now >> 10);
        return 1;
    }
    return 0;
}
