// Under SPANDREL=limit=64MiB: what would go above it is null with ENOMEM, what is held stays, and what is freed can be
// had again.
#include "../check.h"

enum { MOST = 64 << 20 };

static size_t fill(void **blocks, size_t count, size_t size) {
    size_t got = 0;
    errno = 0;
    while (got < count && (blocks[got] = malloc(size)) != NULL) {
        memset(blocks[got], (int)got, size);
        got++;
    }
    CHECK(got < count && errno == ENOMEM);
    return got;
}

int main(void) {
    // Room for twice the limit, no more: without one this program fails, and leaves the machine alone.
    static void *blocks[2 * MOST / 8000];
    size_t sizes[] = {1 << 20, 100 << 10, 8000, 3 << 20};
    for (int round = 0; round < 8; round++) {
        size_t size = sizes[round % 4], got = fill(blocks, 2 * MOST / size, size);
        // Most of the limit was there, in every size and every time; never more than it.
        if (got * size > MOST || got * size < MOST / 4 * 3) {
            fprintf(stderr, "round %d: %zu blocks of %zu bytes\n", round, got, size);
            return 1;
        }
        errno = 0;
        CHECK(calloc(1, 32 << 20) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(realloc(blocks[0], MOST) == NULL && errno == ENOMEM);
        void *aligned;
        CHECK(posix_memalign(&aligned, 4096, 32 << 20) == ENOMEM);
        for (size_t i = 0; i < got; i++) {
            CHECK(*(unsigned char *)blocks[i] == (unsigned char)i);
            CHECK(((unsigned char *)blocks[i])[size - 1] == (unsigned char)i);
            free(blocks[i]);
        }
    }
    return 0;
}
