/* Blocks that are lost in known places, and blocks that only look lost: what is kept by a variable, a
 * thread's variable, a stack, a register, an address inside a block, another block, a mapping. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define NEVER_INLINE __attribute__((noinline))

struct node {
    struct node *next;
    char room[56];
};

static void *volatile sink;

static NEVER_INLINE void forget(void *block) {
    memset(block, 1, 8);
    sink = block;
    sink = 0;
}

static NEVER_INLINE void lose_three(void) {
    for (int i = 0; i < 3; i++)
        forget(malloc(1000));
}

static NEVER_INLINE void lose_after_realloc(void) { forget(realloc(malloc(10), 5000)); }

static NEVER_INLINE void lose_large(void) { forget(calloc(1, 3 << 20)); }

static NEVER_INLINE struct node *make_list(int length) {
    struct node *head = 0;
    for (int i = 0; i < length; i++) {
        struct node *node = malloc(sizeof *node);
        node->next = head;
        head = node;
    }
    return head;
}

/* One head is lost, and four nodes with it. */
static NEVER_INLINE void lose_list(void) { sink = make_list(5), sink = 0; }

static NEVER_INLINE struct node *make_ring(void) {
    struct node *a = aligned_alloc(64, 64), *b = aligned_alloc(64, 64);
    a->next = b, b->next = a;
    return a;
}

static NEVER_INLINE void lose_ring(void) { sink = make_ring(), sink = 0; }

/* Not static: what nobody reads the compiler does not write. */
void *kept_by_variable;
struct node *kept_list;
char *kept_inside;
__thread void *kept_by_thread;
void **kept_mapping;

static NEVER_INLINE void keep(void) {
    kept_by_variable = malloc(2000);
    kept_list = make_list(7);
    kept_inside = (char *)malloc(3000) + 1234;
    kept_by_thread = malloc(2100);
    kept_mapping = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    kept_mapping[7] = malloc(2200);
}

static pthread_barrier_t barrier;

/* A new thread begins with the vector registers of the one that made it, and a pointer that any code has moved
 * there stays as long as nothing uses them. */
static inline void wipe_vectors(void) {
#ifdef __x86_64__
#define WIPE(n) __asm__ volatile("pxor %%xmm" #n ", %%xmm" #n : : : "xmm" #n)
    WIPE(0); WIPE(1); WIPE(2); WIPE(3); WIPE(4); WIPE(5); WIPE(6); WIPE(7);
    WIPE(8); WIPE(9); WIPE(10); WIPE(11); WIPE(12); WIPE(13); WIPE(14); WIPE(15);
#endif
}

/* Keeps one block in a variable of its thread, one on its stack, and one in a register at most. */
static void *keeper(void *unused) {
    (void)unused;
    wipe_vectors();
    void *volatile on_stack = malloc(2300);
    kept_by_thread = malloc(2400);
    register void *in_register = malloc(2500);
    pthread_barrier_wait(&barrier);
    for (;;)
        __asm__ volatile("" : "+r"(in_register));
    return on_stack;
}

/* What lies about below the stack's end. */
static NEVER_INLINE void wipe(void) {
    char room[16 << 10];
    memset(room, 0, sizeof room);
    __asm__ volatile("" : : "r"(room) : "memory");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "all";
    free(malloc(100));
    keep();
    if (strcmp(what, "clean") != 0) {
        lose_three();
        lose_after_realloc();
        lose_large();
        lose_list();
        lose_ring();
    }
    pthread_barrier_init(&barrier, 0, 2);
    pthread_t thread;
    pthread_create(&thread, 0, keeper, 0);
    pthread_barrier_wait(&barrier);
    wipe();
    return 0;
}
