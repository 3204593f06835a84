// pool_novelty_ on the CPU. Inputs depend on each other (one changes the candidate the next may join), yet
// most similarities do not: a chunk of inputs is searched against the pool at once with the seed_search
// kernel, and then taken one by one, comparing anew only with the few candidates that changed since. Both
// ways compute a similarity with the same arithmetic, so the result is that of the plain loop to the last
// bit.
#include "csrc/ops/cpu/pool_novelty.h"

#include <algorithm>
#include <vector>

#include "csrc/ops/cpu/seed_search.h"
#include "csrc/ops/pool_novelty_math.h"
#include "csrc/ops/seed_search_math.h"

namespace aesg::cpu {
namespace {

constexpr int64_t kChunk = 64;
// Candidates kept from the search: when all of them changed since, the input is compared with the whole pool.
constexpr int64_t kKept = 4;

constexpr float kUnknown = -1.0f;

float vector_inverse_norm(const float* vector, int64_t dim) {
  return inverse_norm(sum_of_squares(vector, dim));
}

class Pooling {
 public:
  Pooling(const NoveltyPool& pool, const NoveltyRules& rules)
      : pool_(pool),
        rules_(rules),
        size_(pool.state[0]),
        inverse_(pool.capacity, kUnknown),
        born_(pool.capacity) {}

  void chunk(const float* inputs, int64_t n, uint8_t* born, float* born_vectors) {
    const int64_t dim = pool_.dim;
    const Column<const float> rows{pool_.candidates, size_, dim};
    const SeedSearch job{inputs, n, dim, rows, {}, {}, size_, rules_.threshold};
    packed_.resize(n * dim);
    best_.resize(n);
    for (TopK& top : best_) top.reset(std::min(kKept, size_));
    seed_search_prepare(job, packed_.data());
    seed_search_range(job, packed_.data(), 0, n, 0, size_, best_.data());
    changed_.clear();
    is_changed_.assign(pool_.capacity, 0);

    unit_.resize(dim);
    for (int64_t i = 0; i < n; ++i) {
      const float* input = inputs + i * dim;
      const float input_inverse = vector_inverse_norm(input, dim);
      if (input_inverse == 0.0f) continue;
      for (int64_t d = 0; d < dim; ++d) unit_[d] = input[d] * input_inverse;
      int64_t row = nearest(best_[i]);
      if (row >= 0) {
        join(row, input);
      } else {
        row = place(input);
      }
      if (born_[row] || (pool_.counts[row] < rules_.birth_count && !first_)) continue;
      first_ = false;
      born_[row] = 1;
      born[i] = 1;
      std::copy_n(row_of(row), dim, born_vectors + i * dim);
    }
  }

  // The born leave; the others close ranks.
  void finish() {
    int64_t kept = 0;
    for (int64_t row = 0; row < size_; ++row) {
      if (born_[row]) continue;
      if (kept != row) {
        std::copy_n(row_of(row), pool_.dim, row_of(kept));
        pool_.counts[kept] = pool_.counts[row];
        pool_.stamps[kept] = pool_.stamps[row];
      }
      ++kept;
    }
    pool_.state[0] = kept;
  }

 private:
  float* row_of(int64_t row) const { return pool_.candidates + row * pool_.dim; }

  float similarity(int64_t row) {
    if (inverse_[row] == kUnknown) inverse_[row] = vector_inverse_norm(row_of(row), pool_.dim);
    return clamp_similarity(seed_search_dot(unit_.data(), row_of(row), pool_.dim) * inverse_[row]);
  }

  // The candidate to join, -1: none is near enough. `found`: the best when the chunk began.
  int64_t nearest(TopK& found) {
    const bool full = found.full() && size_ > 0;
    Scored best{0, -1};
    for (const Scored& entry : found.sorted())
      if (!is_changed_[entry.slot]) {
        best = entry;
        break;
      }
    const auto offer = [&](int64_t row) {
      const Scored entry{similarity(row), row};
      if (entry.score >= rules_.threshold && (best.slot < 0 || entry < best)) best = entry;
    };
    if (best.slot < 0 && full) {  // every kept one changed: those behind them are unknown
      for (int64_t row = 0; row < size_; ++row) offer(row);
    } else {
      for (const int64_t row : changed_) offer(row);
    }
    return best.slot;
  }

  void touch(int64_t row) {
    pool_.stamps[row] = pool_.state[1]++;
    inverse_[row] = kUnknown;
    if (is_changed_[row]) return;
    is_changed_[row] = 1;
    changed_.push_back(row);
  }

  void join(int64_t row, const float* input) {
    float* mean = row_of(row);
    const float count = static_cast<float>(++pool_.counts[row]);
    for (int64_t d = 0; d < pool_.dim; ++d) mean[d] = running_mean(mean[d], input[d], count);
    touch(row);
  }

  // A new candidate, at the end or in the place of the least joined, then oldest one. Those already born stay
  // as long as there are others, since equal inputs of this call must meet them.
  int64_t place(const float* input) {
    int64_t row = size_;
    if (size_ < pool_.capacity) {
      ++size_;
    } else {
      row = 0;
      for (int64_t r = 1; r < size_; ++r)
        if (gives_way_before(born_[r], pool_.counts[r], pool_.stamps[r], born_[row], pool_.counts[row],
                             pool_.stamps[row]))
          row = r;
    }
    std::copy_n(input, pool_.dim, row_of(row));
    pool_.counts[row] = 1;
    born_[row] = 0;
    touch(row);
    return row;
  }

  const NoveltyPool& pool_;
  const NoveltyRules& rules_;
  int64_t size_;
  bool first_ = rules_.birth_first;
  std::vector<float> inverse_;  // inverse norms of the candidates, as far as they were needed
  std::vector<uint8_t> born_;   // born in this call, still there to absorb
  std::vector<float> packed_, unit_;
  std::vector<TopK> best_;
  std::vector<int64_t> changed_;  // rows that differ from those searched
  std::vector<uint8_t> is_changed_;
};

}  // namespace

void pool_novelty(const NoveltyPool& pool, const NoveltyRules& rules, const float* inputs, int64_t n,
                  uint8_t* born, float* born_vectors) {
  std::fill_n(born, n, uint8_t{0});
  std::fill_n(born_vectors, n * pool.dim, 0.0f);
  Pooling pooling(pool, rules);
  for (int64_t first = 0; first < n; first += kChunk)
    pooling.chunk(inputs + first * pool.dim, std::min(kChunk, n - first), born + first,
                  born_vectors + first * pool.dim);
  pooling.finish();
}

}  // namespace aesg::cpu
