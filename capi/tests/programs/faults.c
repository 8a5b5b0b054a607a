// One misuse each: says which address is to blame, commits it, and must not come back.
#include "check.h"
#include <sys/mman.h>
static void *blame(void *at) {
    printf("blame %p\n", at);
    fflush(stdout);
    return hide(at);
}
// An object with neighbours.
static char *object(size_t size) {
    static void *volatile kept[3];
    for (int i = 0; i < 3; i++)
        CHECK((kept[i] = malloc(hide_size(size))) != NULL);
    return kept[1];
}
static char static_[64];
int main(int argc, char **argv) {
    CHECK(argc == 2);
    char local[64];
    char *small = object(100), *large = object(100000), *huge = object((size_t)200 << 20);
    char *foreign = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#define FAULT(name, ...)                   \
    if (strcmp(argv[1], #name) == 0) {     \
        __VA_ARGS__;                       \
        return 0;                          \
    }
    FAULT(twice_in_a_row, blame(small); free(hide(small)); free(hide(small)))
    // The first free fills the bin of a thread's first objects: the second finds it full.
    FAULT(twice_in_a_row_full, void *first = malloc(3000); blame(first); free(hide(first)); free(hide(first)))
    FAULT(twice_in_a_row_large, blame(large); free(hide(large)); free(hide(large)))
    FAULT(twice_in_a_row_huge, blame(huge); free(hide(huge)); free(hide(huge)))
    FAULT(twice_by_realloc, blame(small); CHECK(!realloc(hide(small), 0)); free(hide(small)))
    FAULT(twice_with_a_trim, blame(small); free(hide(small)); malloc_trim(0); free(hide(small)); malloc_trim(0))
    FAULT(stack, free(blame(local)))
    FAULT(static_data, free(blame(static_)))
    FAULT(code, free(blame((void *)(uintptr_t)main)))
    FAULT(foreign_mapping, free(blame(foreign)))
    FAULT(small_number, free(blame((void *)42)))
    FAULT(not_canonical, free(blame((void *)0xdeadbeefdeadbeef)))
    FAULT(kernel, free(blame((void *)0xffffffff81000000)))
    FAULT(interior, free(blame(small + 16)))
    FAULT(unaligned, free(blame(small + 1)))
    FAULT(interior_large, free(blame(large + 4096)))
    FAULT(interior_large_granule, free(blame(large + 32768)))
    FAULT(interior_huge, free(blame(huge + 4096)))
    FAULT(interior_huge_far, free(blame(huge + ((size_t)150 << 20))))
    FAULT(realloc_stack, CHECK(realloc(blame(local), 100)))
    FAULT(realloc_interior, CHECK(realloc(blame(small + 16), 100)))
    FAULT(realloc_freed, free(small); CHECK(realloc(blame(small), 101)))
    FAULT(realloc_freed_large, free(large); CHECK(realloc(blame(large), 100)))
    FAULT(size_of_static, CHECK(malloc_usable_size(blame(static_))))
    FAULT(size_of_interior, CHECK(malloc_usable_size(blame(small + 8))))
    FAULT(none, free(small); free(large); free(huge); munmap(foreign, 1 << 20); free(NULL))
    fprintf(stderr, "no such fault\n");
    return 2;
}
