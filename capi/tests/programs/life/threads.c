// Threads that come and go: memory stays where it is. In each round of key destructors, in a C++-style
// thread-local destructor, and in those only: a thread's very first call may be its last.
#include "../check.h"
#include <pthread.h>
enum { ROUNDS = 4 };
static pthread_key_t key, late;
static void work(void) {
    for (size_t size = 1; size < 50000; size += size / 3 + 1) {
        char *p = malloc(size);
        CHECK(p);
        memset(p, 1, size);
        CHECK((p = realloc(hide(p), size * 2)) != NULL);
        free(p);
    }
}
static void round_(void *value) {
    uintptr_t left = (uintptr_t)value;
    work();
    if (left > 1)
        CHECK(pthread_setspecific(key, (void *)(left - 1)) == 0);
}
static void last(void *value) {
    // Nothing is allocated before the last round.
    uintptr_t left = (uintptr_t)value;
    if (left > 1)
        CHECK(pthread_setspecific(late, (void *)(left - 1)) == 0);
    else
        work();
}
int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
extern void *__dso_handle;
static void local(void *block) {
    free(block);
    work();
}
static void *life(void *arg) {
    uintptr_t which = (uintptr_t)arg;
    if (which % 3 == 0) {
        CHECK(pthread_setspecific(late, (void *)(uintptr_t)ROUNDS) == 0);
        return NULL;
    }
    CHECK(pthread_setspecific(key, (void *)(uintptr_t)ROUNDS) == 0);
    if (which % 3 == 1)
        CHECK(__cxa_thread_atexit_impl(local, malloc(300), &__dso_handle) == 0);
    work();
    return malloc(100);
}
static size_t resident(void) {
    FILE *file = fopen("/proc/self/statm", "r");
    size_t all, pages;
    CHECK(file && fscanf(file, "%zu %zu", &all, &pages) == 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}
int main(void) {
    CHECK(pthread_key_create(&key, round_) == 0 && pthread_key_create(&late, last) == 0);
    size_t early = 0;
    for (uintptr_t i = 0; i < 3000; i++) {
        pthread_t thread;
        void *left;
        CHECK(pthread_create(&thread, NULL, life, (void *)i) == 0);
        CHECK(pthread_join(thread, &left) == 0);
        free(left);
        if (i == 300)
            early = resident();
    }
    size_t late_ = resident();
    if (late_ > early + (4 << 20)) {
        fprintf(stderr, "%zu KiB resident after 300 threads, %zu after 3000\n", early >> 10, late_ >> 10);
        return 1;
    }
    return 0;
}
