#include "../check.h"
#include "../../../include/spandrel.h"
int main(void) {
    cfree(NULL);
    for (size_t size = 0; size < 1 << 20; size += size / 5 + 1) {
        void *p = malloc(hide_size(size));
        CHECK(p);
        cfree(p);
    }
    return 0;
}
