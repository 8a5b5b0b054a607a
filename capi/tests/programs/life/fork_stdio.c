// fork while another thread holds stdio's lock and allocates under it.
#include "../check.h"
#include <pthread.h>
#include <sys/wait.h>

static void *work(void *arg) {
    (void)arg;
    FILE *out = fopen("/dev/null", "w");
    CHECK(out != NULL);
    flockfile(out);
    while (1) {
        char *line = NULL;
        CHECK(asprintf(&line, "%d %s", 12345, "text that has to be put somewhere") > 0);
        fputs(line, out);
        free(line);
        pthread_testcancel();
    }
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    for (int t = 0; t < 4; t++)
        CHECK(pthread_create(&threads[t], NULL, work, NULL) == 0);
    for (int round = 0; round < 50; round++) {
        usleep(500);
        // stdio's lock is the caller's here: a child must not need it to allocate.
        flockfile(stdout);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            void *p[500];
            for (int i = 0; i < 500; i++)
                CHECK((p[i] = calloc(1, 1 + (size_t)i * 50)) != NULL);
            for (int i = 0; i < 500; i++)
                free(p[i]);
            CHECK(malloc_trim(0) >= 0);
            _exit(0);
        }
        funlockfile(stdout);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return 0;
}
