#include "../check.h"
#include "../../../include/spandrel.h"
int main(void) {
    for (size_t size = 1; size < 10 << 20; size += size / 7 + 1) {
        void *p = malloc(hide_size(size));
        CHECK(p);
        sdallocx(p, size, 0);
        CHECK((p = malloc(hide_size(size))) != NULL);
        sdallocx(p, nallocx(size, 0), 0);
        CHECK(posix_memalign(&p, 64, size) == 0);
        sdallocx(p, size, 6);
    }
    return 0;
}
