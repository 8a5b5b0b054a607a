// What the allocator notes of small objects has memory of its own behind it, which goes back with theirs.
#include "../check.h"

enum { N = 3000000, SIZE = 64 };

static size_t resident(void) {
    size_t all = 0, rss = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%zu %zu", &all, &rss) == 2);
    fclose(f);
    return rss * (size_t)sysconf(_SC_PAGESIZE);
}

int main(void) {
    static char *p[N];
    memset(p, 1, sizeof p);
    size_t before = resident();
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            CHECK((p[i] = malloc(SIZE)) != NULL);
            p[i][0] = (char)i;
        }
        CHECK(resident() > before + (size_t)N * SIZE);
        for (int i = 0; i < N; i++) {
            CHECK(p[i][0] == (char)i);
            free(p[i]);
        }
        malloc_trim(0);
        // A byte for each 16 of them would be 12 MB.
        CHECK(resident() < before + (6 << 20));
    }
    return 0;
}
