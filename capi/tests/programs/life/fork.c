// fork while 16 threads allocate: the child allocates at once, finds what the others had as they wrote it, and gets
// it back.
#include "../check.h"
#include <pthread.h>
#include <sys/wait.h>
#include <time.h>

enum { THREADS = 16, KEEP = 500, MOST = 2000, ENOUGH = 1 << 20 };

// What a thread of the parent holds, so that the child can free it: at most one more is in flight.
struct hand {
    unsigned char *volatile held[KEEP];
    volatile size_t size[KEEP];
} hands[THREADS];
static volatile int stop, go;
static size_t before;

static unsigned char mark(const unsigned char *block, size_t at) {
    return (unsigned char)(((uintptr_t)block >> 3) * 31 + at * 7 + 1);
}

// What the fork finds of a thread is what it did up to some point, in order: a block that is held is filled.
static void fill(unsigned char *block, size_t size) {
    for (size_t i = 0; i < size; i++)
        block[i] = mark(block, i);
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

static void check(const unsigned char *block, size_t size) {
    for (size_t i = 0; i < size; i++)
        CHECK(block[i] == mark(block, i));
}

static void *work(void *arg) {
    struct hand *hand = arg;
    unsigned seed = (unsigned)(hand - hands) + 1;
    while (!go)
        usleep(100);
    while (!stop) {
        int at = rand_r(&seed) % KEEP;
        unsigned char *old = hand->held[at];
        hand->held[at] = NULL;
        if (old)
            check(old, hand->size[at]);
        free(old);
        size_t size = 1 + (size_t)rand_r(&seed) % MOST;
        unsigned char *new = malloc(size);
        CHECK(new != NULL);
        fill(new, size);
        hand->size[at] = size;
        hand->held[at] = new;
    }
    return NULL;
}

static void child(void) {
    size_t cached = nallocx ? mallinfo2().fsmblks : 0;
    // At once, and every size.
    for (size_t size = 1; size < 100000; size += size / 2 + 1) {
        char *p = malloc(size);
        CHECK(p != NULL);
        memset(p, 1, size);
        free(p);
    }
    // What sixteen threads had in their caches is not in anybody's any more.
    CHECK(cached < ENOUGH || mallinfo2().fsmblks < cached / 2);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < KEEP; i++) {
            if (hands[t].held[i])
                check(hands[t].held[i], hands[t].size[i]);
            free(hands[t].held[i]);
        }
    // Spandrel's mallinfo2 counts exactly what the program holds; glibc's does not know of other arenas.
    if (nallocx) {
        // An object that was between two instructions of the program, one between two of the
        // allocator's, of the largest class or smaller; and of a thread that was caught while it returned a
        // batch to its spans the rest of that, 16 KiB at most.
        size_t lost = 2 * nallocx(MOST, 0) + (16 << 10);
        size_t held = mallinfo2().uordblks, most = before + THREADS * lost;
        if (held > most) {
            fprintf(stderr, "%zu bytes held, %zu expected at most\n", held, most);
            malloc_stats();
            _exit(1);
        }
    }
    // Threads of the child take over the caches of the parent's.
    pthread_t threads[4];
    stop = 1;
    memset(hands, 0, sizeof hands);
    for (int t = 0; t < 4; t++)
        CHECK(pthread_create(&threads[t], NULL, work, &hands[t]) == 0);
    for (int t = 0; t < 4; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    _exit(0);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 60;
    pthread_t threads[THREADS];
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_create(&threads[t], NULL, work, &hands[t]) == 0);
    int ripe = 0;
    before = mallinfo2().uordblks;
    go = 1;
    for (int round = 0; round < rounds; round++) {
        struct timespec while_ = {0, 1000000};
        nanosleep(&while_, NULL);
        ripe += nallocx && mallinfo2().fsmblks > ENOUGH;
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            child();
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(!nallocx || ripe > 0 || rounds < 60);
    stop = 1;
    for (int t = 0; t < THREADS; t++)
        CHECK(pthread_join(threads[t], NULL) == 0);
    return 0;
}
