// A new thread whose first call comes while the system gives nothing: null and ENOMEM, or what is left.
#include "../check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
static pthread_barrier_t barrier;
static void *work(void *arg) {
    (void)arg;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    // No more than what little is left, and every refusal has its reason.
    static void *got[1 << 16];
    int count = 0;
    while (count < 1 << 16) {
        errno = 0;
        if ((got[count] = malloc(5000)) == NULL)
            break;
        count++;
    }
    CHECK(count < 1 << 16 && errno == ENOMEM);
    errno = 0;
    CHECK(malloc(300 << 20) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(calloc(1, 50 << 20) == NULL && errno == ENOMEM);
    void *p;
    CHECK(posix_memalign(&p, 4096, 50 << 20) == ENOMEM);
    while (count > 0)
        free(got[--count]);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    CHECK((p = malloc(100)) != NULL);
    free(p);
    CHECK((p = malloc(10 << 20)) != NULL);
    free(p);
    return NULL;
}
int main(void) {
    pthread_t thread;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    CHECK(pthread_create(&thread, NULL, work, NULL) == 0);
    pthread_barrier_wait(&barrier);
    struct rlimit old, none;
    CHECK(getrlimit(RLIMIT_AS, &old) == 0);
    none = old;
    none.rlim_cur = 1 << 20;
    CHECK(setrlimit(RLIMIT_AS, &none) == 0);
    // Everything that was mapped already.
    static void *big[1 << 14];
    int count = 0;
    while (count < 1 << 14 && (big[count] = malloc(1 << 20)) != NULL)
        count++;
    CHECK(count < 1 << 14);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    while (count > 0)
        free(big[--count]);
    CHECK(setrlimit(RLIMIT_AS, &old) == 0);
    pthread_barrier_wait(&barrier);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}
