#include <stdlib.h>
#include <pthread.h>
static void *shared;
__attribute__((noinline)) static void drop(void *at) { free(at); }
static void *other(void *at) { drop(at); return 0; }
int main(void) {
    void *keep[100];
    for (int i = 0; i < 100; i++) keep[i] = malloc(10 + i);
    for (int i = 0; i < 100; i += 2) free(keep[i]);
    keep[1] = realloc(keep[1], 5000);
    shared = malloc(48);
    pthread_t t;
    pthread_create(&t, 0, other, shared);
    pthread_join(t, 0);
    drop(shared);
    return 0;
}
