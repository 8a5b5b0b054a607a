// Every name is exported and taken; operator new and delete are not exported.
#include "../check.h"
#include <dlfcn.h>
static int from_spandrel(void *at) {
    Dl_info info;
    return at && dladdr(at, &info) && info.dli_fname && strstr(info.dli_fname, "libspandrel.so");
}
int main(void) {
    const char *names[] = {"malloc", "free", "calloc", "realloc", "reallocarray", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc", "malloc_usable_size", "free_sized", "free_aligned_sized", "cfree", "malloc_trim", "mallinfo", "mallinfo2", "malloc_info", "malloc_stats", "mallopt", "nallocx", "sdallocx", "spandrel_sized_delete"};
    void *self = dlopen("libspandrel.so", RTLD_NOW | RTLD_NOLOAD);
    int bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        // What the program, and with it every library, gets.
        if (!from_spandrel(dlsym(RTLD_DEFAULT, names[i]))) {
            fprintf(stderr, "%s is not taken\n", names[i]);
            bad = 1;
        }
    }
    if (self) {
        const char *not_ours[] = {"_Znwm", "_Znam", "_ZdlPv", "_ZdaPv", "_ZdlPvm", "_ZdaPvm", "_ZnwmSt11align_val_t", "_ZnamSt11align_val_t", "_ZnwmRKSt9nothrow_t", "_ZdlPvSt11align_val_t", "_ZdlPvmSt11align_val_t", "_ZdaPvmSt11align_val_t"};
        for (size_t i = 0; i < sizeof not_ours / sizeof *not_ours; i++) {
            void *at = dlsym(self, not_ours[i]);
            if (at && from_spandrel(at)) {
                fprintf(stderr, "%s is exported\n", not_ours[i]);
                bad = 1;
            }
        }
    }
    // And the calls of this program itself.
    CHECK(from_spandrel((void *)(uintptr_t)&malloc) && from_spandrel((void *)(uintptr_t)&free));
    return bad;
}
