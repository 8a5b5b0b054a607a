#include "../check.h"
int main(void) {
    char *p[64];
    for (int i = 0; i < 64; i++) {
        CHECK((p[i] = malloc(1 << 20)) != NULL);
        memset(p[i], 1, 1 << 20);
    }
    for (int i = 0; i < 64; i++)
        free(p[i]);
    int trimmed = malloc_trim(0);
    CHECK(trimmed == 0 || trimmed == 1);
    return 0;
}
