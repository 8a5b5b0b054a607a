#include "../check.h"
int main(void) {
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    CHECK(out);
    CHECK(malloc_info(0, out) == 0);
    CHECK(fclose(out) == 0);
    // A document of one element, its tags in order.
    CHECK(strncmp(text, "<malloc version=\"1\"", 19) == 0);
    CHECK(strcmp(text + length - 10, "</malloc>\n") == 0);
    int depth = 0;
    for (char *at = strchr(text, '<'); at; at = strchr(at + 1, '<')) {
        char *end = strchr(at, '>');
        CHECK(end);
        if (at[1] == '/')
            depth--;
        else if (end[-1] != '/')
            depth++;
        CHECK(depth >= 0);
    }
    CHECK(depth == 0);
    free(text);
    CHECK(malloc_info(1, stdout) != 0);
    return 0;
}
