#include "../check.h"
int main(void) {
    int *p = reallocarray(NULL, hide_size(10), sizeof *p);
    CHECK(p);
    for (int i = 0; i < 10; i++)
        p[i] = i;
    CHECK((p = reallocarray(hide(p), hide_size(100000), sizeof *p)) != NULL);
    for (int i = 0; i < 10; i++)
        CHECK(p[i] == i);
    errno = 0;
    CHECK(reallocarray(hide(p), hide_size(SIZE_MAX / 2), sizeof *p) == NULL && errno == ENOMEM);
    CHECK(p[9] == 9);
    errno = 0;
    CHECK(reallocarray(hide(p), hide_size(PTRDIFF_MAX / 4 + 1), sizeof *p) == NULL && errno == ENOMEM);
    CHECK(reallocarray(hide(p), hide_size(0), sizeof *p) == NULL);
    return 0;
}
