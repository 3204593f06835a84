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

// A heap with the last-ranked entry on top, which is the one to beat. O(log k) a kept entry, O(1) a rejected.
class TopK {
 public:
  void reset(int64_t k) {
    k_ = static_cast<size_t>(k);
    heap_.clear();
  }
  bool full() const { return heap_.size() == k_; }
  const Scored& last() const { return heap_.front(); }  // REQUIRES: full, k > 0

  void push(Scored entry) {
    if (heap_.size() < k_) {
      heap_.push_back(entry);
      std::push_heap(heap_.begin(), heap_.end());
      return;
    }
    if (k_ == 0 || !(entry < heap_.front())) return;
    // Sift the new entry down from the top: half the work of pop_heap and push_heap.
    size_t hole = 0;
    for (size_t child = 1; child < k_; child = 2 * hole + 1) {
      if (child + 1 < k_ && heap_[child] < heap_[child + 1]) ++child;
      if (!(entry < heap_[child])) break;
      heap_[hole] = heap_[child];
      hole = child;
    }
    heap_[hole] = entry;
  }
  void merge(const TopK& other) {
    for (const Scored& entry : other.heap_) push(entry);
  }
  // Best first. The heap is no heap afterwards: call reset before the next push.
  const std::vector<Scored>& sorted() {
    std::sort_heap(heap_.begin(), heap_.end());
    return heap_;
  }

 private:
  size_t k_ = 0;
  std::vector<Scored> heap_;
};

}  // namespace aesg::cpu
