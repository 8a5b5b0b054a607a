#include "../check.h"
int main(void) {
    // To standard error, and nowhere else.
    FILE *file = tmpfile();
    CHECK(file);
    fflush(stderr);
    int saved = dup(2);
    CHECK(saved >= 0 && dup2(fileno(file), 2) == 2);
    malloc_stats();
    fflush(stderr);
    CHECK(dup2(saved, 2) == 2);
    CHECK(lseek(fileno(file), 0, SEEK_END) > 20);
    return 0;
}
