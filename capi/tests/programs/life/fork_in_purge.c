// fork inside a purge: this program has the name `madvise`, so the allocator comes here when it returns
// memory. There the purging thread itself forks, or stands still while another one does. Build with
// -rdynamic, so that a library finds the name.
#include "../check.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { HELD = 300 };
static char *held[HELD];
static volatile int fork_in, stand_in, standing, children, calls;

static void work(unsigned seed) {
    for (int i = 0; i < 2000; i++) {
        size_t size = 1 + (size_t)rand_r(&seed) % (i % 100 == 0 ? 3000000 : 5000);
        char *p = malloc(size);
        CHECK(p);
        p[0] = p[size - 1] = 1;
        free(p);
    }
}

static void child(void) {
    work(7);
    for (int i = 0; i < HELD; i++) {
        CHECK(held[i][0] == (char)i);
        free(held[i]);
    }
    malloc_trim(0);
    work(8);
    _exit(0);
}

static void fork_here(void) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        fork_in = stand_in = 0;
        child();
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    children++;
}

int madvise(void *at, size_t bytes, int advice) {
    int call = advice == MADV_DONTNEED ? ++calls : 0;
    if (call && fork_in && call % fork_in == 0)
        fork_here();
    if (call && stand_in && call % stand_in == 0) {
        standing = 1;
        while (standing)
            usleep(100);
    }
    return (int)syscall(SYS_madvise, at, bytes, advice);
}

// Memory for a purge to return.
static void litter(void) {
    static char *block[400];
    for (int i = 0; i < 400; i++) {
        CHECK((block[i] = malloc(100000)) != NULL);
        memset(block[i], 1, 100000);
    }
    for (int i = 0; i < 400; i++)
        if (i % 16)
            free(block[i]);
    for (int i = 0; i < 400; i += 16)
        free(block[i]);
}

static void *purge(void *arg) {
    (void)arg;
    for (int i = 0; i < 20; i++) {
        litter();
        malloc_trim(0);
    }
    stand_in = 0;
    standing = 0;
    return NULL;
}

static volatile int stop;
static void *others(void *arg) {
    for (unsigned seed = (unsigned)(uintptr_t)arg; !stop; seed++)
        work(seed);
    return NULL;
}

int main(void) {
    for (int i = 0; i < HELD; i++) {
        CHECK((held[i] = malloc(10 + (size_t)i * 70)) != NULL);
        held[i][0] = (char)i;
    }
    pthread_t threads[3];
    for (uintptr_t i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, others, (void *)(i * 100)) == 0);
    // The purger forks.
    fork_in = 1;
    for (int i = 0; i < 4; i++) {
        litter();
        malloc_trim(0);
        fork_in = 2 + i;
    }
    fork_in = 0;
    CHECK(!nallocx || children > 0);
    // It stands still in the middle, and its neighbour forks.
    int before = children;
    stand_in = 1;
    pthread_t purger;
    CHECK(pthread_create(&purger, NULL, purge, NULL) == 0);
    while (stand_in) {
        if (standing) {
            if (children - before < 20)
                fork_here();
            standing = 0;
        }
        usleep(100);
    }
    CHECK(pthread_join(purger, NULL) == 0);
    CHECK(!nallocx || children - before > 5);
    stop = 1;
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
