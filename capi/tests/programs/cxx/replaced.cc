// A program's replacements are called by every form that forwards to them.
#include "check.hh"
static int news, deletes;
void *operator new(size_t size) {
    news++;
    if (void *p = malloc(size ? size : 1))
        return p;
    throw std::bad_alloc();
}
void operator delete(void *p) noexcept {
    deletes++;
    free(p);
}
void operator delete(void *p, size_t) noexcept {
    deletes++;
    free(p);
}
int main() {
    int before = news;
    delete static_cast<int *>(hide(new int(5)));
    CHECK(news == before + 1);
    delete[] static_cast<int *>(hide(new int[50]));
    CHECK(news == before + 2);
    delete static_cast<int *>(hide(new (std::nothrow) int(5)));
    CHECK(news == before + 3);
    delete[] static_cast<int *>(hide(new (std::nothrow) int[50]));
    CHECK(news == before + 4);
    // In the library's own code, too.
    std::string text(1000, 'x');
    CHECK(news > before + 4);
    CHECK(deletes >= 4);
    return 0;
}
