// The arithmetic of seed_search, one source for host and device.
//
// similarity(q, v) = clamp(dot(q * inverse_norm(q), v) * inverse_norm(v), -1, 1), where dot is the chain
// s = fma(q[d], v[d], s) for d = 0, 1, .. D-1. Nothing but D decides the order of the sum, so the bits of a
// similarity depend on the pair alone: not on B, the pair's place, the thread or the tile.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

// 1 / |x| from the sum of squares in f64 (where squares of f32 are exact and cannot overflow); 0 for a vector
// so short that its f32 inverse would not be finite.
AESG_HD inline float inverse_norm(double sum_of_squares) {
  const double norm = sqrt(sum_of_squares);
  return norm < static_cast<double>(FLT_MIN) ? 0.0f : static_cast<float>(1.0 / norm);
}

// |x|^2 in f64, in order: what inverse_norm takes.
AESG_HD inline double sum_of_squares(const float* x, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double value = x[d];
#if defined(__CUDA_ARCH__)
    sum = __dadd_rn(sum, __dmul_rn(value, value));
#else
    sum += value * value;
#endif
  }
  return sum;
}

// Rounding may carry the cosine of like vectors a little above 1; an energy must not be.
AESG_HD inline float clamp_similarity(float s) { return s > 1.0f ? 1.0f : s < -1.0f ? -1.0f : s; }

// The total order of results: more similar first, lower slot first among equals. It makes the k best unique,
// so any split of the rows over threads or blocks merges to the same answer.
AESG_HD inline bool ranks_before(float score_a, int64_t slot_a, float score_b, int64_t slot_b) {
  return score_a > score_b || (score_a == score_b && slot_a < slot_b);
}

}  // namespace aesg
