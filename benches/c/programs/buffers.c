/* Buffers of 4 KiB to 1 MiB, as for files, pictures and network: a few hundred at a time, written at
   both ends and in the middle. */
#include "common.h"

enum { LIVE = 256 };

int main(void) {
    rng r = {19};
    unsigned char *buffers[LIVE] = {0};
    uint64_t sum = 0;
    for (int i = 0; i < 400000; i++) {
        int slot = below(&r, LIVE);
        size_t size = (size_t)4096 << below(&r, 8);
        size += below(&r, (uint32_t)size);
        if (buffers[slot]) sum += buffers[slot][0];
        free(buffers[slot]);
        buffers[slot] = i % 16 ? must(malloc(size)) : must(calloc(1, size));
        buffers[slot][0] = (unsigned char)i;
        buffers[slot][size / 2] = 1;
        buffers[slot][size - 1] = 2;
    }
    for (int i = 0; i < LIVE; i++) free(buffers[i]);
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
