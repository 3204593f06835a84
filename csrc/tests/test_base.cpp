// CRC-32C and the dirty map.
#include <random>

#include "csrc/base/crc32c.h"
#include "csrc/storage/dirty.h"
#include "csrc/tests/check.h"

namespace {

using aesg::crc32c;

TEST(crc32c_of_known_vectors) {  // RFC 3720, B.4, and the check value of the catalogue
  std::vector<uint8_t> bytes(32, 0);
  CHECK_EQ(crc32c(0, bytes.data(), 32), 0x8A9136AAu);
  bytes.assign(32, 0xFF);
  CHECK_EQ(crc32c(0, bytes.data(), 32), 0x62A8AB43u);
  for (size_t i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(i);
  CHECK_EQ(crc32c(0, bytes.data(), 32), 0x46DD794Eu);
  CHECK_EQ(crc32c(0, "123456789", 9), 0xE3069283u);
  CHECK_EQ(crc32c(0, nullptr, 0), 0u);
}

TEST(crc32c_is_the_same_in_pieces_and_without_the_instruction) {
  std::mt19937_64 random(1);
  std::vector<uint8_t> bytes(20000);
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  for (int i = 0; i < 300; ++i) {
    size_t begin = random() % 64, n = random() % (bytes.size() - begin), cut = n ? random() % n : 0;
    uint32_t whole = crc32c(0, bytes.data() + begin, n);
    CHECK_EQ(whole, aesg::crc32c_portable(0, bytes.data() + begin, n));
    CHECK_EQ(whole, crc32c(crc32c(0, bytes.data() + begin, cut), bytes.data() + begin + cut, n - cut));
  }
}

TEST(dirty_runs_are_what_was_marked) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 200; ++trial) {
    constexpr int64_t kLines = 64 * 78, kGroups = 5;
    aesg::storage::DirtyMap dirty(kLines);
    std::vector<std::vector<bool>> marked(kGroups, std::vector<bool>(kLines));
    for (uint64_t n = random() % 40; n > 0; --n) {
      auto group = static_cast<int64_t>(random() % kGroups), first = static_cast<int64_t>(random() % kLines);
      int64_t last =
          std::min<int64_t>(first + static_cast<int64_t>(random() % (trial % 2 ? 300 : 3)), kLines - 1);
      dirty.mark(group, first, last);
      for (int64_t line = first; line <= last; ++line)
        marked[static_cast<size_t>(group)][static_cast<size_t>(line)] = true;
    }
    for (int64_t group : dirty.groups(kGroups)) {
      std::vector<bool> found(kLines);
      int64_t end = -1;
      dirty.for_each_run(group, [&](int64_t first, int64_t count) {
        CHECK(first > end && count > 0);  // ascending and maximal
        end = first + count;
        for (int64_t line = first; line < end; ++line) found[static_cast<size_t>(line)] = true;
      });
      CHECK(found == marked[static_cast<size_t>(group)]);
      marked[static_cast<size_t>(group)].assign(kLines, false);
    }
    for (const auto& group : marked) CHECK(group == std::vector<bool>(kLines));
    dirty.clear_below(3);
    for (int64_t group : dirty.groups(kGroups)) CHECK(group >= 3);
    dirty.clear_below(kGroups);
    CHECK(dirty.empty());
    dirty.mark(1, 5, 5);
    CHECK_EQ(dirty.lines(1), 1);
  }
}

}  // namespace
