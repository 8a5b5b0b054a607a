#include "../check.h"
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
int main(void) {
    char *warm = malloc(10000);
    CHECK(warm);
    struct mallinfo before = mallinfo();
    char *p = malloc(hide_size(20000));
    CHECK(p);
    struct mallinfo after = mallinfo();
    CHECK(after.uordblks >= before.uordblks + 20000 && after.uordblks < before.uordblks + 40000);
    CHECK(after.arena > 0);
    free(p);
    CHECK(mallinfo().uordblks <= before.uordblks);
    free(warm);
    return 0;
}
