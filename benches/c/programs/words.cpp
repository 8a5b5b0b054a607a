// Text work as scripts do it: split into words, count them, sort them, join them again, on the number of
// threads that the argument says.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

static std::string text(unsigned seed, int words) {
    std::mt19937 r(seed);
    std::string text;
    for (int i = 0; i < words; i++) {
        unsigned length = 2 + r() % 9, rank = r() % (1 + r() % 4000);
        for (unsigned k = 0; k < length; k++) text += char('a' + (rank * 7 + k * (rank % 11)) % 26);
        text += i % 12 == 11 ? '\n' : ' ';
    }
    return text;
}

static std::size_t work(unsigned seed, int rounds) {
    std::size_t sum = 0;
    const std::string source = text(seed, 20000);
    for (int round = 0; round < rounds; round++) {
        std::istringstream lines(source);
        std::map<std::string, std::vector<std::size_t>> index;
        std::string line;
        for (std::size_t number = 0; std::getline(lines, line); number++) {
            std::vector<std::string> words;
            std::istringstream parts(line);
            for (std::string word; parts >> word;) words.push_back(word);
            for (auto &word : words) index[word].push_back(number);
        }
        std::vector<std::pair<std::size_t, std::string>> ranked;
        for (auto &[word, where] : index) ranked.emplace_back(where.size(), word);
        std::sort(ranked.rbegin(), ranked.rend());
        std::string joined;
        for (auto &[count, word] : ranked) joined += word + ":" + std::to_string(count) + ",";
        sum += joined.size() + index.size();
    }
    return sum;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
    std::vector<std::size_t> sums(threads);
    std::vector<std::thread> pool;
    for (int i = 0; i < threads; i++)
        pool.emplace_back([&sums, i, threads] { sums[i] = work(i + 1, 64 / threads); });
    std::size_t sum = 0;
    for (auto &thread : pool) thread.join();
    for (auto one : sums) sum += one;
    std::printf("%zu\n", sum);
}
