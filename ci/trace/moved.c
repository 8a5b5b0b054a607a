/* One thread lets large blocks grow, so that their pages move; another allocates what fits where they were. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SMALL = 4 << 20, LARGE = 10 << 20, ROUNDS = 3000 };
static atomic_int over;

static void *takes(void *none) {
    while (!over) {
        char *block = malloc(SMALL);
        *(volatile char *)block = 1;
        free(block);
    }
    return none;
}

int main(void) {
    pthread_t other;
    pthread_create(&other, 0, takes, 0);
    for (int i = 0; i < ROUNDS; i++) {
        char *block = malloc(SMALL);
        *(volatile char *)block = 2;
        /* Behind it, so that it cannot grow where it is. */
        char *wall = malloc(SMALL);
        *(volatile char *)wall = 3;
        block = realloc(block, LARGE);
        if (!block || *(volatile char *)block != 2) return 1;
        free(block);
        free(wall);
    }
    over = 1;
    pthread_join(other, 0);
    return 0;
}
