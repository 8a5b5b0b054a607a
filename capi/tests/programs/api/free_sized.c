#include "../check.h"
#include "../../../include/spandrel.h"
int main(void) {
    free_sized(NULL, 0);
    for (size_t size = 0; size < 200 << 20; size += size / 5 + 1) {
        void *p = malloc(hide_size(size));
        CHECK(p);
        errno = EDOM;
        free_sized(p, size);
        CHECK(errno == EDOM);
        CHECK((p = calloc(hide_size(size), 1)) != NULL);
        free_sized(p, size);
    }
    return 0;
}
