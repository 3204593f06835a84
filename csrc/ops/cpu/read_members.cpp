// A position reads K members of D floats: everything stays in the nearest cache. Sums over D are made in 16
// lanes, which are then added in order, so that any instruction set gives the same bits.
#include "csrc/ops/cpu/read_members.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/read_members_math.h"

namespace aesg::cpu {
namespace {

constexpr int64_t kLanes = kSumLanes;

AESG_INLINE float dot(const float* __restrict a, const float* __restrict b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= n; d += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += a[d + l] * b[d + l];
  for (int64_t l = 0; d + l < n; ++l) lanes[l] += a[d + l] * b[d + l];
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  return lanes[0];
}

AESG_INLINE void add_scaled(float* __restrict to, const float* __restrict from, float scale, int64_t n) {
  for (int64_t d = 0; d < n; ++d) to[d] += scale * from[d];
}

// 1 / |v|; the zero vector stays.
AESG_INLINE float inverse_length(const float* v, int64_t n) { return aesg::inverse_length(dot(v, v, n)); }

// Of every member 1 / |v| [K], and the query of length 1 [D].
AESG_INLINE float prepare(const Reading& reading, const ReadingIn& in, float* inverses, float* unit) {
  for (int64_t k = 0; k < reading.members; ++k)
    inverses[k] = in.energies[k] > 0.0f ? inverse_length(in.vectors + k * reading.dim, reading.dim) : 0.0f;
  const float inverse = inverse_length(in.query, reading.dim);
  for (int64_t d = 0; d < reading.dim; ++d) unit[d] = in.query[d] * inverse;
  return inverse;
}

}  // namespace

int64_t reading_scratch(const Reading& reading) { return 3 * reading.members + 2 * reading.dim; }

AESG_CLONES void read_members(const Reading& reading, const ReadingIn& in, float* found, float* mean,
                              float* shares, float* scratch) {
  const int64_t members = reading.members, dim = reading.dim;
  float *inverses = scratch, *logs = inverses + members, *likeness = logs + members,
        *unit = likeness + members;
  prepare(reading, in, inverses, unit);
  std::fill_n(mean, dim, 0.0f);
  for (int64_t k = 0; k < members; ++k) {
    if (!(in.energies[k] > 0.0f)) continue;
    const float* v = in.vectors + k * dim;
    logs[k] = log_energy(in.energies[k]);
    likeness[k] = dot(unit, v, dim) * inverses[k];
    add_scaled(mean, v, in.energies[k], dim);
  }
  for (int64_t h = 0; h < reading.heads; ++h) {
    const float* sought = in.sought + h * dim;
    float* share = shares + h * members;
    float* to = found + h * dim;
    float highest = 0.0f;  // the score of "nothing"
    for (int64_t k = 0; k < members; ++k) {
      share[k] = 0.0f;
      if (!(in.energies[k] > 0.0f)) continue;
      share[k] = member_score(dot(sought, in.vectors + k * dim, dim), inverses[k], reading.likeness_weight[h],
                              likeness[k], logs[k]);
      highest = std::max(highest, share[k]);
    }
    float total = exact_exp(-highest);
    for (int64_t k = 0; k < members; ++k) {
      share[k] = in.energies[k] > 0.0f ? exact_exp(share[k] - highest) : 0.0f;
      total += share[k];
    }
    std::fill_n(to, dim, 0.0f);
    for (int64_t k = 0; k < members; ++k) {
      share[k] /= total;
      if (share[k] != 0.0f) add_scaled(to, in.vectors + k * dim, share[k] * inverses[k], dim);
    }
  }
}

// With m, u the members and the query of length 1, w the energies, p the shares:
//   score_hk = (sought_h + weight_h u) . m_k + log w_k,  found_h = sum p_hk m_k,  mean = sum w_k v_k
//   d score_hk = p_hk (g_h . m_k - sum_j p_hj g_h . m_j),  g the gradient of found; "nothing" adds nothing.
AESG_CLONES void read_members_backward(const Reading& reading, const ReadingIn& in, const float* shares,
                                       const float* grad_found, const float* grad_mean, float* grad_sought,
                                       float* grad_query, float* grad_weight, float* grad_energies,
                                       float* scratch) {
  const int64_t members = reading.members, dim = reading.dim;
  float *inverses = scratch, *slopes = inverses + members, *unit = slopes + 2 * members,
        *grad_unit = unit + dim;
  const float inverse = prepare(reading, in, inverses, unit);
  std::fill_n(grad_unit, dim, 0.0f);
  for (int64_t k = 0; k < members; ++k)
    grad_energies[k] = in.energies[k] > 0.0f ? dot(grad_mean, in.vectors + k * dim, dim) : 0.0f;
  for (int64_t h = 0; h < reading.heads; ++h) {
    const float* share = shares + h * members;
    const float* grad = grad_found + h * dim;
    float* to = grad_sought + h * dim;
    std::fill_n(to, dim, 0.0f);
    float average = 0.0f;
    for (int64_t k = 0; k < members; ++k) {
      slopes[k] = share[k] != 0.0f ? dot(grad, in.vectors + k * dim, dim) * inverses[k] : 0.0f;
      average += share[k] * slopes[k];
    }
    for (int64_t k = 0; k < members; ++k) {
      if (share[k] == 0.0f) continue;
      const float slope = score_slope(share[k], slopes[k], average);
      add_scaled(to, in.vectors + k * dim, slope * inverses[k], dim);
      if (in.energies[k] >= FLT_MIN) grad_energies[k] += slope / in.energies[k];
    }
    grad_weight[h] = dot(to, unit, dim);
    add_scaled(grad_unit, to, reading.likeness_weight[h], dim);
  }
  const float along = dot(grad_unit, unit, dim);
  for (int64_t d = 0; d < dim; ++d) grad_query[d] = across(grad_unit[d], along, unit[d], inverse);
}

}  // namespace aesg::cpu
