#include "../check.h"
#include "../../../include/spandrel.h"
int main(void) {
    free_aligned_sized(NULL, 8, 0);
    for (size_t align = 8; align <= 4 << 20; align *= 2)
        for (size_t size = align; size < 1 << 20; size *= 3) {
            void *p = aligned_alloc(align, hide_size(size));
            CHECK(p);
            free_aligned_sized(p, align, size);
        }
    return 0;
}
