#include "../check.h"
static void fill(unsigned char *p, size_t size) {
    for (size_t i = 0; i < size; i++)
        p[i] = (unsigned char)(i * 7 + i / 251);
}
static void look(unsigned char *p, size_t size) {
    for (size_t i = 0; i < size; i++)
        CHECK(p[i] == (unsigned char)(i * 7 + i / 251));
}
int main(void) {
    // Null allocates; 0 frees and answers null, without an error.
    unsigned char *p = realloc(NULL, hide_size(50));
    CHECK(p);
    errno = EDOM;
    CHECK(realloc(hide(p), hide_size(0)) == NULL && errno == EDOM);
    CHECK((p = realloc(NULL, hide_size(0))) != NULL);
    free(p);
    // From every size to every other, the contents stay.
    size_t sizes[] = {1, 8, 9, 24, 100, 1000, 5000, 32768, 32769, 100000, 300000, 2 << 20, 5 << 20, 140 << 20, 300 << 20};
    enum { N = sizeof sizes / sizeof *sizes };
    for (int from = 0; from < N; from++)
        for (int to = 0; to < N; to++) {
            size_t least = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            size_t seen = least < 300000 ? least : 300000;
            CHECK((p = malloc(hide_size(sizes[from]))) != NULL);
            fill(p, seen);
            errno = EDOM;
            CHECK((p = realloc(hide(p), hide_size(sizes[to]))) != NULL && errno == EDOM);
            CHECK((uintptr_t)p % (sizes[to] >= 16 ? 16 : sizes[to] >= 8 ? 8 : 1) == 0);
            look(p, seen);
            p[sizes[to] - 1] = 1;
            free(p);
        }
    // A little at a time.
    p = NULL;
    for (size_t size = 1; size < 3000000; size += size / 100 + 1) {
        CHECK((p = realloc(p, hide_size(size))) != NULL);
        fill(p, size < 5000 ? size : 5000);
    }
    look(p, 5000);
    // What cannot be done leaves the block as it was.
    size_t most[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX, (size_t)1 << 50};
    for (int i = 0; i < 4; i++) {
        errno = 0;
        CHECK(realloc(hide(p), hide_size(most[i])) == NULL && errno == ENOMEM);
        look(p, 5000);
    }
    free(p);
    return 0;
}
