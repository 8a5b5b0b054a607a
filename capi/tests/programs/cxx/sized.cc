#include "check.hh"
int main() {
    for (size_t size = 0; size < 1 << 20; size += size / 5 + 1) {
        ::operator delete(hide(::operator new(hide_size(size))), size);
        ::operator delete[](hide(::operator new[](hide_size(size))), size);
        ::operator delete(hide(::operator new(hide_size(size), std::align_val_t(256))), size, std::align_val_t(256));
    }
    return 0;
}
