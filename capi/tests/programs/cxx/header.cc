// The header, in C++ and beside the system's own.
#include "check.hh"
#include "../../../include/spandrel.h"
int main() {
    void *p = malloc(100);
    CHECK(p && nallocx(100, 0) == malloc_usable_size(hide(p)));
    free_sized(p, 100);
    CHECK((p = aligned_alloc(64, 128)) != nullptr);
    free_aligned_sized(p, 64, 128);
    CHECK((p = malloc(5)) != nullptr);
    sdallocx(p, 5, 0);
    CHECK((p = malloc(5)) != nullptr);
    cfree(p);
    return 0;
}
