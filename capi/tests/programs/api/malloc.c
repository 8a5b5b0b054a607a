#include "../check.h"
int main(void) {
    // Every size has its own block; 0 too. 16 bytes and more suit every type, less suits what fits.
    for (size_t size = 0; size < 70000; size += size < 300 ? 1 : size / 37) {
        char *p = malloc(hide_size(size)), *q = malloc(hide_size(size));
        CHECK(p && q && p != q);
        CHECK((uintptr_t)p % (size >= 16 ? 16 : size >= 8 ? 8 : 1) == 0);
        memset(p, 1, size);
        memset(q, 2, size);
        CHECK(size == 0 || (p[0] == 1 && p[size - 1] == 1));
        free(p);
        free(q);
    }
    size_t large[] = {100000, 1 << 20, 3 << 20, 100 << 20, 200 << 20, (size_t)5 << 30};
    for (int i = 0; i < 6; i++) {
        char *p = malloc(hide_size(large[i]));
        CHECK(p && (uintptr_t)p % 16 == 0);
        p[0] = p[large[i] - 1] = 1;
        free(p);
    }
    // More than a pointer difference can say, and more than there is.
    size_t most[] = {SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, (size_t)1 << 50};
    for (int i = 0; i < 5; i++) {
        errno = 0;
        CHECK(malloc(hide_size(most[i])) == NULL && errno == ENOMEM);
    }
    // Success leaves errno.
    errno = EDOM;
    void *p = malloc(hide_size(100));
    CHECK(p && errno == EDOM);
    free(p);
    return 0;
}
