// vfork and posix_spawn from 16 threads that allocate, again and again.
#include "../check.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

enum { THREADS = 16 };
static int rounds;

static void *work(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg;
    char *held[200] = {0};
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < 200; i++) {
            free(held[i]);
            size_t size = 1 + (size_t)rand_r(&seed) % (i % 50 == 0 ? 200000 : 2000);
            CHECK((held[i] = malloc(size)) != NULL);
            held[i][0] = held[i][size - 1] = (char)i;
        }
        // `true` allocates in its loader, on whatever the environment preloads.
        char *arguments[] = {"true", NULL};
        extern char **environ;
        pid_t pid;
        if (round % 2 == 0) {
            pid = vfork();
            if (pid == 0) {
                execve("/bin/true", arguments, environ);
                _exit(127);
            }
        } else
            CHECK(posix_spawn(&pid, "/bin/true", NULL, NULL, arguments, environ) == 0);
        int status;
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        for (int i = 0; i < 200; i++)
            CHECK(held[i][0] == (char)i);
    }
    for (int i = 0; i < 200; i++)
        free(held[i]);
    return NULL;
}

int main(int argc, char **argv) {
    rounds = argc > 1 ? atoi(argv[1]) : 6;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return 0;
}
