/* Many small objects, born in order, freed in shuffled order, in waves. */
#include "common.h"

enum { OBJECTS = 400000 };

int main(void) {
    rng r = {3};
    unsigned char **objects = must(malloc(OBJECTS * sizeof *objects));
    uint64_t sum = 0;
    for (int wave = 0; wave < 8; wave++) {
        for (int i = 0; i < OBJECTS; i++) {
            size_t size = 16 + 16 * below(&r, wave + 2);
            objects[i] = must(malloc(size));
            objects[i][0] = (unsigned char)i;
        }
        for (int i = OBJECTS - 1; i > 0; i--) {
            int j = below(&r, i + 1);
            unsigned char *swap = objects[i];
            objects[i] = objects[j];
            objects[j] = swap;
        }
        for (int i = 0; i < OBJECTS; i++) {
            sum += objects[i][0];
            free(objects[i]);
        }
    }
    printf("%llu\n", (unsigned long long)sum);
    free(objects);
    return 0;
}
