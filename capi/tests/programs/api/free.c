#include "../check.h"
#include <sys/resource.h>
int main(void) {
    free(NULL);
    // errno stays, on every way down: to the cache, to the spans, to the system.
    void *p[5000];
    for (int round = 0; round < 3; round++) {
        size_t size = round == 0 ? 40 : round == 1 ? 5000 : 300000;
        int count = round == 2 ? 300 : 5000;
        for (int i = 0; i < count; i++)
            CHECK((p[i] = malloc(hide_size(size))) != NULL);
        for (int i = 0; i < count; i++) {
            errno = E2BIG;
            free(p[i]);
            CHECK(errno == E2BIG);
        }
    }
    void *huge = malloc(hide_size((size_t)300 << 20));
    CHECK(huge != NULL);
    errno = E2BIG;
    free(huge);
    CHECK(errno == E2BIG);
    return 0;
}
