// What the parts of seed_search on the device share: seed_search.cu chooses, seed_search_exact.cu sums every
// pair in the promised order, seed_search_sieve.cu only those that an approximate product cannot rule out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/seed_search_math.h"

namespace aesg::gpu {

// Two blocks on each of the 132 multiprocessors of an H200.
inline constexpr int64_t kResidentBlocks = 264;

// Hands out the parts of a workspace; with a null base it only adds up what they take.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* take(int64_t count) {
    T* part = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

// Queries of length 1, each padded with zeros to a multiple of 4 floats.
struct UnitQueries {
  const float* base;  // [B, pitch], 16-byte aligned
  int64_t pitch;
  // [B] 1: of a query of length 0, whose similarities are all 0 or none, where a result must be more. Null:
  // none is idle.
  const uint8_t* idle;

  __device__ bool is_idle(int64_t b) const { return idle != nullptr && idle[b] != 0; }
  UnitQueries from(int64_t b) const {
    return {base + b * pitch, pitch, idle == nullptr ? nullptr : idle + b};
  }

  __host__ __device__ static int64_t pitch_of(int64_t dim) { return (dim + 3) / 4 * 4; }
};

// Queries that a kernel answers, when the host does not know which. The first `*count` of `which`.
struct Chosen {
  const int* which = nullptr;  // null: all of the batch
  const int* count = nullptr;
};

// Whether a similarity, before it is clamped, is a result: as on the CPU, where one of minus infinity is
// none.
__device__ inline bool is_result(float score, float min_score) {
  return min_score <= -1.0f ? score > -INFINITY : score >= min_score;
}

// Whether rows can be read 16 bytes at a time.
inline bool is_vectorizable(const SeedSearch& job) {
  const auto groups = job.vectors.flat() ? 0 : job.vectors.group_stride;
  return job.dim % 4 == 0 && groups % 4 == 0 && job.vectors.row_stride % 4 == 0 &&
         reinterpret_cast<uintptr_t>(job.vectors.base) % 16 == 0;
}

// The exact search of `chosen`, or of all, and the ranking of what its parts found. `parts` is the number of
// parts of the rows, 0: as many as keep the device busy. Places are taken from the arena; with a null base
// nothing is launched.
int search_exactly(const SeedSearch& job, UnitQueries units, Chosen chosen, int64_t parts, Arena& arena,
                   float* scores, int64_t* slots, Stream stream);

// Whether the sieve is the quicker way, and the search by it; the same of its arena.
bool is_for_sieve(const SeedSearch& job);
int search_by_sieve(const SeedSearch& job, UnitQueries units, Arena& arena, float* scores, int64_t* slots,
                    Stream stream);

}  // namespace aesg::gpu
