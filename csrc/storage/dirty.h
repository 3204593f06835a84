// Which 64-byte lines were changed since the last commit. Marking costs a few nanoseconds, walking costs what
// was marked: a list of groups, in each a bit a word, in each word a bit a line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace aesg::storage {

class DirtyMap {
 public:
  explicit DirtyMap(int64_t lines_per_group);

  // Lines [first, last] of one group.
  void mark(int64_t group, int64_t first, int64_t last) {
    Group& g = touch(group);
    for (int64_t line = first; line <= last;) {
      int64_t word = line / 64, end = last < word * 64 + 63 ? last : word * 64 + 63;
      uint64_t bits = ~uint64_t{0} >> (63 - (end - line)) << (line % 64);
      g.words[static_cast<size_t>(word)] |= bits;
      g.summary[static_cast<size_t>(word / 64)] |= uint64_t{1} << (word % 64);
      line = end + 1;
    }
  }

  bool empty() const { return listed_.empty(); }
  // Groups with marks, ascending, below `limit`.
  std::vector<int64_t> groups(int64_t limit) const;
  int64_t lines(int64_t group) const;
  void clear_below(int64_t limit);  // forgets the marks of groups [0, limit)

  // Calls run(first line in group, count) for every maximal run of marked lines, ascending.
  template <typename Run>
  void for_each_run(int64_t group, Run run) const {
    const Group& g = groups_[static_cast<size_t>(group)];
    int64_t first = 0, count = 0;
    for (size_t s = 0; s < g.summary.size(); ++s) {
      for (uint64_t left = g.summary[s]; left; left &= left - 1) {
        size_t w = s * 64 + static_cast<size_t>(__builtin_ctzll(left));
        uint64_t bits = g.words[w];
        int64_t at = static_cast<int64_t>(w) * 64;
        while (bits) {
          int skip = __builtin_ctzll(bits);
          bits >>= skip;
          at += skip;
          int ones = ~bits ? __builtin_ctzll(~bits) : 64;
          if (count && first + count == at) {
            count += ones;
          } else {
            if (count) run(first, count);
            first = at;
            count = ones;
          }
          if (ones == 64) break;
          bits >>= ones;
          at += ones;
        }
      }
    }
    if (count) run(first, count);
  }

 private:
  struct Group {
    std::vector<uint64_t> words;  // empty until the group is first marked
    std::vector<uint64_t> summary;
    bool listed = false;
  };
  Group& touch(int64_t group);

  std::size_t words_per_group_;
  std::vector<Group> groups_;
  std::vector<int64_t> listed_;
};

}  // namespace aesg::storage
