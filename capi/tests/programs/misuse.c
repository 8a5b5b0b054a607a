// One misuse each, and what comes of it: 0 if the program is unharmed, 3 if it can show that its memory is
// broken (two owners of one block, a neighbour's bytes changed, a block that never was), or it dies. Says
// first which address is to blame, and of which block it is.
#include "check.h"
#include <sys/mman.h>
#include <dlfcn.h>
#include <pthread.h>

enum { UNHARMED = 0, BROKEN = 3, NOT_THERE = 77 };
void _ZdlPvm(void *, size_t); // operator delete(void *, size_t)

static void *blame(void *at) {
    printf("blame %p\n", at);
    fflush(stdout);
    return hide(at);
}
static char *block(char *at) {
    printf("block %p\n", (void *)at);
    return at;
}
// A block in the middle of some of its size, which stay and are filled.
#define NEIGHBOURS 64
static char *neighbour[NEIGHBOURS];
static size_t neighbour_size;
static char *object(size_t size) {
    neighbour_size = size;
    for (int i = 0; i < NEIGHBOURS; i++) {
        neighbour[i] = malloc(hide_size(size));
        CHECK(neighbour[i] != NULL);
        memset(neighbour[i], 'n', size);
    }
    char *mine = neighbour[NEIGHBOURS / 2];
    neighbour[NEIGHBOURS / 2] = NULL;
    return mine;
}
static int neighbours_are_whole(void) {
    for (int i = 0; i < NEIGHBOURS; i++)
        for (size_t j = 0; neighbour[i] && j < neighbour_size; j++)
            if (neighbour[i][j] != 'n')
                return 0;
    return 1;
}
static char victim[256] __attribute__((aligned(64)));
// Whether the heap still gives every block to one owner, and none that it does not have.
static int verdict(size_t size) {
    enum { MANY = 3000 };
    static char *all[MANY];
    int broken = !neighbours_are_whole();
    for (int i = 0; i < MANY; i++) {
        all[i] = malloc(hide_size(size));
        if (all[i] == NULL)
            return UNHARMED;
        if (all[i] >= victim && all[i] < victim + sizeof victim)
            return BROKEN;
        memcpy(all[i], &i, sizeof i);
    }
    for (int i = 0; i < MANY; i++) {
        int there;
        memcpy(&there, all[i], sizeof there);
        broken |= there != i;
    }
    for (int i = 0; i < NEIGHBOURS && !broken; i++)
        for (int j = 0; j < MANY && !broken; j++)
            broken = neighbour[i] && neighbour[i] == all[j];
    broken |= !neighbours_are_whole();
    for (int i = 0; i < MANY && !broken; i++)
        free(all[i]);
    return broken ? BROKEN : UNHARMED;
}
// Blocks so large that a few tell as much.
static int large_verdict(size_t size) {
    char *a = malloc(hide_size(size)), *b = malloc(hide_size(size));
    if (!a || !b)
        return UNHARMED;
    a[0] = 'a', b[0] = 'b';
    int broken = a == b || a[0] != 'a';
    if (!broken)
        free(a), free(b);
    return broken ? BROKEN : UNHARMED;
}
static void *frees(void *at) {
    free(at);
    return NULL;
}
static void free_elsewhere(void *at) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, frees, at) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}
static void work(size_t size) {
    for (int round = 0; round < 20; round++) {
        char *some[20];
        for (int i = 0; i < 20; i++)
            CHECK((some[i] = malloc(hide_size(size))) != NULL);
        for (int i = 0; i < 20; i++)
            free(some[i]);
    }
}
typedef void free_sized_t(void *, size_t);
typedef void free_aligned_sized_t(void *, size_t, size_t);
typedef void sdallocx_t(void *, size_t, int);

int main(int argc, char **argv) {
    CHECK(argc == 2);
#define MISUSE(name, ...)                  \
    if (strcmp(argv[1], #name) == 0) {     \
        __VA_ARGS__;                       \
    }
    // What has been handed out once and freed twice.
    MISUSE(twice_in_a_row, char *p = blame(block(object(100))); free(p); free(hide(p)); return verdict(100))
    MISUSE(twice_with_another_between, char *p = blame(block(object(100))); char *q = malloc(100); free(p); free(q); free(hide(p)); return verdict(100))
    MISUSE(twice_by_two_threads, char *p = blame(block(object(100))); free_elsewhere(p); free(hide(p)); return verdict(100))
    MISUSE(twice_after_work_on_the_neighbours, char *p = blame(block(object(100))); char *kept[32]; for (int i = 0; i < 32; i++) kept[i] = malloc(100); free(p); for (int i = 0; i < 32; i++) free(kept[i]); free(hide(p)); return verdict(100))
    MISUSE(twice_large, char *p = blame(block(malloc(100000))); free(p); free(hide(p)); return large_verdict(100000))
    MISUSE(twice_huge, char *p = blame(block(malloc((size_t)200 << 20))); free(p); free(hide(p)); return large_verdict((size_t)200 << 20))
    // What was never handed out.
    MISUSE(free_inside, free(blame(block(object(100)) + 16)); return verdict(100))
    MISUSE(free_inside_large, free(blame(block(malloc(100000)) + 4096)); return large_verdict(100000))
    MISUSE(free_unaligned, free(blame(block(object(100)) + 1)); return verdict(100))
    MISUSE(free_stack, char local[256] __attribute__((aligned(64))); memset(local, 0, 256); free(blame(local + 64)); return verdict(100))
    MISUSE(free_static, free(blame(victim + 64)); return verdict(100))
    MISUSE(free_mapping, char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); free(blame(p + 64)); return verdict(100))
    MISUSE(free_null_page, free(blame((void *)64)); return verdict(100))
    // What is said of a block and is not so.
    MISUSE(sized_delete, char *p = blame(block(object(100))); _ZdlPvm(p, 1000); return verdict(100))
    MISUSE(free_sized_wrongly, free_sized_t *f = (free_sized_t *)dlsym(RTLD_DEFAULT, "free_sized"); if (!f) return NOT_THERE; char *p = blame(block(object(100))); f(p, 200); return verdict(100))
    MISUSE(free_aligned_wrongly, free_aligned_sized_t *f = (free_aligned_sized_t *)dlsym(RTLD_DEFAULT, "free_aligned_sized"); if (!f) return NOT_THERE; char *p = blame(block(aligned_alloc(64, 128))); f(p, 256, 128); return verdict(100))
    MISUSE(sdallocx_aligned_wrongly, sdallocx_t *f = (sdallocx_t *)dlsym(RTLD_DEFAULT, "sdallocx"); if (!f) return NOT_THERE; char *p = blame(block(aligned_alloc(64, 128))); f(p, 128, 8); return verdict(100))
    // The same by so little that no other allocator tells it apart.
    MISUSE(nearly_sized, free_sized_t *f = (free_sized_t *)dlsym(RTLD_DEFAULT, "free_sized"); if (!f) return NOT_THERE; char *p = blame(block(object(100))); f(p, 112); return verdict(100))
    MISUSE(nearly_aligned_sized, free_aligned_sized_t *f = (free_aligned_sized_t *)dlsym(RTLD_DEFAULT, "free_aligned_sized"); if (!f) return NOT_THERE; char *p = blame(block(aligned_alloc(64, 128))); f(p, 64, 121); return verdict(100))
    MISUSE(nearly_usable, sdallocx_t *f = (sdallocx_t *)dlsym(RTLD_DEFAULT, "sdallocx"); if (!f) return NOT_THERE; f(object(100), 104, 0); f(object(100), 112, 0); f(malloc(100000), 102400, 0); char *p = blame(block(object(100))); f(p, 113, 0); return verdict(100))
    // Writes where there is nothing to be written.
    MISUSE(write_after_free, char *p = block(object(100)); char *q = malloc(100); free(q); free(p); blame(p); *(void **)hide(p) = victim; return verdict(100))
    MISUSE(write_after_free_inside, char *p = block(object(100)); free(p); blame(p + 40); ((char *)hide(p))[40] = 'x'; return verdict(100))
    MISUSE(write_after_free_large, char *p = block(malloc(100000)); memset(p, 1, 100000); free(p); blame(p + 50000); ((char *)hide(p))[50000] = 'x'; return large_verdict(100000))
    MISUSE(read_after_free_large, char *p = block(malloc(100000)); memset(p, 1, 100000); free(p); blame(p + 50000); return ((volatile char *)hide(p))[50000] == 1 ? BROKEN : UNHARMED)
    MISUSE(one_past_the_end, char *p = block(object(100)); memset(p, 'm', 100); blame(p + 100); ((char *)hide(p))[100] = 0; int whole = neighbours_are_whole(); free(p); return whole ? verdict(100) : BROKEN)
    MISUSE(one_past_a_full_class, char *p = block(object(128)); memset(p, 'm', 128); blame(p + 128); ((char *)hide(p))[128] = 0; int whole = neighbours_are_whole(); free(p); return whole ? verdict(128) : BROKEN)
    MISUSE(sixty_past_the_end, char *p = block(object(100)); blame(p + 100); memset((char *)hide(p) + 100, 'x', 60); int whole = neighbours_are_whole(); free(p); return whole ? verdict(100) : BROKEN)
    MISUSE(before_the_start, char *p = block(object(128)); blame(p); ((char *)hide(p))[-1] = 'x'; int whole = neighbours_are_whole(); free(p); for (int i = 0; i < NEIGHBOURS; i++) free(neighbour[i]), neighbour[i] = NULL; return whole ? verdict(128) : BROKEN)
    MISUSE(past_a_large_one, char *p = block(malloc(100000)); char *q = malloc(100000); memset(q, 'n', 100000); blame(p + 100000); for (int i = 100000; i < 150000; i++) ((char *)hide(p))[i] = 'x'; int whole = q[0] == 'n'; free(p); return whole ? large_verdict(100000) : BROKEN)
    // realloc of what is no block.
    MISUSE(realloc_freed, char *p = blame(block(object(100))); char *q = malloc(100); free(p); free(q); CHECK(realloc(hide(p), 300)); return verdict(100))
    MISUSE(realloc_inside, CHECK(realloc(blame(block(object(100)) + 16), 300)); return verdict(100))
    MISUSE(realloc_stack, char local[256] __attribute__((aligned(64))); memset(local, 0, 256); CHECK(realloc(blame(local + 64), 300)); return verdict(100))
    // Switched by the program itself.
    MISUSE(checked_by_the_program, int (*check)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "spandrel_check"); if (!check) return NOT_THERE; CHECK(check(7) == EINVAL && check(1) == 0); char *p = block(object(100)); free(p); blame(p + 3); ((char *)hide(p))[3] = 'x'; check(0); return verdict(100))
    MISUSE(guarded_by_the_program, int (*guard)(unsigned) = (int (*)(unsigned))dlsym(RTLD_DEFAULT, "spandrel_guard"); if (!guard) return NOT_THERE; CHECK(guard(1) == 0); char *p = block(malloc(100)); free(p); blame(p + 3); return ((volatile char *)hide(p))[3])
    MISUSE(nothing, char *p = object(100); free(p); p = malloc(100000); p = realloc(p, 200000); free(p); free(malloc((size_t)200 << 20)); _ZdlPvm(malloc(100), 100); free(NULL); return verdict(100))
    fprintf(stderr, "no such misuse\n");
    return 2;
}
