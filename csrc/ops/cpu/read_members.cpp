// A position reads K members of D floats: everything stays in the nearest cache. Sums over D are made in 16
// lanes, which are then added in order, so that any instruction set gives the same bits. What would limit it
// is the waiting for sums, so several are made side by side, and none is stored before it is whole.
#include "csrc/ops/cpu/read_members.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "csrc/ops/cpu/simd.h"
#include "csrc/ops/read_members_math.h"

namespace aesg::cpu {
namespace {

// The compiler takes what registers the machine has.
typedef float Four __attribute__((vector_size(16)));
typedef float Eight __attribute__((vector_size(32)));
constexpr int64_t kLanes = kSumLanes;
static_assert(kLanes == 16, "two of Eight");
constexpr int64_t kTogether = 4;  // sums side by side

AESG_INLINE void load(const float* from, Eight& to) { std::memcpy(&to, from, sizeof to); }

// The dot products of N rows with one.
template <int N>
AESG_INLINE void dots(const float* const* rows, const float* with, int64_t n, float* to) {
  Eight low[N], high[N];
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) low[i] = high[i] = Eight{};
  int64_t d = 0;
  for (; d + kLanes <= n; d += kLanes) {
    Eight left, right, x;
    load(with + d, left);
    load(with + d + 8, right);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      load(rows[i] + d, x);
      low[i] += x * left;
      load(rows[i] + d + 8, x);
      high[i] += x * right;
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    if (d < n) {
      float lanes[kLanes] = {};
      for (int64_t l = 0; d + l < n; ++l) lanes[l] = rows[i][d + l] * with[d + l];
      Eight left, right;
      load(lanes, left);
      load(lanes + 8, right);
      low[i] += left;
      high[i] += right;
    }
    const Eight both = low[i] + high[i];
    Four halves[2];
    std::memcpy(halves, &both, sizeof both);
    const Four sum = halves[0] + halves[1];
    to[i] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
  }
}

// The same for the rows of a matrix [count, n], which need not be many.
AESG_INLINE void row_dots(const float* matrix, int64_t count, const float* with, int64_t n, float* to) {
  for (int64_t row = 0; row < count; row += kTogether) {
    const float* rows[kTogether];
    for (int64_t i = 0; i < kTogether; ++i) rows[i] = matrix + std::min(row + i, count - 1) * n;
    float found[kTogether];
    if (count - row > 2)
      dots<kTogether>(rows, with, n, found);
    else
      dots<2>(rows, with, n, found);
    std::copy_n(found, std::min(kTogether, count - row), to + row);
  }
}

AESG_INLINE float dot(const float* a, const float* b, int64_t n) {
  float sum;
  dots<1>(&a, b, n, &sum);
  return sum;
}

// sum_k weights[k] rows[k], in order of k; a row of weight 0 is left out.
AESG_INLINE void weighted_sum(const float* rows, const float* weights, int64_t count, int64_t n, float* to) {
  constexpr int kWide = 4;
  int64_t d = 0;
  for (; d + 8 * kWide <= n; d += 8 * kWide) {
    Eight sum[kWide];
#pragma GCC unroll 4
    for (int i = 0; i < kWide; ++i) sum[i] = Eight{};
    for (int64_t k = 0; k < count; ++k) {
      if (weights[k] == 0.0f) continue;
#pragma GCC unroll 4
      for (int i = 0; i < kWide; ++i) {
        Eight x;
        load(rows + k * n + d + 8 * i, x);
        sum[i] += weights[k] * x;
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kWide; ++i) std::memcpy(to + d + 8 * i, &sum[i], sizeof sum[i]);
  }
  std::fill(to + d, to + n, 0.0f);
  for (int64_t k = 0; k < count && d < n; ++k)
    for (int64_t e = d; e < n && weights[k] != 0.0f; ++e) to[e] += weights[k] * rows[k * n + e];
}

// The query of length 1 [D]; returns 1 / |query|.
AESG_INLINE float prepare_query(const float* query, int64_t dim, float* unit) {
  const float inverse = inverse_length(dot(query, query, dim));
  for (int64_t d = 0; d < dim; ++d) unit[d] = query[d] * inverse;
  return inverse;
}

}  // namespace

int64_t reading_scratch(const Reading& reading) {
  return (reading.heads + 4) * reading.members + reading.heads + 2 * reading.dim;
}

AESG_CLONES void read_members(const Reading& reading, const ReadingIn& in, float* found, float* mean,
                              float* shares, float* scratch) {
  const int64_t members = reading.members, dim = reading.dim;
  float *inverses = scratch, *logs = inverses + members, *likeness = logs + members,
        *weights = likeness + members, *products = weights + members, *unit = products + reading.heads;
  prepare_query(in.query, dim, unit);
  for (int64_t k = 0; k < members; ++k) {
    weights[k] = in.energies[k] > 0.0f ? in.energies[k] : 0.0f;
    if (weights[k] == 0.0f) continue;
    const float* v = in.vectors + k * dim;
    const float* both[] = {v, unit};
    float lengths[2];
    dots<2>(both, v, dim, lengths);
    inverses[k] = inverse_length(lengths[0]);
    likeness[k] = lengths[1] * inverses[k];
    logs[k] = log_energy(in.energies[k]);
    row_dots(in.sought, reading.heads, v, dim, products);
    for (int64_t h = 0; h < reading.heads; ++h)
      shares[h * members + k] =
          member_score(products[h], inverses[k], reading.likeness_weight[h], likeness[k], logs[k]);
  }
  weighted_sum(in.vectors, weights, members, dim, mean);
  for (int64_t h = 0; h < reading.heads; ++h) {
    float* share = shares + h * members;
    float highest = 0.0f;  // the score of "nothing"
    for (int64_t k = 0; k < members; ++k)
      if (in.energies[k] > 0.0f) highest = std::max(highest, share[k]);
    float total = exact_exp(-highest);
    for (int64_t k = 0; k < members; ++k) {
      share[k] = in.energies[k] > 0.0f ? exact_exp(share[k] - highest) : 0.0f;
      total += share[k];
    }
    for (int64_t k = 0; k < members; ++k) {
      share[k] /= total;
      weights[k] = share[k] != 0.0f ? share[k] * inverses[k] : 0.0f;
    }
    weighted_sum(in.vectors, weights, members, dim, found + h * dim);
  }
}

// With m, u the members and the query of length 1, w the energies, p the shares:
//   score_hk = (sought_h + weight_h u) . m_k + log w_k,  found_h = sum p_hk m_k,  mean = sum w_k v_k
//   d score_hk = p_hk (g_h . m_k - sum_j p_hj g_h . m_j),  g the gradient of found; "nothing" adds nothing.
AESG_CLONES void read_members_backward(const Reading& reading, const ReadingIn& in, const float* shares,
                                       const float* grad_found, const float* grad_mean, float* grad_sought,
                                       float* grad_query, float* grad_weight, float* grad_energies,
                                       float* scratch) {
  const int64_t members = reading.members, dim = reading.dim, heads = reading.heads;
  float *inverses = scratch, *weights = inverses + members, *slopes = weights + members,
        *products = slopes + heads * members, *unit = products + heads, *grad_unit = unit + dim;
  const float inverse = prepare_query(in.query, dim, unit);
  std::fill_n(grad_unit, dim, 0.0f);
  for (int64_t k = 0; k < members; ++k) {
    grad_energies[k] = 0.0f;
    if (!(in.energies[k] > 0.0f)) continue;
    const float* v = in.vectors + k * dim;
    const float* both[] = {v, grad_mean};
    float found[2];
    dots<2>(both, v, dim, found);
    inverses[k] = inverse_length(found[0]);
    grad_energies[k] = found[1];
    row_dots(grad_found, heads, v, dim, products);
    for (int64_t h = 0; h < heads; ++h) slopes[h * members + k] = products[h] * inverses[k];
  }
  for (int64_t h = 0; h < heads; ++h) {
    const float* share = shares + h * members;
    float* slope = slopes + h * members;
    float* to = grad_sought + h * dim;
    float average = 0.0f;
    for (int64_t k = 0; k < members; ++k)
      if (share[k] != 0.0f) average += share[k] * slope[k];
    for (int64_t k = 0; k < members; ++k) {
      weights[k] = 0.0f;
      if (share[k] == 0.0f) continue;
      const float down = score_slope(share[k], slope[k], average);
      weights[k] = down * inverses[k];
      if (in.energies[k] >= FLT_MIN) grad_energies[k] += down / in.energies[k];
    }
    weighted_sum(in.vectors, weights, members, dim, to);
    grad_weight[h] = dot(to, unit, dim);
    for (int64_t d = 0; d < dim; ++d) grad_unit[d] += reading.likeness_weight[h] * to[d];
  }
  const float along = dot(grad_unit, unit, dim);
  for (int64_t d = 0; d < dim; ++d) grad_query[d] = across(grad_unit[d], along, unit[d], inverse);
}

}  // namespace aesg::cpu
