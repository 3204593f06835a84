// TopK: the k first of a stream of (score, slot) in the order of ranks_before.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "csrc/ops/cpu/simd.h"
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

// The 2 kPairs first in the order of ranks_before, in registers. A key is a double whose bits are those of
// the score, which must be positive, before those of the slot: positive doubles rank as their bits do.
// Putting one in its place takes three instructions a pair and no branch. (Of one hop of spreading, whose
// branches cannot be foretold, a heap of ten took 39 % of the time.)
template <int kPairs>
class FewBest {
 public:
  static AESG_INLINE double key(float score, int32_t slot, bool counts = true) {
    uint32_t high;
    std::memcpy(&high, &score, sizeof high);
    uint64_t bits = uint64_t{high} << 32 | (UINT32_MAX - static_cast<uint32_t>(slot));
    bits &= -static_cast<uint64_t>(counts);
    double made;
    std::memcpy(&made, &bits, sizeof made);
    return made;
  }
  static AESG_INLINE float score(double key) {
    uint64_t bits;
    std::memcpy(&bits, &key, sizeof bits);
    const uint32_t high = static_cast<uint32_t>(bits >> 32);
    float found;
    std::memcpy(&found, &high, sizeof found);
    return found;
  }
  AESG_INLINE void push(double key) {
    const Pair x{key, key};
#pragma GCC unroll 8
    for (int p = kPairs - 1; p >= 0; --p) {
      const Pair before = p == 0 ? Pair{std::numeric_limits<double>::infinity(), best_[0][0]}
                                 : joined(best_[p - 1], best_[p]);
      best_[p] = larger(best_[p], smaller(before, x));
    }
  }
  AESG_INLINE double last() const { return best_[kPairs - 1][1]; }
  // The k first, padded with 0 and -1. REQUIRES: k <= 2 kPairs.
  AESG_INLINE void write(int64_t k, float* scores, int64_t* slots) const {
    alignas(16) double keys[2 * kPairs];  // pairs picked by a variable would all have to live in memory
#pragma GCC unroll 8
    for (int p = 0; p < kPairs; ++p) std::memcpy(keys + 2 * p, &best_[p], sizeof(Pair));
    for (int64_t i = 0; i < k; ++i) {
      uint64_t bits;
      std::memcpy(&bits, &keys[i], sizeof bits);
      const uint32_t high = static_cast<uint32_t>(bits >> 32);
      std::memcpy(&scores[i], &high, sizeof high);
      slots[i] = bits != 0 ? static_cast<int64_t>(UINT32_MAX - static_cast<uint32_t>(bits)) : -1;
    }
  }

 private:
  typedef double Pair __attribute__((vector_size(16)));
#if defined(__x86_64__)
  static AESG_INLINE Pair joined(Pair a, Pair b) {  // the second of a, the first of b
    return (Pair)_mm_shuffle_pd((__m128d)a, (__m128d)b, 1);
  }
  static AESG_INLINE Pair smaller(Pair a, Pair b) { return (Pair)_mm_min_pd((__m128d)a, (__m128d)b); }
  static AESG_INLINE Pair larger(Pair a, Pair b) { return (Pair)_mm_max_pd((__m128d)a, (__m128d)b); }
#else
  static AESG_INLINE Pair joined(Pair a, Pair b) { return Pair{a[1], b[0]}; }
  static AESG_INLINE Pair smaller(Pair a, Pair b) { return a < b ? a : b; }
  static AESG_INLINE Pair larger(Pair a, Pair b) { return a > b ? a : b; }
#endif

  Pair best_[kPairs] = {};
};

}  // namespace aesg::cpu
