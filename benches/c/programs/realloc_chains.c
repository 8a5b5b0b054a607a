/* Buffers that grow: by doubling, by a line at a time, and back to what is needed. */
#include "common.h"

enum { BUFFERS = 64 };

int main(void) {
    rng r = {7};
    uint64_t sum = 0;
    /* Text that comes in line by line, the buffer a step ahead of it. */
    for (int round = 0; round < 1200; round++) {
        char *text[BUFFERS] = {0};
        size_t length[BUFFERS] = {0};
        for (int step = 0; step < 40 * BUFFERS; step++) {
            int i = below(&r, BUFFERS);
            size_t more = 16 + below(&r, 100);
            text[i] = must(realloc(text[i], length[i] + more));
            memset(text[i] + length[i], step, more);
            length[i] += more;
        }
        for (int i = 0; i < BUFFERS; i++) {
            if (length[i]) sum += (unsigned char)text[i][length[i] - 1];
            free(text[i]);
        }
    }
    /* Vectors that double, up to some megabytes, and shrink to fit. */
    for (int round = 0; round < 120; round++) {
        uint64_t *vector[8] = {0};
        for (int i = 0; i < 8; i++) {
            size_t wanted = 1000 + below(&r, 400000), room = 0;
            for (size_t n = 0; n < wanted; n++) {
                if (n == room) {
                    room = room ? room * 2 : 4;
                    vector[i] = must(realloc(vector[i], room * sizeof **vector));
                }
                vector[i][n] = n;
            }
            vector[i] = must(realloc(vector[i], wanted * sizeof **vector));
            sum += vector[i][wanted - 1];
        }
        for (int i = 0; i < 8; i++) free(vector[i]);
    }
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
