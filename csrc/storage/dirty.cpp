#include "csrc/storage/dirty.h"

#include <algorithm>

namespace aesg::storage {

DirtyMap::DirtyMap(int64_t lines_per_group) : words_per_group_(static_cast<size_t>(lines_per_group / 64)) {}

DirtyMap::Group& DirtyMap::touch(int64_t group) {
  size_t i = static_cast<size_t>(group);
  if (i >= groups_.size()) groups_.resize(i + 1);
  Group& g = groups_[i];
  if (!g.listed) {
    if (g.words.empty()) {
      g.words.resize(words_per_group_);
      g.summary.resize((words_per_group_ + 63) / 64);
    }
    listed_.push_back(group);
    g.listed = true;
  }
  return g;
}

std::vector<int64_t> DirtyMap::groups(int64_t limit) const {
  std::vector<int64_t> result;
  for (int64_t group : listed_) {
    if (group < limit) result.push_back(group);
  }
  std::sort(result.begin(), result.end());
  return result;
}

int64_t DirtyMap::lines(int64_t group) const {
  int64_t n = 0;
  for_each_run(group, [&](int64_t, int64_t count) { n += count; });
  return n;
}

void DirtyMap::clear_below(int64_t limit) {
  std::vector<int64_t> kept;
  for (int64_t group : listed_) {
    if (group >= limit) {
      kept.push_back(group);
      continue;
    }
    Group& g = groups_[static_cast<size_t>(group)];
    for (size_t s = 0; s < g.summary.size(); ++s) {
      for (uint64_t left = g.summary[s]; left; left &= left - 1) {
        g.words[s * 64 + static_cast<size_t>(__builtin_ctzll(left))] = 0;
      }
      g.summary[s] = 0;
    }
    g.listed = false;
  }
  listed_.swap(kept);
}

}  // namespace aesg::storage
