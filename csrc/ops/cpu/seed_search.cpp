// seed_search on the CPU: exact cosine top-k, fused and blocked. The living template of an op's kernel:
// what is promised stands in seed_search.h, the arithmetic in seed_search_math.h, the inner loops, once for
// all instruction sets, in seed_search_kernel.inl; this file prepares, chooses and calls.
#include "csrc/ops/cpu/seed_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/seed_search_math.h"

namespace aesg::cpu {
namespace {

// Queries are split into blocks of like size, since a small last block would keep the adders waiting.
// First query of block b, of `blocks` blocks over `total` queries.
inline int64_t block_start(int64_t b, int64_t blocks, int64_t total) { return b * total / blocks; }

// So few queries are answered row by row: the rows are then waited for, not the sums.
constexpr int64_t kFewQueries = 12;

namespace portable {
#define AESG_SIMD Portable
#define AESG_TARGET
#define AESG_FAST_TRANSPOSE 0
#include "csrc/ops/cpu/seed_search_kernel.inl"
#undef AESG_SIMD
#undef AESG_TARGET
#undef AESG_FAST_TRANSPOSE
}  // namespace portable

#if defined(__x86_64__)
namespace avx2 {
#define AESG_SIMD Avx2
#define AESG_TARGET AESG_AVX2
#define AESG_FAST_TRANSPOSE 1
#include "csrc/ops/cpu/seed_search_kernel.inl"
// These need what the kernel defines.
#include "csrc/ops/cpu/seed_search_few.inl"
#include "csrc/ops/cpu/seed_search_many.inl"
#undef AESG_SIMD
#undef AESG_TARGET
}  // namespace avx2

namespace avx512 {
#define AESG_SIMD Avx512
#define AESG_TARGET AESG_AVX512
#include "csrc/ops/cpu/seed_search_kernel.inl"
#undef AESG_SIMD
#undef AESG_TARGET
#undef AESG_FAST_TRANSPOSE
}  // namespace avx512
#endif

struct Kernel {
  decltype(&portable::search) search;
  decltype(&portable::search) search_many;  // the same by a sieve, where inverse norms are there; or null
  void (*search_few)(const SeedSearch&, const float*, int64_t, int64_t, int64_t, TopK*, float*);  // or null
  float (*dot)(const float*, const float*, int64_t);
  void (*eight_dots)(const float*, const float* const*, int64_t, float*);
  int64_t panel_rows;
  int64_t query_block;
};

const Kernel& kernel() {
  static const Kernel chosen = [] {
#if defined(__x86_64__)
    const Isa isa = pick_isa();
    if (isa == Isa::kAvx512)
      return Kernel{avx512::search,     nullptr,        avx2::search_few,   avx512::dot,
                    avx512::eight_dots, avx512::kPanel, Avx512::kQueryBlock};
    if (isa == Isa::kAvx2)
      return Kernel{avx2::search,     avx2::search_many, avx2::search_few, avx2::dot,
                    avx2::eight_dots, avx2::kPanel,      Avx2::kQueryBlock};
#endif
    return Kernel{
        portable::search,     nullptr, nullptr, portable::dot, portable::eight_dots, portable::kPanel,
        Portable::kQueryBlock};
  }();
  return chosen;
}

// Query blocks that pass by one panel stay in the second-level cache.
constexpr int64_t kQueryBytes = 256 << 10;

// Queries that are packed, and pass by the panels, together: a multiple of the block, and chunks of like
// size, since every chunk reads all rows again.
int64_t chunk_queries(int64_t dim, int64_t batch) {
  const int64_t block = kernel().query_block, bytes = 4 * dim * batch;
  const int64_t chunks = std::max<int64_t>(1, (bytes + kQueryBytes / 2) / kQueryBytes);
  const int64_t blocks = (batch + block - 1) / block;
  return std::max<int64_t>(1, (blocks + chunks - 1) / chunks) * block;
}

// What every bar starts from: exactly the similarities >= min_score are above it.
float first_bar(float min_score) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  return min_score <= -1.0f ? kNothing : std::nextafter(min_score, kNothing);
}

}  // namespace

int64_t seed_search_panel_rows() { return std::max<int64_t>(32, kernel().panel_rows); }
int64_t seed_search_query_chunk(int64_t dim, int64_t batch) { return chunk_queries(dim, batch); }

float seed_search_dot(const float* unit_query, const float* row, int64_t dim) {
  return kernel().dot(unit_query, row, dim);
}

void seed_search_eight_dots(const float* unit_query, const float* const* rows, int64_t dim, float* dots) {
  kernel().eight_dots(unit_query, rows, dim, dots);
}

float query_scale(const float* query, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(query[d]) * query[d];
  return inverse_norm(sum);
}

void seed_search_prepare(const SeedSearch& job, float* packed) {
  const int64_t dim = job.dim, chunk = chunk_queries(dim, job.batch);
  for (int64_t first = 0; first < job.batch; first += chunk) {
    const int64_t total = std::min(chunk, job.batch - first);
    const int64_t blocks = (total + kernel().query_block - 1) / kernel().query_block;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = first + block_start(b, blocks, total);
      const int64_t width = first + block_start(b + 1, blocks, total) - begin;
      for (int64_t q = 0; q < width; ++q) {
        const float* query = job.queries + (begin + q) * dim;
        const float inverse = query_scale(query, dim);
        for (int64_t d = 0; d < dim; ++d) packed[begin * dim + d * width + q] = query[d] * inverse;
      }
    }
  }
}

void seed_search_range(const SeedSearch& job, const float* packed, int64_t first_query, int64_t last_query,
                       int64_t first_row, int64_t last_row, TopK* best) {
  const Kernel& chosen = kernel();
  static thread_local std::vector<float> scratch;
  const size_t panel_floats = static_cast<size_t>(chosen.panel_rows * job.dim) + 16;
  const size_t bar_floats = static_cast<size_t>(job.batch);
  if (scratch.size() < panel_floats + bar_floats) scratch.resize(panel_floats + bar_floats);
  // 64-byte aligned, so that no load of the panel crosses a cache line.
  float* panel = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(scratch.data()) + 63) / 64 * 64);
  float* bars = scratch.data() + panel_floats;
  std::fill(bars + first_query, bars + last_query, first_bar(job.min_score));

  // More than one chunk is laid out, and may be asked for, chunk by chunk.
  const int64_t chunk = chunk_queries(job.dim, job.batch);
  const bool may_sift = job.inv_norm && !job.exact;
  if (job.batch <= std::min(kFewQueries, chunk) && may_sift && chosen.search_few != nullptr) {
    const int64_t pitch = (job.dim + 7) / 8 * 8;
    static thread_local std::vector<float> unit;  // the queries one below the other
    unit.assign(static_cast<size_t>(kFewQueries * pitch), 0.0f);
    const int64_t blocks = (job.batch + chosen.query_block - 1) / chosen.query_block;
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t begin = block_start(b, blocks, job.batch);
      const int64_t width = block_start(b + 1, blocks, job.batch) - begin;
      for (int64_t i = 0; i < width * job.dim; ++i)
        unit[(begin + i % width) * pitch + i / width] = packed[begin * job.dim + i];
    }
    return chosen.search_few(job, unit.data(), pitch, first_row, last_row, best, bars);
  }
  const auto search = may_sift && chosen.search_many != nullptr ? chosen.search_many : chosen.search;
  for (int64_t q = first_query; q < last_query; q += chunk)
    search(job, packed, q, std::min(q + chunk, last_query), first_row, last_row, best, panel, bars);
}

}  // namespace aesg::cpu
