// A sized delete that says another size, as C++ programs come to it; by the first argument.
#include "check.hh"
#include <memory>
struct Base {
    int number;
};
struct Derived : Base {
    char more[96];
};
struct Kept {
    int number;
    ~Kept() { number = 0; }
};
struct alignas(64) Wide {
    char bytes[64];
};
template <class T> static T *block(T *p, size_t before = 0) {
    printf("block %p\n", reinterpret_cast<void *>(reinterpret_cast<char *>(p) - before));
    fflush(stdout);
    return static_cast<T *>(hide(p));
}
int main(int argc, char **argv) {
    CHECK(argc == 2);
    std::string what = argv[1];
    if (what == "base") // no virtual destructor
        delete static_cast<Base *>(block(new Derived));
    if (what == "array") // more than one, given back as one
        delete block(new int[17]);
    if (what == "plain") { // one, given back as more
        int *one = block(new int);
        std::allocator<int>().deallocate(one, 21);
    }
    if (what == "allocator")
        std::allocator<int>().deallocate(block(std::allocator<int>().allocate(100)), 101);
    if (what == "nothing")
        ::operator delete(block(static_cast<char *>(::operator new(0))), size_t(2));
    if (what == "aligned")
        delete block(new Wide[3]);
    if (what == "unaligned")
        ::operator delete(block(static_cast<char *>(::operator new(192, std::align_val_t(64)))), 192);
    if (what == "alignment")
        ::operator delete(block(static_cast<char *>(::operator new(256, std::align_val_t(256)))), 256, std::align_val_t(64));
    return 0;
}
