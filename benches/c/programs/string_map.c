/* A chained hash map from strings to strings that grows, is asked, shrinks and grows again. */
#include "common.h"

typedef struct entry {
    struct entry *next;
    char *key, *value;
} entry;

typedef struct {
    entry **table;
    size_t buckets, count;
} map;

static uint64_t hash(const char *s) {
    uint64_t h = 14695981039346656037ULL;
    while (*s) h = (h ^ (unsigned char)*s++) * 1099511628211ULL;
    return h ^ h >> 29;
}

static void grow(map *m) {
    size_t buckets = m->buckets ? m->buckets * 2 : 16;
    entry **table = must(calloc(buckets, sizeof *table));
    for (size_t i = 0; i < m->buckets; i++)
        for (entry *e = m->table[i], *after; e; e = after) {
            after = e->next;
            entry **to = &table[hash(e->key) & (buckets - 1)];
            e->next = *to;
            *to = e;
        }
    free(m->table);
    m->table = table;
    m->buckets = buckets;
}

static entry **find(map *m, const char *key) {
    entry **at = &m->table[hash(key) & (m->buckets - 1)];
    while (*at && strcmp((*at)->key, key)) at = &(*at)->next;
    return at;
}

static void put(map *m, const char *key, const char *value) {
    if (m->count >= m->buckets) grow(m);
    entry **at = find(m, key);
    if (*at) {
        free((*at)->value);
    } else {
        *at = must(malloc(sizeof **at));
        (*at)->next = NULL;
        (*at)->key = must(strdup(key));
        m->count++;
    }
    (*at)->value = must(strdup(value));
}

static void drop(map *m, const char *key) {
    entry **at = find(m, key), *e = *at;
    if (!e) return;
    *at = e->next;
    free(e->key);
    free(e->value);
    free(e);
    m->count--;
}

static char *name(char *to, uint32_t number) {
    static const char tail[] = "/the/tail/of/a/key/as/long/as/keys/may/be";
    sprintf(to, "%08x%.*s", number * 2654435761u, (int)(number % (sizeof tail - 1)), tail);
    return to;
}

int main(void) {
    rng r = {42};
    map m = {0};
    char key[80], value[300];
    uint64_t sum = 0;
    memset(value, 'v', sizeof value);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 150000; i++) {
            size_t length = 8 + below(&r, round == 2 ? 250 : 60);
            value[length] = 0;
            put(&m, name(key, below(&r, 200000)), value);
            value[length] = 'v';
        }
        for (int i = 0; i < 150000; i++) {
            entry *e = *find(&m, name(key, below(&r, 200000)));
            if (e) sum += strlen(e->value);
        }
        for (int i = 0; i < 120000; i++) drop(&m, name(key, below(&r, 200000)));
    }
    printf("%zu %llu\n", m.count, (unsigned long long)sum);
    return 0;
}
