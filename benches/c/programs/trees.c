/* Binary trees: one that stays, and many that are built, walked and dropped. `trees [DEPTH]`: of the deepest, 18. */
#include "common.h"

typedef struct node {
    struct node *left, *right;
} node;

static node *build(int depth) {
    node *n = must(malloc(sizeof *n));
    n->left = depth ? build(depth - 1) : NULL;
    n->right = depth ? build(depth - 1) : NULL;
    return n;
}

static long count(const node *n) { return n ? 1 + count(n->left) + count(n->right) : 0; }

static void drop(node *n) {
    if (!n) return;
    drop(n->left);
    drop(n->right);
    free(n);
}

int main(int argc, char **argv) {
    const int deepest = argc > 1 ? atoi(argv[1]) : 18;
    node *stays = build(deepest);
    for (int depth = 4; depth <= deepest; depth += 2) {
        long nodes = 0;
        int trees = 1 << (deepest - depth + 3);
        for (int i = 0; i < trees; i++) {
            node *tree = build(depth);
            nodes += count(tree);
            drop(tree);
        }
        printf("%d trees of depth %d: %ld\n", trees, depth, nodes);
    }
    printf("%ld\n", count(stays));
    drop(stays);
    return 0;
}
