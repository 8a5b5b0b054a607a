// A library for a program without C++, which brings the C++ runtime; with REPLACED it brings operators of its own.
#include "check.hh"
#include <map>
#ifdef REPLACED
static int deletes;
void *operator new(size_t size) { return static_cast<char *>(malloc(size + 64)) + 64; }
void operator delete(void *p) noexcept {
    deletes++;
    if (p)
        free(static_cast<char *>(p) - 64);
}
#endif
struct Base {
    virtual ~Base() {}
    char bytes[100];
};
extern "C" void forms() {
    for (int i = 0; i < 100; i++) {
        // Returns to whoever has called this.
        delete static_cast<Base *>(hide(new Base));
        std::map<int, std::string> map;
        map[i] = std::string(i, 'x');
        delete[] static_cast<std::string *>(hide(new std::string[5]));
    }
#ifdef REPLACED
    CHECK(deletes >= 300);
#endif
}
