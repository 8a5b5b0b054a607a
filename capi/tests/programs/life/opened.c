// A library opened late: in threads that were there before, and in new ones. The process's own malloc
// stays what it was.
#include "../check.h"
#include <dlfcn.h>
#include <pthread.h>
static pthread_barrier_t barrier;
static void *(*their_malloc)(size_t);
static void (*their_free)(void *);
static void *work(void *arg) {
    if (arg) {
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
    }
    static __thread void *p[2000];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2000; i++)
            CHECK((p[i] = their_malloc((size_t)i)) != NULL);
        for (int i = 0; i < 2000; i++)
            their_free(p[i]);
    }
    return NULL;
}
int main(int argc, char **argv) {
    CHECK(argc == 2);
    pthread_t before[4], after[4];
    CHECK(pthread_barrier_init(&barrier, NULL, 5) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&before[i], NULL, work, &barrier) == 0);
    pthread_barrier_wait(&barrier);
    void *library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(library);
    their_malloc = (void *(*)(size_t))dlsym(library, "malloc");
    their_free = (void (*)(void *))dlsym(library, "free");
    CHECK(their_malloc && their_free && their_malloc != malloc);
    pthread_barrier_wait(&barrier);
    work(NULL);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&after[i], NULL, work, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(before[i], NULL) == 0 && pthread_join(after[i], NULL) == 0);
    return 0;
}
