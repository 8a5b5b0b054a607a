// A C++ library, opened and closed while threads use it: global objects, and thread-local ones whose
// destructors run when a thread ends and free what the library allocated.
#include <map>
#include <string>
#include <vector>
#ifdef PLUGIN
static std::map<int, std::string> table = [] {
    std::map<int, std::string> made;
    for (int i = 0; i < 500; i++)
        made[i] = std::string(size_t(i), 'x');
    return made;
}();
struct Scratch {
    std::vector<std::string> all;
    ~Scratch() {
        all.push_back("the end");
        all.clear();
    }
};
static thread_local Scratch scratch;
extern "C" size_t use(int i) {
    scratch.all.push_back(table[i % 500] + std::to_string(i));
    if (scratch.all.size() > 100)
        scratch.all.clear();
    return scratch.all.size();
}
#else
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <thread>
int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    for (int round = 0; round < 40; round++) {
        std::vector<std::thread> threads;
        for (int t = 0; t < 4; t++)
            threads.emplace_back([&, t] {
                void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
                if (!plugin) {
                    std::fprintf(stderr, "%s\n", dlerror());
                    std::exit(1);
                }
                auto use = (size_t (*)(int))dlsym(plugin, "use");
                for (int i = 0; i < 300; i++)
                    use(i * (t + 1));
                // The thread's own objects of it are still to be destroyed.
                dlclose(plugin);
            });
        for (auto &thread : threads)
            thread.join();
    }
}
#endif
