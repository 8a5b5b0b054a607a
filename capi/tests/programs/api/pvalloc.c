#include "../check.h"
int main(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t size = 1; size < 100000; size = size * 2 + 1) {
        char *p = pvalloc(hide_size(size));
        CHECK(p && (uintptr_t)p % page == 0);
        // Whole pages.
        CHECK(malloc_usable_size(p) >= (size + page - 1) / page * page);
        free(p);
    }
    errno = 0;
    CHECK(pvalloc(hide_size(-1)) == NULL && errno == ENOMEM);
    return 0;
}
