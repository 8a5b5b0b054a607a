#include "../check.h"
int main(void) {
    CHECK(malloc_usable_size(NULL) == 0);
    for (size_t size = 0; size < 300 << 20; size += size / 5 + 1) {
        char *p = malloc(hide_size(size));
        CHECK(p);
        size_t usable = malloc_usable_size(hide(p));
        CHECK(usable >= size);
        // Every byte is the program's: a neighbour does not notice, and a copy takes them along.
        char *q = malloc(hide_size(size));
        CHECK(q);
        if (usable < 1 << 20) {
            memset(p, 1, usable);
            memset(q, 2, malloc_usable_size(hide(q)));
            for (size_t i = 0; i < usable; i++)
                CHECK(p[i] == 1);
            CHECK((p = realloc(hide(p), hide_size(usable + 1000))) != NULL && p[0] == 1);
            CHECK(usable == 0 || p[usable - 1] == 1);
        }
        free(p);
        free(q);
    }
    return 0;
}
