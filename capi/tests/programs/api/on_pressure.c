// The soft limit's callback. Run with SPANDREL=soft=64MiB: it comes once above, on another thread, and may use
// the heap; after it was taken away it comes no more. Every wait is for something that must happen.
#include "../check.h"
#include "../../../include/spandrel.h"
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

static atomic_int first, second;
static atomic_size_t used_then, soft_then;
static pthread_t program;

static void told(size_t used, size_t soft) {
    CHECK(!pthread_equal(pthread_self(), program));
    // As a cache would be dropped and begun again.
    char *p = malloc(5000);
    CHECK(p);
    memset(hide(p), 1, 5000);
    free(p);
    used_then = used;
    soft_then = soft;
    first++;
}

static void told_instead(size_t used, size_t soft) {
    CHECK(used > soft);
    second++;
}

static void nap(void) {
    struct timespec ms = {0, 1000000};
    nanosleep(&ms, NULL);
}

static char *block(size_t size) {
    char *p = malloc(size);
    CHECK(p);
    memset(hide(p), 1, size);
    return p;
}

// Goes from well below the limit to well above it, until `count` says that somebody was told.
static void cross(atomic_int *count) {
    for (int before = *count, tries = 0; *count == before; tries++) {
        CHECK(tries < 300);
        char *p = block(96 * MIB);
        for (int i = 0; i < 150 && *count == before; i++)
            nap();
        free(p);
        // Back below: what is counted as in use goes with the next look.
        malloc_trim(0);
        free(block(MIB));
    }
}

int main(void) {
    program = pthread_self();
    CHECK(spandrel_on_pressure(NULL) == 0);
    CHECK(spandrel_on_pressure(told) == 0);
    free(block(16 * MIB));
    CHECK(first == 0);
    cross(&first);
    CHECK(soft_then == 64 * MIB && used_then > soft_then);
    CHECK(spandrel_on_pressure(told_instead) == 0);
    int before = first;
    cross(&second);
    CHECK(first == before);
    CHECK(spandrel_on_pressure(NULL) == 0);
    before = second;
    char *p = block(96 * MIB);
    for (int i = 0; i < 300; i++)
        nap();
    free(p);
    // One call may have been under way when it was taken away.
    CHECK(second <= before + 1);
    return 0;
}
