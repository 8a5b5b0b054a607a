// Threads with the smallest stack there is, or of as many bytes as the argument says, start, allocate on every path, and end. What the library adds to the
// thread-local block of every thread stays small: dlopen has little room for it.
#include "../check.h"
#include <limits.h>
#include <link.h>
#include <pthread.h>
static void *work(void *arg) {
    (void)arg;
    static __thread void *p[200];
    for (size_t size = 1; size < 100000; size = size * 5 / 4 + 1) {
        int count = size < 2000 ? 200 : 20;
        for (int i = 0; i < count; i++)
            CHECK((p[i] = malloc(size)) != NULL);
        for (int i = 0; i < count; i++)
            CHECK((p[i] = realloc(p[i], size + size / 2)) != NULL);
        for (int i = 0; i < count; i++)
            free(p[i]);
    }
    for (int i = 0; i < 20; i++)
        CHECK((p[i] = calloc(1, 1 << 20)) != NULL);
    for (int i = 0; i < 20; i++)
        free(p[i]);
    CHECK(posix_memalign(&p[0], 1 << 21, 5) == 0);
    free(p[0]);
    CHECK((p[0] = malloc(200 << 20)) != NULL);
    CHECK((p[0] = realloc(p[0], 300 << 20)) != NULL);
    free(p[0]);
    malloc_trim(0);
    return NULL;
}
static int of_library(struct dl_phdr_info *module, size_t size, void *arg) {
    (void)size;
    for (int i = 0; module->dlpi_name && strstr(module->dlpi_name, "libspandrel.so") && i < module->dlpi_phnum; i++)
        if (module->dlpi_phdr[i].p_type == PT_TLS)
            *(size_t *)arg = module->dlpi_phdr[i].p_memsz;
    return 0;
}
int main(int argc, char **argv) {
    size_t thread_local_bytes = 0;
    dl_iterate_phdr(of_library, &thread_local_bytes);
    CHECK(thread_local_bytes <= 192);
    pthread_attr_t attr;
    CHECK(pthread_attr_init(&attr) == 0);
    CHECK(pthread_attr_setstacksize(&attr, argc > 1 ? (size_t)atol(argv[1]) : 16384) == 0);
    for (int round = 0; round < 10; round++) {
        pthread_t threads[8];
        for (int i = 0; i < 8; i++)
            CHECK(pthread_create(&threads[i], &attr, work, NULL) == 0);
        for (int i = 0; i < 8; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
    }
    return 0;
}
