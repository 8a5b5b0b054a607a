#include "../check.h"
int main(void) {
    for (size_t align = 1; align <= 1 << 20; align += align / 3 + 1) {
        // Rounded up to a power of two.
        size_t power = 1;
        while (power < align)
            power *= 2;
        char *p = memalign(hide_size(align), hide_size(100));
        CHECK(p && (uintptr_t)p % power == 0);
        memset(p, 1, 100);
        free(p);
    }
    char *p = memalign(0, 10);
    CHECK(p);
    free(p);
    errno = 0;
    CHECK(memalign(64, hide_size(-1)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(memalign(hide_size(-1), hide_size(8)) == NULL && (errno == ENOMEM || errno == EINVAL));
    return 0;
}
