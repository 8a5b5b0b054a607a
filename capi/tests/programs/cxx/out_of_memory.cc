// new throws where there is no memory, also for what the size of an array does not say.
#include "check.hh"
template <class F> bool throws(F f) {
    try {
        hide(f());
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}
int main() {
    size_t much = hide_size(PTRDIFF_MAX);
    CHECK(throws([=] { return ::operator new(much); }));
    CHECK(throws([=] { return ::operator new[](much); }));
    CHECK(throws([=] { return ::operator new(much - 64, std::align_val_t(64)); }));
    CHECK(throws([=] { return ::operator new[](much - 64, std::align_val_t(64)); }));
    CHECK(throws([=] { return new char[much]; }));
    CHECK(throws([=] { return static_cast<void *>(new double[much]); }));
    CHECK(throws([] { return ::operator new(hide_size((size_t)1 << 50)); }));
    // All is as before.
    delete static_cast<std::string *>(hide(new std::string(100, 'x')));
    return 0;
}
