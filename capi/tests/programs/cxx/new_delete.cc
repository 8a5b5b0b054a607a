// The C++ runtime's own operators, which call malloc and free.
#include "check.hh"
#include <map>
struct Node {
    Node *next;
    std::string text;
    std::vector<double> numbers;
};
int main() {
    for (int round = 0; round < 20; round++) {
        std::map<int, Node *> nodes;
        for (int i = 0; i < 2000; i++)
            nodes[i * 7919 % 2003] = new Node{nullptr, std::string(i % 500, 'x'), std::vector<double>(i % 50, 1.5)};
        for (auto &[key, node] : nodes)
            delete node;
        delete[] new int[1000];
        delete new char;
    }
    // 0 bytes have an address of their own.
    char *a = new char[0], *b = new char[0];
    CHECK(a && b && hide(a) != hide(b));
    delete[] a;
    delete[] b;
    void *p = ::operator new(100);
    CHECK(p && (uintptr_t)p % __STDCPP_DEFAULT_NEW_ALIGNMENT__ == 0 && malloc_usable_size(p) >= 100);
    ::operator delete(p);
    return 0;
}
