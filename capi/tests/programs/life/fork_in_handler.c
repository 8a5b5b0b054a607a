// fork in a signal handler that interrupted malloc or free, in a process with other threads. Half of the
// children allocate in the handler; the others return from it and go on with what was interrupted. (Both
// in one would be a handler that allocates, which nobody promises.)
#include "../check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

static volatile sig_atomic_t forks, in_child;
static pid_t parent;

static void *work(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg;
    while (1) {
        void *p[100];
        for (int i = 0; i < 100; i++)
            p[i] = malloc(1 + (size_t)rand_r(&seed) % 3000);
        for (int i = 0; i < 100; i++)
            free(p[i]);
        pthread_testcancel();
    }
    return NULL;
}

static void handler(int signal) {
    (void)signal;
    if (in_child)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        in_child = 1;
        if (forks % 2 == 0)
            return;
        for (size_t size = 1; size < 50000; size += size / 2 + 1) {
            char *p = malloc(size);
            if (!p)
                _exit(1);
            memset(p, 2, size);
            free(p);
        }
        _exit(0);
    } else if (pid > 0) {
        int status;
        waitpid(pid, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            static const char text[] = "a child died\n";
            ssize_t ignored = write(2, text, sizeof text - 1);
            (void)ignored;
            _exit(1);
        }
        forks++;
    }
}

int main(void) {
    parent = getpid();
    pthread_t threads[3];
    for (uintptr_t t = 0; t < 3; t++) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        CHECK(pthread_create(&threads[t], NULL, work, (void *)(t + 1)) == 0);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
    }
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGALRM, &action, NULL) == 0);
    unsigned seed = 7;
    int after = 0;
    void *held[1000] = {0};
    struct itimerval soon = {.it_value = {0, 500}};
    CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
    int seen = 0;
    while (forks < 60) {
        int at = rand_r(&seed) % 1000;
        free(held[at]);
        held[at] = malloc(1 + (size_t)rand_r(&seed) % 4000);
        CHECK(held[at] != NULL);
        if (in_child && ++after == 20000)
            _exit(0);
        if (forks != seen && !in_child) {
            seen = forks;
            CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        }
    }
    _exit(0);
}
