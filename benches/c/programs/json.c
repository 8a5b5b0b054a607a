/* A JSON parser: builds the tree of a document, walks it and drops it, again and again. `json [RECORDS]`: of
   each size of document so many in all, 150000. */
#include "common.h"

typedef struct value value;
struct value {
    enum { NUL, BOOLEAN, NUMBER, STRING, ARRAY, OBJECT } kind;
    union {
        double number;
        char *string;
        struct {
            value *items;
            char **keys;
            size_t length, room;
        } list;
    } as;
};

static const char *at;

static void blank(void) {
    while (*at == ' ' || *at == '\n') at++;
}

static char *string(void) {
    const char *start = ++at;
    while (*at != '"') at++;
    size_t length = at - start;
    char *copy = must(malloc(length + 1));
    memcpy(copy, start, length);
    copy[length] = 0;
    at++;
    return copy;
}

static value parse(void) {
    value v = {0};
    blank();
    if (*at == '{' || *at == '[') {
        char end = *at == '{' ? '}' : ']';
        v.kind = *at++ == '{' ? OBJECT : ARRAY;
        for (blank(); *at != end; blank()) {
            if (v.as.list.length == v.as.list.room) {
                v.as.list.room = v.as.list.room ? v.as.list.room * 2 : 4;
                v.as.list.items = must(realloc(v.as.list.items, v.as.list.room * sizeof(value)));
                if (v.kind == OBJECT)
                    v.as.list.keys = must(realloc(v.as.list.keys, v.as.list.room * sizeof(char *)));
            }
            if (v.kind == OBJECT) {
                v.as.list.keys[v.as.list.length] = string();
                blank();
                at++; /* the colon */
            }
            v.as.list.items[v.as.list.length++] = parse();
            blank();
            if (*at == ',') at++;
        }
        at++;
    } else if (*at == '"') {
        v.kind = STRING;
        v.as.string = string();
    } else if (*at == 't' || *at == 'f') {
        v.kind = BOOLEAN;
        v.as.number = *at == 't';
        at += *at == 't' ? 4 : 5;
    } else if (*at == 'n') {
        at += 4;
    } else {
        char *end;
        v.kind = NUMBER;
        v.as.number = strtod(at, &end);
        at = end;
    }
    return v;
}

static double walk(const value *v) {
    double sum = 1;
    if (v->kind == NUMBER) return v->as.number;
    if (v->kind == STRING) return v->as.string[0];
    if (v->kind >= ARRAY)
        for (size_t i = 0; i < v->as.list.length; i++) sum += walk(&v->as.list.items[i]);
    return sum;
}

static void drop(value *v) {
    if (v->kind == STRING) free(v->as.string);
    if (v->kind < ARRAY) return;
    for (size_t i = 0; i < v->as.list.length; i++) {
        drop(&v->as.list.items[i]);
        if (v->kind == OBJECT) free(v->as.list.keys[i]);
    }
    free(v->as.list.items);
    free(v->as.list.keys);
}

/* A document of records, as services send them. */
static char *document(rng *r, int records) {
    size_t room = 1 << 16, length = 0;
    char *text = must(malloc(room));
    text[length++] = '[';
    for (int i = 0; i < records; i++) {
        if (room - length < 4096) text = must(realloc(text, room *= 2));
        length += sprintf(text + length, "%s{\"id\": %d, \"name\": \"user %08x\", \"active\": %s, \"score\": %u.5, \"tags\": [",
                          i ? "," : "", i, (unsigned)next(r), i & 1 ? "true" : "false", below(r, 1000));
        for (unsigned n = below(r, 8), k = 0; k < n; k++)
            length += sprintf(text + length, "%s\"tag %u of a list\"", k ? ", " : "", below(r, 100));
        length += sprintf(text + length, "], \"address\": {\"street\": \"%0*u street\", \"geo\": [%u.25, -%u.75], \"note\": null}}",
                          (int)below(r, 120), 1u, below(r, 90), below(r, 180));
    }
    strcpy(text + length, "]");
    return text;
}

int main(int argc, char **argv) {
    const int records = argc > 1 ? atoi(argv[1]) : 150000;
    rng r = {11};
    double sum = 0;
    for (int size = 100; size <= 30000; size *= 10) {
        char *text = document(&r, size);
        for (int round = 0; round < records / size; round++) {
            at = text;
            value v = parse();
            sum += walk(&v);
            drop(&v);
        }
        free(text);
    }
    printf("%.2f\n", sum);
    return 0;
}
