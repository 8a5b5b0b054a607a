// A program that replaces the operators without a size, and has the sized ones come to them. Its blocks are not what they
// are asked to be: longer, or inside of others.
#include "check.hh"
#include <map>
static int deletes, last;
static void *give(size_t size, size_t align) {
#ifdef INSIDE
    char *p = static_cast<char *>(aligned_alloc(align, (size + 2 * align - 1) & ~(align - 1)));
    return p ? p + align : nullptr;
#else
    return aligned_alloc(align, (size + 100 + align) & ~(align - 1));
#endif
}
static void take(void *p, size_t align) {
    deletes++;
#ifdef INSIDE
    if (p)
        p = static_cast<char *>(p) - align;
#endif
    free(p);
}
void *operator new(size_t size) { return give(size, 64); }
void operator delete(void *p) noexcept { take(p, 64); }
#ifdef ALIGNED
void *operator new(size_t size, std::align_val_t align) { return give(size, size_t(align)); }
void operator delete(void *p, std::align_val_t align) noexcept { take(p, size_t(align)); }
#endif
struct alignas(128) Wide {
    char bytes[128];
};
struct Cookie {
    ~Cookie() { byte = 0; }
    char byte;
};
static void once_more() {
    CHECK(deletes == ++last);
}
int main() {
    delete static_cast<int *>(hide(new int)), once_more();
    delete[] static_cast<Cookie *>(hide(new Cookie[9])), once_more();
    delete static_cast<int *>(hide(new (std::nothrow) int)), once_more();
    ::operator delete(hide(::operator new(hide_size(0))), hide_size(0)), once_more();
    ::operator delete[](hide(::operator new[](100)), size_t(100)), once_more();
#ifdef ALIGNED
    delete static_cast<Wide *>(hide(new Wide)), once_more();
    delete[] static_cast<Wide *>(hide(new Wide[3])), once_more();
    ::operator delete(hide(::operator new(256, std::align_val_t(256))), 256, std::align_val_t(256)), once_more();
#else
    delete static_cast<Wide *>(hide(new Wide));
    delete[] static_cast<Wide *>(hide(new Wide[3]));
#endif
    last = deletes;
    {
        std::map<int, std::string> map;
        for (int i = 0; i < 100; i++)
            map[i] = std::string(50, 'x');
    }
    CHECK(deletes == last + 200);
    return 0;
}
