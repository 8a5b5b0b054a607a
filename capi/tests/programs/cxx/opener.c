// A program without C++ opens a library that brings it, for itself and then for all.
#include "../check.h"
#include <dlfcn.h>
int main(int argc, char **argv) {
    CHECK(argc == 2 && dlerror() == NULL);
    static const int modes[] = {RTLD_LOCAL, RTLD_GLOBAL};
    for (int i = 0; i < 2; i++) {
        void *library = dlopen(argv[1], RTLD_NOW | modes[i]);
        CHECK(library != NULL);
        void (*forms)(void) = (void (*)(void))dlsym(library, "forms");
        CHECK(forms != NULL);
        forms();
        CHECK(dlclose(library) == 0);
    }
    return 0;
}
