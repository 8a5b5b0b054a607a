#include "../check.h"
int main(void) {
    char *warm = malloc(10000);
    CHECK(warm);
    struct mallinfo2 before = mallinfo2();
    char *p = malloc(hide_size(20000));
    CHECK(p);
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + 20000 && after.uordblks < before.uordblks + 40000);
    CHECK(after.arena > 0);
    free(p);
    CHECK(mallinfo2().uordblks <= before.uordblks);
    free(warm);
    // More than an int can say.
    size_t mapped = mallinfo2().hblkhd, blocks = mallinfo2().hblks;
    char *huge = malloc(hide_size((size_t)5 << 30));
    CHECK(huge);
    CHECK(mallinfo2().hblkhd >= mapped + ((size_t)5 << 30) && mallinfo2().hblks == blocks + 1);
    free(hide(huge));
    CHECK(mallinfo2().hblkhd == mapped && mallinfo2().hblks == blocks);
    return 0;
}
