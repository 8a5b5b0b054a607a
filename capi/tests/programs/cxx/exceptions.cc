// Exceptions are allocated too, also while there is no memory, and from several threads.
#include "check.hh"
#include <stdexcept>
#include <thread>
static void work() {
    for (int i = 0; i < 2000; i++) {
        try {
            throw std::runtime_error(std::string(i % 200, 'x'));
        } catch (const std::exception &e) {
            CHECK(strlen(e.what()) == size_t(i % 200));
        }
    }
}
int main() {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back(work);
    for (auto &thread : threads)
        thread.join();
    return 0;
}
