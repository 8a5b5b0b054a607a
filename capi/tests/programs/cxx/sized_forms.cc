// What comes to a sized delete, with the size that its new had: by hand, by the compiler and by the library.
#include "check.hh"
#include <algorithm>
#include <any>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iomanip>
#include <iostream>
#include <list>
#include <locale>
#include <map>
#include <memory>
#include <memory_resource>
#include <set>
#include <sstream>
#include <thread>
#include <unordered_map>
#include <valarray>
struct Base {
    virtual ~Base() {}
    int number = 1;
};
struct Derived : Base {
    ~Derived() override { text.clear(); }
    std::string text = std::string(50, 'x');
    double more[20];
};
struct Second {
    virtual ~Second() {}
    long number = 2;
};
struct Both : Base, Second {
    char more[33];
};
struct Cookie {
    ~Cookie() { byte = 0; }
    char byte;
};
struct alignas(64) WideCookie {
    ~WideCookie() { byte = 0; }
    char byte;
};
struct Empty {};
struct Throws {
    Throws() { throw 1; }
    char bytes[77];
};
struct Own {
    char bytes[40];
    // Asks for more than the object has, and gives that back.
    static void *operator new(size_t size) { return ::operator new(size + 24); }
    static void operator delete(void *p, size_t size) { ::operator delete(p, size + 24); }
};
template <class T> static T *h(T *p) { return static_cast<T *>(hide(p)); }
template <class Map> static void fill(Map &&map) {
    for (int i = 0; i < 500; i++)
        map.emplace(i * 7919 % 503, std::string(i % 60, 'x'));
    for (int i = 0; i < 250; i++)
        map.erase(i);
}
static void by_the_compiler() {
    delete h(new Empty);
    delete h(new int(4));
    delete[] h(new char[hide_size(0)]);
    delete[] h(new Cookie[hide_size(0)]);
    delete[] h(new Cookie[hide_size(13)]);
    delete[] h(new WideCookie[hide_size(0)]);
    delete[] h(new WideCookie[hide_size(5)]);
    delete h(new (std::nothrow) WideCookie);
    delete[] h(new (std::nothrow) Cookie[hide_size(100000)]);
    delete[] h(new std::string[hide_size(20)]);
    delete static_cast<Base *>(h(new Derived));
    delete static_cast<Second *>(h(new Both));
    delete h(new Own);
    delete h(static_cast<Base *>(nullptr));
    delete[] h(static_cast<Cookie *>(nullptr));
    for (int i = 0; i < 3; i++)
        try {
            if (i < 2)
                delete new Throws;
            else
                delete[] new Throws[3];
        } catch (int) {
        }
}
static void by_hand() {
    for (size_t align = 1; align <= 8192; align *= 2)
        for (size_t size = 0; size < 5000; size += size / 3 + 1) {
            std::align_val_t as{align};
            ::operator delete(hide(::operator new(hide_size(size), as)), size, as);
            ::operator delete[](hide(::operator new[](hide_size(size), as, std::nothrow)), size, as);
        }
    ::operator delete(hide(::operator new(hide_size(0))), hide_size(0));
    ::operator delete(hide(nullptr), size_t(100));
    ::operator delete[](hide(nullptr), 100, std::align_val_t(64));
}
static void by_the_library() {
    fill(std::map<int, std::string>());
    fill(std::multimap<int, std::string>());
    fill(std::unordered_map<int, std::string>());
    std::pmr::unsynchronized_pool_resource pool;
    fill(std::pmr::map<int, std::string>(&pool));
    std::pmr::monotonic_buffer_resource buffer;
    fill(std::pmr::unordered_map<int, std::string>(&buffer));
    for (size_t align = 1; align <= 256; align *= 2)
        for (size_t size : {0, 1, 5, 8, 24, 100, 1000}) {
            auto *all = std::pmr::new_delete_resource();
            all->deallocate(hide(all->allocate(size, align)), size, align);
        }
    std::vector<std::string> words;
    std::deque<std::string> queue;
    std::list<std::string> list;
    for (int i = 0; i < 2000; i++) {
        std::string word(i * 31 % 90, char('a' + i % 26));
        words.push_back(word), queue.push_back(word), list.push_back(word);
        word.reserve(200), word.shrink_to_fit();
    }
    words.shrink_to_fit(), queue.shrink_to_fit(), list.sort();
    std::stable_sort(words.begin(), words.end());
    std::stable_partition(words.begin(), words.end(), [](auto &word) { return word.size() > 20; });
    std::inplace_merge(words.begin(), words.begin() + 900, words.end());
    std::vector<bool> bits(1001, true);
    std::valarray<double> numbers(1.5, 333);
    numbers = numbers * 2.0 + numbers[std::slice(0, 333, 1)];
    std::any any = std::string(40, 'a');
    any = std::vector<int>(10);
    char closed[100] = {};
    std::function<int()> function = [closed] { return closed[0]; };
    auto copy = function;
    CHECK(copy() == 0);
    auto shared = std::make_shared<Derived>();
    std::weak_ptr<Derived> weak = shared;
    shared.reset();
    std::shared_ptr<Base> other(new Derived);
    std::shared_ptr<WideCookie> wide = std::make_shared<WideCookie>();
    auto array = std::make_shared<int[]>(50);
    std::unique_ptr<Cookie[]> cookies(new Cookie[7]);
    std::stringstream stream;
    stream << 1.5 << " " << std::string(3000, 's') << std::locale("").name() << std::put_money(5.0);
    std::ofstream("/dev/null") << stream.str();
    for (auto &entry : std::filesystem::directory_iterator("/"))
        CHECK(!entry.path().parent_path().empty());
    CHECK(std::async(std::launch::async, [] { return std::string(100, 'f'); }).get().size() == 100);
    std::thread([] { try { throw std::system_error(std::make_error_code(std::errc::io_error)); } catch (std::exception &) {} }).join();
    try {
        std::rethrow_exception(std::make_exception_ptr(std::runtime_error("x")));
    } catch (std::exception &e) {
        CHECK(e.what()[0] == 'x');
    }
    void *p = std::get_temporary_buffer<int>(30).first;
    std::return_temporary_buffer(static_cast<int *>(p));
}
int main() {
    by_the_compiler();
    by_hand();
    by_the_library();
    return 0;
}
