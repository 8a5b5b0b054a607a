// The new-handler runs until there is memory, until it throws, or until there is none.
#include "check.hh"
static int calls;
static size_t wanted;
struct Enough {};
int main() {
    wanted = hide_size(PTRDIFF_MAX);
    std::set_new_handler([] {
        if (++calls == 3)
            std::set_new_handler(nullptr);
    });
    bool thrown = false;
    try {
        hide(::operator new(wanted));
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    CHECK(thrown && calls == 3);
    std::set_new_handler([] { throw Enough(); });
    bool enough = false;
    try {
        hide(::operator new(wanted));
    } catch (const Enough &) {
        enough = true;
    }
    CHECK(enough);
    // nothrow catches bad_alloc from the handler.
    std::set_new_handler([] { throw std::bad_alloc(); });
    CHECK(hide(::operator new(wanted, std::nothrow)) == nullptr);
    enough = false;
    std::set_new_handler([] { throw Enough(); });
    try {
        hide(::operator new(wanted, std::align_val_t(64)));
    } catch (const Enough &) {
        enough = true;
    } catch (const std::bad_alloc &) {
        enough = false;
    }
    CHECK(enough);
    return 0;
}
