#include "check.hh"
template <size_t Align> struct alignas(Align) Wide {
    char bytes[Align + 1];
};
template <size_t Align> void forms() {
    auto *p = new Wide<Align>;
    CHECK((uintptr_t)p % Align == 0);
    memset(static_cast<void *>(p), 1, sizeof *p);
    delete p;
    p = new Wide<Align>[5];
    CHECK((uintptr_t)p % Align == 0);
    delete[] p;
    p = new (std::nothrow) Wide<Align>;
    CHECK(p && (uintptr_t)p % Align == 0);
    delete p;
    void *raw = ::operator new(100, std::align_val_t(Align));
    CHECK((uintptr_t)raw % Align == 0);
    ::operator delete(raw, size_t(100), std::align_val_t(Align));
    raw = ::operator new[](100, std::align_val_t(Align), std::nothrow);
    CHECK(raw && (uintptr_t)raw % Align == 0);
    ::operator delete[](raw, std::align_val_t(Align));
}
int main() {
    forms<32>();
    forms<64>();
    forms<512>();
    forms<4096>();
    forms<65536>();
    return 0;
}
