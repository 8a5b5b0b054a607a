// A thread that has been cancelled and comes by no place of its own for it goes on allocating: no allocation may be
// such a place, whatever files it writes.
#include "../check.h"
#include <pthread.h>
#include <time.h>

static volatile int reached;

static long milliseconds(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *work(void *arg) {
    (void)arg;
    CHECK(pthread_cancel(pthread_self()) == 0);
    void *p[100];
    // Enough calls for several pieces of a file, and time for several that are written now and then.
    long begun = milliseconds();
    for (int turn = 0; turn < 500 || milliseconds() < begun + 200; turn++) {
        for (int i = 0; i < 100; i++)
            CHECK((p[i] = malloc(1 + (size_t)(turn * 100 + i) % 3000)) != NULL);
        for (int i = 0; i < 100; i++)
            CHECK((p[i] = realloc(p[i], 100 + (size_t)i)) != NULL);
        for (int i = 0; i < 100; i++)
            free(p[i]);
    }
    reached++;
    pthread_testcancel();
    return NULL;
}

int main(void) {
    for (int i = 1; i <= 4; i++) {
        pthread_t thread;
        void *end;
        CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
        CHECK(pthread_join(thread, &end) == 0);
        CHECK(reached == i);
        CHECK(end == PTHREAD_CANCELED);
    }
    return 0;
}
