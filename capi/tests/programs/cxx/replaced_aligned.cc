// The same for the aligned forms.
#include "check.hh"
static int news, deletes;
void *operator new(size_t size, std::align_val_t align) {
    news++;
    if (void *p = aligned_alloc(static_cast<size_t>(align), (size + static_cast<size_t>(align) - 1) & ~(static_cast<size_t>(align) - 1)))
        return p;
    throw std::bad_alloc();
}
void operator delete(void *p, std::align_val_t) noexcept {
    deletes++;
    free(p);
}
void operator delete(void *p, size_t, std::align_val_t) noexcept {
    deletes++;
    free(p);
}
struct alignas(128) Wide {
    char bytes[300];
};
int main() {
    delete static_cast<Wide *>(hide(new Wide));
    delete[] static_cast<Wide *>(hide(new Wide[3]));
    delete static_cast<Wide *>(hide(new (std::nothrow) Wide));
    delete[] static_cast<Wide *>(hide(new (std::nothrow) Wide[3]));
    CHECK(news == 4 && deletes == 4);
    return 0;
}
