// The rows of seed_search's sieve: rounded to bf16 at length 1, as the left factor of a product on tensor
// cores, and how far the product of such a row may be off. That bound is what makes the sieve exact.
#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/ops/gpu/launch.h"
#include "csrc/ops/gpu/mma.cuh"

namespace aesg::gpu {

inline constexpr int kWarp = 32;

// What is added to all products of a row, so that what comes out is above (kSample: below) its similarities.
//
// Let y be the row times its inverse norm, q a query of length <= 1.0001, y + e and q + f their codes. Sums
// over the codes are off by q e + f y + f e, at most 1.0001 |e| + |f| (|y| + |e|), where |f| is the largest
// of all queries.
//
// Tensor cores multiply codes exactly, add 16 products to a sum at once, in any order, and may cut off what
// lies 2^-23 and more below the largest of these: 17 times that a step, if every one lost all it could, of
// something below 1.1 (1 + |y|). The margin allows for 2^-19 of it a dimension, more than ten times as much.
// The promised sum's own roundings, D 2^-24 |y|, and as much again for products below the normal range, are
// in that too. |y| and |e|, themselves sums in f32, may be a little short: 1 %.
//
// All this needs an inverse norm in the normal range and a row whose promised sum cannot overflow; other rows
// have no codes: they are candidates of every query, and none counts in the sample. A row scaled by 0 has
// similarity 0 or, where its sum overflows, none.
struct Margin {
  float query_error;
  float step_error;

  __device__ Margin(float query_error, int steps)
      : query_error(query_error), step_error(static_cast<float>(16 * steps + 32) * 0x1p-19f) {}

  __device__ float of(float length, float lost) const {
    const float rounding = 1.01f * (lost + query_error * (length + lost));
    return rounding + step_error * (1.0f + length);
  }
};

struct RowClass {
  float start;     // of its sums
  bool has_codes;  // else zeros
};

template <bool kSample>
__device__ RowClass classify(float inverse, float squares, float lost_squares, const Margin& margin) {
  const float length = __fsqrt_rn(squares), lost = __fsqrt_rn(lost_squares), scale = fabsf(inverse);
  if (inverse != inverse) return {NAN, false};  // also a row that does not count
  const bool sound =
      scale >= 0x1p-126f && scale <= 0x1p126f && length <= 0x1p40f && length <= scale * 0x1p126f;
  if (kSample) return sound ? RowClass{-margin.of(length, lost), true} : RowClass{NAN, false};
  if (sound) return {margin.of(length, lost), true};
  return {scale == 0.0f ? 0.0f : INFINITY, false};
}

// Eight values of a row from dimension d on, zeros behind its end.
__device__ inline void load_eight(const float* row, int d, int dim, bool vectorizable, float (&x)[8]) {
  if (vectorizable) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 four =
          d + i < dim ? *reinterpret_cast<const float4*>(row + d + i) : float4{0.0f, 0.0f, 0.0f, 0.0f};
      x[i] = four.x;
      x[i + 1] = four.y;
      x[i + 2] = four.z;
      x[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = d + i < dim ? row[d + i] : 0.0f;
  }
}

__device__ inline float add_four_lanes(float value) {
  value = __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, 1, kWarp));
  return __fadd_rn(value, __shfl_xor_sync(0xffffffffu, value, 2, kWarp));
}

// Sixteen rows from `first` on as the left factor of K products, and the start of their sums: of rows g and g
// + 8 for lane 4 g + c. Within 32 dimensions, two steps, a lane holds eight that lie side by side, of rows as
// of queries: which of a step's dimensions is called which does not matter to the sum.
template <int K, bool kSample>
__device__ void load_rows(const SeedSearch& job, bool vectorizable, int64_t first, const Margin& margin,
                          uint32_t (&a)[K][4], float (&start)[2]) {
  const int g = threadIdx.x % kWarp / 4, c = threadIdx.x % 4, dim = static_cast<int>(job.dim);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t row = first + g + 8 * half;
    const bool inside = row < job.count;
    const float* from = job.vectors.at(inside ? row : 0);
    // Rows are read without waiting for whether they are active: nearly all are.
    const float given = inside ? job.inv_norm[row] : NAN;
    const float inverse = inside && job.active && job.active[row] == 0 ? NAN : given;
    float squares = 0.0f, lost = 0.0f;
#pragma unroll
    for (int j = 0; j < K / 2; ++j) {
      float x[8];
      load_eight(from, 32 * j + 8 * c, inside ? dim : 0, vectorizable, x);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float low = __fmul_rn(x[2 * i], inverse), high = __fmul_rn(x[2 * i + 1], inverse);
        const uint32_t code = pack_bf16(low, high);
        const float low_error = __fsub_rn(low, low_of_bf16(code));
        const float high_error = __fsub_rn(high, high_of_bf16(code));
        squares = __fmaf_rn(high, high, __fmaf_rn(low, low, squares));
        lost = __fmaf_rn(high_error, high_error, __fmaf_rn(low_error, low_error, lost));
        a[2 * j + i / 2][i % 2 * 2 + half] = code;
      }
    }
    const RowClass row_class =
        classify<kSample>(inverse, add_four_lanes(squares), add_four_lanes(lost), margin);
    start[half] = row_class.start;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      a[k][half] = row_class.has_codes ? a[k][half] : 0u;
      a[k][2 + half] = row_class.has_codes ? a[k][2 + half] : 0u;
    }
  }
}

}  // namespace aesg::gpu
