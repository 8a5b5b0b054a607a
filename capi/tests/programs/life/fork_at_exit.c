// fork inside a thread's end, in every round of its key destructors; and while other threads are ending. The
// child's one thread goes on ending, which ends the child.
#include "../check.h"
#include <pthread.h>
#include <sys/wait.h>

enum { ROUNDS = 4, THREADS = 60 };
static pthread_key_t key;
static volatile int forks;

static void work(void) {
    for (size_t size = 1; size < 100000; size += size / 2 + 1) {
        char *p = malloc(size);
        CHECK(p);
        memset(p, 1, size);
        free(p);
    }
}

static void reap(pid_t pid) {
    int status;
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    __sync_fetch_and_add(&forks, 1);
}

struct will {
    int rounds, fork_in;
    void *block;
};

static void destructor(void *value) {
    struct will *will = value;
    work();
    if (will->rounds == will->fork_in) {
        pid_t pid = fork();
        if (pid != 0)
            reap(pid);
        else
            alarm(60);
        work();
    }
    if (--will->rounds > 0)
        CHECK(pthread_setspecific(key, will) == 0);
    else {
        free(will->block);
        free(will);
    }
}

static void *life(void *arg) {
    struct will *will = malloc(sizeof *will);
    CHECK(will);
    will->rounds = ROUNDS;
    will->fork_in = 1 + (int)(uintptr_t)arg % ROUNDS;
    CHECK((will->block = malloc(5000)) != NULL);
    CHECK(pthread_setspecific(key, will) == 0);
    work();
    return NULL;
}

static void *short_life(void *arg) {
    (void)arg;
    void *p[300];
    for (int i = 0; i < 300; i++)
        CHECK((p[i] = malloc((size_t)i * 10)) != NULL);
    for (int i = 0; i < 300; i++)
        free(p[i]);
    return NULL;
}

int main(void) {
    CHECK(pthread_key_create(&key, destructor) == 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, life, (void *)i) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    // Sixteen are about to end at any moment.
    for (int round = 0; round < 40; round++) {
        pthread_t threads[16];
        for (int i = 0; i < 16; i++)
            CHECK(pthread_create(&threads[i], NULL, short_life, NULL) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            work();
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, short_life, NULL) == 0);
            CHECK(pthread_join(thread, NULL) == 0);
            _exit(0);
        }
        reap(pid);
        for (int i = 0; i < 16; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(forks == THREADS + 40);
    return 0;
}
