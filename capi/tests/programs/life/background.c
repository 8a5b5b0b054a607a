// Under SPANDREL=background=on,decay=400ms: there is one more thread, and it gives back what a burst left while the
// program sleeps. So has a child of fork, once it allocates.
#include "../check.h"
#include <dirent.h>
#include <sys/wait.h>

static size_t resident(void) {
    char text[128] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    size_t all, pages;
    CHECK(file && fgets(text, sizeof text, file) && sscanf(text, "%zu %zu", &all, &pages) == 2);
    fclose(file);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static int threads(void) {
    DIR *tasks = opendir("/proc/self/task");
    CHECK(tasks);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(tasks));)
        count += entry->d_name[0] != '.';
    closedir(tasks);
    return count;
}

static void burst_and_sleep(const char *who) {
    enum { MANY = 2000, SIZE = 50000 };
    static void *blocks[MANY];
    size_t before = resident();
    for (int i = 0; i < MANY; i++)
        CHECK((blocks[i] = malloc(SIZE)) && memset(blocks[i], i, SIZE));
    size_t peak = resident();
    CHECK(peak > before + (size_t)MANY * SIZE / 10 * 9);
    for (int i = 0; i < MANY; i++)
        free(blocks[i]);
    // It has a long while, and usually needs a second.
    for (int turn = 0; turn < 300 && resident() > before + (peak - before) / 10; turn++)
        usleep(100000);
    if (resident() > before + (peak - before) / 10 || threads() != 2) {
        fprintf(stderr, "%s: %d threads, %zu KiB before, %zu at the peak, %zu left\n", who, threads(), before >> 10,
                peak >> 10, resident() >> 10);
        exit(1);
    }
}

int main(void) {
    burst_and_sleep("parent");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        burst_and_sleep("child");
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    burst_and_sleep("parent again");
    return 0;
}
