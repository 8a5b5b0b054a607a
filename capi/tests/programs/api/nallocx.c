#include "../check.h"
int main(void) {
    CHECK(nallocx(0, 0) == 0 && nallocx(SIZE_MAX, 0) == 0 && nallocx((size_t)PTRDIFF_MAX + 1, 0) == 0);
    for (size_t size = 1; size < 300 << 20; size += size / 7 + 1) {
        void *p = malloc(hide_size(size));
        CHECK(p && nallocx(size, 0) == malloc_usable_size(hide(p)));
        free(p);
        for (int lg = 0; lg < 22; lg++) {
            CHECK(posix_memalign(&p, lg < 3 ? 8 : (size_t)1 << lg, size) == 0);
            CHECK(nallocx(size, lg < 3 ? 3 : lg) == malloc_usable_size(hide(p)));
            free(p);
        }
    }
    return 0;
}
