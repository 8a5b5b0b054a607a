// Inside dlopen and dlclose: a library's constructors and destructors, and its thread-local storage.
#include "../check.h"
#ifdef PLUGIN
static void *kept;
__attribute__((constructor)) static void begin(void) {
    CHECK((kept = malloc(1000)) != NULL);
    for (int i = 0; i < 500; i++)
        free(malloc((size_t)i * 100));
}
__attribute__((destructor)) static void end(void) {
    free(kept);
    for (int i = 0; i < 500; i++)
        free(malloc((size_t)i * 100));
}
static _Thread_local char *mine;
char *give(size_t size) {
    free(mine);
    mine = malloc(10);
    return malloc(size);
}
void take(char *p) {
    free(mine);
    mine = NULL;
    free(p);
}
#else
#include <dlfcn.h>
#include <pthread.h>
static const char *path;
static void *work(void *arg) {
    (void)arg;
    for (int round = 0; round < 50; round++) {
        void *plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        CHECK(plugin);
        char *(*give)(size_t) = (char *(*)(size_t))dlsym(plugin, "give");
        void (*take)(char *) = (void (*)(char *))dlsym(plugin, "take");
        CHECK(give && take);
        char *theirs = give(5000), *ours = malloc(100);
        free(theirs);
        take(ours);
        CHECK(dlclose(plugin) == 0);
    }
    return NULL;
}
int main(int argc, char **argv) {
    CHECK(argc == 2);
    path = argv[1];
    work(NULL);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
#endif
