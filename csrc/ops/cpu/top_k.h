// TopK: the k first of a stream of (score, slot) in the order of ranks_before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "csrc/ops/seed_search_math.h"

namespace aesg::cpu {

struct Scored {
  float score;
  int64_t slot;
};

inline bool operator<(const Scored& a, const Scored& b) {
  return ranks_before(a.score, a.slot, b.score, b.slot);
}

// Up to kFew entries in order, which costs less than a heap of them; beyond that a heap with the last-ranked
// entry on top, which is the one to beat. A rejected entry costs O(1), a kept one O(min(k, kFew + log k)).
class TopK {
 public:
  void reset(int64_t k) {
    k_ = static_cast<size_t>(k);
    kept_.clear();
  }
  bool full() const { return kept_.size() == k_; }
  const Scored& last() const { return is_few() ? kept_.back() : kept_.front(); }  // REQUIRES: full, k > 0

  void push(Scored entry) {
    if (full()) {
      if (k_ == 0 || !(entry < last())) return;
      if (!is_few()) return sift_down(entry);
    } else {
      kept_.push_back(entry);
      if (!is_few()) return std::push_heap(kept_.begin(), kept_.end());
    }
    Scored* at = &kept_.back();
    for (; at != kept_.data() && entry < at[-1]; --at) *at = at[-1];
    *at = entry;
  }
  void merge(const TopK& other) {
    for (const Scored& entry : other.kept_) push(entry);
  }
  // Best first. A heap is no heap afterwards: call reset before the next push.
  const std::vector<Scored>& sorted() {
    if (!is_few()) std::sort_heap(kept_.begin(), kept_.end());
    return kept_;
  }

 private:
  static constexpr size_t kFew = 16;

  bool is_few() const { return k_ <= kFew; }

  // Puts the entry in place of the top: half the work of pop_heap and push_heap.
  void sift_down(Scored entry) {
    size_t hole = 0;
    for (size_t child = 1; child < k_; child = 2 * hole + 1) {
      if (child + 1 < k_ && kept_[child] < kept_[child + 1]) ++child;
      if (!(entry < kept_[child])) break;
      kept_[hole] = kept_[child];
      hole = child;
    }
    kept_[hole] = entry;
  }

  size_t k_ = 0;
  std::vector<Scored> kept_;
};

}  // namespace aesg::cpu
