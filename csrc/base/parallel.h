// A loop over threads: for work whose result does not depend on who does which part.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace aesg {

// Calls work(part, begin, end) for `threads` neighbouring parts of [0, n), the calling thread among those
// that work. Fewer parts when a part would be smaller than `grain`. What a part throws is thrown here, the
// first part's first.
template <typename Work>
void parallel_parts(int64_t n, int threads, int64_t grain, Work work) {
  const int64_t most = std::max<int64_t>(1, n / std::max<int64_t>(1, grain));
  const int64_t parts = std::clamp<int64_t>(threads, 1, most);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(parts));
  const auto run = [&](int64_t part) {
    try {
      work(part, n * part / parts, n * (part + 1) / parts);
    } catch (...) {
      errors[static_cast<size_t>(part)] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t part = 1; part < parts; ++part) others.emplace_back(run, part);
  run(0);
  for (std::thread& thread : others) thread.join();
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace aesg
