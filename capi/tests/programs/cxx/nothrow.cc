#include "check.hh"
int main() {
    int *p = new (std::nothrow) int(5);
    CHECK(p && *p == 5);
    operator delete(p, std::nothrow);
    p = new (std::nothrow) int[100];
    CHECK(p);
    operator delete[](p, std::nothrow);
    size_t much = hide_size(PTRDIFF_MAX);
    CHECK(hide(::operator new(much, std::nothrow)) == nullptr);
    CHECK(hide(::operator new[](much, std::nothrow)) == nullptr);
    CHECK(hide(::operator new(much - 64, std::align_val_t(64), std::nothrow)) == nullptr);
    CHECK(hide(::operator new[](much - 64, std::align_val_t(64), std::nothrow)) == nullptr);
    return 0;
}
