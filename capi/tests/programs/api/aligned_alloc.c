#include "../check.h"
int main(void) {
    for (size_t align = 1; align <= 4 << 20; align *= 2)
        for (size_t size = align; size < 300000; size *= 3) {
            char *p = aligned_alloc(align, hide_size(size));
            CHECK(p && (uintptr_t)p % align == 0);
            memset(p, 1, size);
            p = realloc(hide(p), hide_size(size * 2));
            CHECK(p && p[size - 1] == 1);
            free(p);
        }
    errno = 0;
    CHECK(aligned_alloc(64, hide_size(SIZE_MAX - 63)) == NULL && errno == ENOMEM);
    return 0;
}
