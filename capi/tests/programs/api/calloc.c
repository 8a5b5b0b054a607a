#include "../check.h"
int main(void) {
    for (int round = 0; round < 3; round++)
        for (size_t size = 0; size < 500000; size += size / 3 + 1) {
            // A block of that size was just used and freed.
            char *dirty = malloc(hide_size(size));
            CHECK(dirty);
            memset(dirty, 0xff, size);
            free(hide(dirty));
            char *p = calloc(1, hide_size(size));
            CHECK(p);
            for (size_t i = 0; i < size; i++)
                CHECK(p[i] == 0);
            memset(p, 0xff, size);
            free(p);
        }
    char *many = calloc(hide_size(1000), 1000);
    CHECK(many && many[999999] == 0);
    free(many);
    CHECK((many = calloc(0, 5)) != NULL);
    free(many);
    CHECK((many = calloc(5, 0)) != NULL);
    free(many);
    // The product does not fit, or is more than a pointer difference.
    size_t counts[][2] = {{SIZE_MAX, 2}, {2, SIZE_MAX}, {SIZE_MAX / 2 + 1, 2}, {(size_t)1 << 32, (size_t)1 << 32}, {PTRDIFF_MAX, 1}};
    for (int i = 0; i < 5; i++) {
        errno = 0;
        CHECK(calloc(hide_size(counts[i][0]), hide_size(counts[i][1])) == NULL && errno == ENOMEM);
    }
    return 0;
}
