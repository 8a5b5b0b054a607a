// The standard containers under churn: map, unordered_map, vector of strings, list, deque, shared_ptr.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

int main() {
    std::mt19937_64 r(5);
    auto below = [&](std::uint64_t bound) { return r() % bound; };
    std::uint64_t sum = 0;

    std::map<std::uint64_t, std::string> ordered;
    std::unordered_map<std::string, std::vector<int>> lists;
    for (int i = 0; i < 250000; i++) {
        ordered[below(100000)] = std::string(below(48), 'x');
        if (i % 3 == 0) ordered.erase(below(100000));
        lists["key " + std::to_string(below(20000)) + " of a table"].push_back(i);
        if (i % 5 == 0) lists.erase("key " + std::to_string(below(20000)) + " of a table");
    }
    for (auto &[key, value] : ordered) sum += key + value.size();
    for (auto &[key, value] : lists) sum += key.size() + value.size();

    for (int round = 0; round < 12; round++) {
        std::vector<std::string> words;
        for (int i = 0; i < 60000; i++) words.push_back(std::string(8 + below(40), 'a' + i % 26));
        for (int i = 0; i < 60000; i++) words[below(words.size())] += "more";
        for (auto &word : words) sum += word.size();
    }

    std::list<std::shared_ptr<std::pair<int, std::string>>> shared;
    std::deque<std::unique_ptr<int[]>> recent;
    for (int i = 0; i < 400000; i++) {
        shared.push_back(std::make_shared<std::pair<int, std::string>>(i, std::string(below(32), 'y')));
        if (shared.size() > 20000) shared.pop_front();
        recent.push_back(std::make_unique<int[]>(1 + below(64)));
        if (recent.size() > 5000) recent.pop_front();
    }
    for (auto &one : shared) sum += one->first;
    std::printf("%llu\n", static_cast<unsigned long long>(sum));
}
