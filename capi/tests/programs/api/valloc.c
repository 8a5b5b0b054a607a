#include "../check.h"
int main(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t size = 0; size < 100000; size = size * 2 + 1) {
        char *p = valloc(hide_size(size));
        CHECK(p && (uintptr_t)p % page == 0);
        memset(p, 1, size);
        free(p);
    }
    errno = 0;
    CHECK(valloc(hide_size(-1)) == NULL && errno == ENOMEM);
    return 0;
}
