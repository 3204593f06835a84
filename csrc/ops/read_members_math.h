// The arithmetic of read_members, one source for host and device.
//
//   score_hk = (sought_h . v_k) / |v_k| + weight_h likeness_k + log energy_k,  likeness_k = (q / |q|) . v_k /
//   |v_k| share_hk = exp(score_hk - highest_h) / (exp(-highest_h) + sum_j exp(score_hj - highest_h)),  j in
//   order
//
// A sum over D is made in kSumLanes lanes, lane l of d = l, l + kSumLanes, .., which are then added in
// halves.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

inline constexpr int kSumLanes = 16;

#if defined(__CUDA_ARCH__)
// Through f64, so that the device is at most one unit in the last place away from any good libm.
__device__ inline float exact_log(float x) { return __double2float_rn(log(static_cast<double>(x))); }
__device__ inline float exact_exp(float x) { return __double2float_rn(exp(static_cast<double>(x))); }
#else
inline float exact_log(float x) { return std::log(x); }
inline float exact_exp(float x) { return std::exp(x); }
#endif

// 1 / |v| from the sum of squares; the zero vector stays.
AESG_HD inline float inverse_length(float sum_of_squares) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(1.0f, fmaxf(__fsqrt_rn(sum_of_squares), FLT_MIN));
#else
  const float length = std::sqrt(sum_of_squares);
  return 1.0f / (length < FLT_MIN ? FLT_MIN : length);
#endif
}

AESG_HD inline float log_energy(float energy) { return exact_log(energy < FLT_MIN ? FLT_MIN : energy); }

// sum + a * b with both steps rounded.
AESG_HD inline float add_product(float sum, float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(sum, __fmul_rn(a, b));
#else
  return sum + a * b;
#endif
}

AESG_HD inline float member_score(float along, float inverse, float weight, float likeness, float log) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fadd_rn(__fmul_rn(along, inverse), __fmul_rn(weight, likeness)), log);
#else
  return along * inverse + weight * likeness + log;
#endif
}

// d loss / d score from d loss / d (found along the member) and its average over all members.
AESG_HD inline float score_slope(float share, float slope, float average) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(share, __fsub_rn(slope, average));
#else
  return share * (slope - average);
#endif
}

// The part of a gradient across the unit query, in terms of the query itself.
AESG_HD inline float across(float gradient, float along, float unit, float inverse) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(__fsub_rn(gradient, __fmul_rn(along, unit)), inverse);
#else
  return (gradient - along * unit) * inverse;
#endif
}

}  // namespace aesg
