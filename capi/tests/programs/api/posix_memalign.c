#include "../check.h"
int main(void) {
    for (size_t align = sizeof(void *); align <= (size_t)1 << 30; align *= 2)
        for (size_t size = 0; size < 200000; size = size * 3 + 1) {
            void *p = NULL;
            errno = EDOM;
            CHECK(posix_memalign(&p, align, hide_size(size)) == 0 && p && errno == EDOM);
            CHECK((uintptr_t)p % align == 0);
            memset(p, 1, size);
            CHECK(malloc_usable_size(p) >= size);
            free(p);
        }
    // The error is the answer; the pointer stays, and errno (but glibc sets it to ENOMEM).
    void *p = &p;
    size_t wrong[] = {0, 1, 4, 24, 48, 1000, SIZE_MAX};
    errno = EDOM;
    for (int i = 0; i < 7; i++)
        CHECK(posix_memalign(&p, hide_size(wrong[i]), 10) == EINVAL && p == &p && errno == EDOM);
    CHECK(posix_memalign(&p, 64, hide_size(SIZE_MAX)) == ENOMEM && p == &p && (errno == EDOM || !nallocx));
    errno = EDOM;
    CHECK(posix_memalign(&p, 64, hide_size(PTRDIFF_MAX)) == ENOMEM && p == &p && (errno == EDOM || !nallocx));
    errno = EDOM;
    CHECK(posix_memalign(&p, (size_t)1 << 62, hide_size(1)) == ENOMEM && p == &p && (errno == EDOM || !nallocx));
    errno = EDOM;
    return 0;
}
