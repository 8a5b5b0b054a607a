#include "../check.h"
int main(void) {
    int known[][2] = {{M_MXFAST, 64}, {M_TRIM_THRESHOLD, 1 << 20}, {M_TOP_PAD, 1 << 16}, {M_MMAP_THRESHOLD, 1 << 20}, {M_MMAP_MAX, 100}, {M_CHECK_ACTION, 3}, {M_PERTURB, 0}, {M_ARENA_TEST, 2}, {M_ARENA_MAX, 2}};
    for (int i = 0; i < 9; i++)
        CHECK(mallopt(known[i][0], known[i][1]) == 1);
    void *p = malloc(100);
    CHECK(p);
    free(p);
    return 0;
}
