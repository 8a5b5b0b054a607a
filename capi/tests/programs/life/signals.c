// A timer of 10 kHz for each of four threads that do nothing but allocate and free. Its handler does not allocate; it
// looks at a block and asks for its size, which only reads. While a thread waits for a processor its expirations come
// together as one signal; how many did is said at the end.
#include "../check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

enum { THREADS = 4 };
static int wanted = 3000;
static char *landmark;
static _Thread_local volatile sig_atomic_t signals;
enum { HERTZ = 10000, LEAST = 1000 };
static volatile long all, together, cpu_ms;
static _Thread_local timer_t timer;
static _Thread_local volatile long overruns;

static void handler(int signal) {
    (void)signal;
    int saved = errno;
    CHECK(landmark[0] == 42 && landmark[99] == 43);
    CHECK(malloc_usable_size(landmark) >= 100);
    overruns += timer_getoverrun(timer);
    errno = saved;
    signals++;
}

static double seconds(clockid_t clock) {
    struct timespec now;
    CHECK(clock_gettime(clock, &now) == 0);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *work(void *arg) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    event._sigev_un._tid = (int)syscall(SYS_gettid);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    double begun = seconds(CLOCK_MONOTONIC);
    struct itimerspec often = {{0, 1000000000 / HERTZ}, {0, 1000000000 / HERTZ}};
    CHECK(timer_settime(timer, 0, &often, NULL) == 0);
    unsigned seed = (unsigned)(uintptr_t)arg;
    struct {
        unsigned char *at;
        size_t size;
    } held[500] = {0};
    while (signals < wanted) {
        for (int turn = 0; turn < 1000; turn++) {
            unsigned i = (unsigned)rand_r(&seed) % 500;
            unsigned char *at = held[i].at;
            if (at)
                CHECK(at[0] == (unsigned char)i && at[held[i].size - 1] == (unsigned char)i);
            size_t size = 1 + (size_t)rand_r(&seed) % (turn % 100 == 0 ? 300000 : 3000);
            if (turn % 3 == 0)
                CHECK((at = realloc(at, size)) != NULL);
            else {
                free(at);
                CHECK((at = turn % 3 == 1 ? malloc(size) : calloc(1, size)) != NULL);
            }
            at[0] = at[size - 1] = (unsigned char)i;
            held[i].at = at, held[i].size = size;
        }
    }
    CHECK(timer_delete(timer) == 0);
    CHECK(signals >= LEAST && signals >= wanted);
    CHECK((double)(signals + overruns) >= (seconds(CLOCK_MONOTONIC) - begun) * HERTZ / 2);
    __sync_fetch_and_add(&cpu_ms, (long)(seconds(CLOCK_THREAD_CPUTIME_ID) * 1000));
    __sync_fetch_and_add(&all, signals);
    __sync_fetch_and_add(&together, overruns);
    for (int i = 0; i < 500; i++)
        free(held[i].at);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc > 1)
        wanted = atoi(argv[1]);
    CHECK((landmark = malloc(100)) != NULL);
    landmark[0] = 42, landmark[99] = 43;
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    double begun = seconds(CLOCK_MONOTONIC);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    double took = seconds(CLOCK_MONOTONIC) - begun;
    printf("%ld signals for %ld expirations in %.1f s: %.0f a second in each of %d threads, %.0f in a second of a processor\n",
           all, all + together, took, (double)all / took / THREADS, THREADS, (double)all * 1000 / (double)cpu_ms);
    return 0;
}
