// Which of many blocks are guarded: those that do not lie where most do. Prints their numbers.
#include "../check.h"
#include <stdlib.h>

enum { BLOCKS = 20000 };
static uintptr_t blocks[BLOCKS];

int main(void) {
    uintptr_t heap = 0;
    int votes = 0;
    for (int i = 0; i < BLOCKS; i++) {
        CHECK(blocks[i] = (uintptr_t)malloc(100));
        if (!votes)
            heap = blocks[i] >> 30;
        votes += blocks[i] >> 30 == heap ? 1 : -1;
    }
    for (int i = 0; i < BLOCKS; i++)
        if (blocks[i] >> 30 != heap)
            printf("%d\n", i);
    return 0;
}
