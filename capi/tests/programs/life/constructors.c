// Before any constructor has run, and after every destructor has.
#include "../check.h"
static void *early, *first;
static void work(void) {
    for (size_t size = 1; size < 200000; size += size / 2 + 1) {
        char *p = calloc(1, hide_size(size));
        CHECK(p);
        memset(p, 1, size);
        CHECK((p = realloc(hide(p), hide_size(size + 1))) != NULL);
        free(p);
    }
}
static void preinit(int argc, char **argv, char **env) {
    (void)argc, (void)argv, (void)env;
    early = malloc(100);
    CHECK(early);
    work();
}
__attribute__((section(".preinit_array"), used)) static void (*hook)(int, char **, char **) = preinit;
__attribute__((constructor(101))) static void begin(void) {
    CHECK((first = malloc(5000)) != NULL);
    work();
}
__attribute__((destructor(101))) static void end(void) {
    free(early);
    free(first);
    work();
    static const char text[] = "the end\n";
    CHECK(write(1, text, sizeof text - 1) == sizeof text - 1);
}
static void at_exit(void) { work(); }
int main(void) {
    CHECK(atexit(at_exit) == 0);
    work();
    return 0;
}
