/* A heap profile started, written and stopped by the program itself. */
#include "../../../include/spandrel.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(what) \
    if (!(what)) \
        return printf("%s\n", #what), 1

__attribute__((noinline)) void *keep_some(void) {
    char **kept = malloc(100 * sizeof *kept);
    for (int i = 0; i < 100; i++)
        kept[i] = malloc(4000);
    return kept;
}

void *kept;

int main(int argc, char **argv) {
    CHECK(spandrel_profile_write(argv[1]) == EINVAL);
    CHECK(spandrel_profile_start(1) == 0);
    kept = keep_some();
    CHECK(spandrel_profile_write(argv[1]) == 0);
    CHECK(spandrel_profile_write("/no/such/place.svg") == ENOENT);
    spandrel_profile_stop();
    CHECK(spandrel_profile_write(argv[1]) == 0);
    return 0;
}
