// Objects that are lost in known places, and the same done right.
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace shop {

struct Customer {
    std::string name = std::string(100, 'x');
    std::vector<int> orders = std::vector<int>(1000);
};

[[gnu::noinline]] Customer *make_customer() { return new Customer; }

[[gnu::noinline]] void lose_customers(int count) {
    for (int i = 0; i < count; i++) {
        Customer *volatile customer = make_customer();
        customer = nullptr;
    }
}

struct Base {
    virtual ~Base() = default;
    char room[200] = {};
};

// Deleted by whoever forgets.
[[gnu::noinline]] void lose_array() {
    int *volatile numbers = new int[12345];
    numbers = nullptr;
}

std::map<int, std::unique_ptr<Base>> kept;

[[gnu::noinline]] void keep() {
    for (int i = 0; i < 10; i++)
        kept[i] = std::make_unique<Base>();
}

} // namespace shop

[[gnu::noinline]] static void wipe() {
    volatile char room[16 << 10];
    for (auto &byte : room)
        byte = 0;
}

int main(int argc, char **) {
    shop::keep();
    auto shared = std::make_shared<shop::Customer>();
    if (argc == 1) {
        shop::lose_customers(4);
        shop::lose_array();
    }
    wipe();
}
