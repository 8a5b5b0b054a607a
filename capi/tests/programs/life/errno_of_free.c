// free keeps errno although the system call inside it fails: with as many mappings as there may be, the
// system will not cut one in two.
#include "../check.h"
#include <sys/mman.h>
int main(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *huge = malloc((size_t)300 << 20);
    CHECK(huge);
    // The block becomes part of a larger mapping that cannot be cut: unmapping it fails.
    size_t many = 0;
    char *area = mmap(NULL, (size_t)1 << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(area != MAP_FAILED);
    while (many < 1 << 19 && mprotect(area + 2 * many * page, page, PROT_READ) == 0)
        many++;
    errno = E2BIG;
    free(huge);
    CHECK(errno == E2BIG);
    void *p[300];
    for (int i = 0; i < 300; i++)
        p[i] = malloc(1 << 20);
    for (int i = 0; i < 300; i++) {
        errno = E2BIG;
        free(p[i]);
        CHECK(errno == E2BIG);
    }
    return 0;
}
