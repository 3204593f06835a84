// The arithmetic of spread_activation, one source for host and device.
//
// One hop:  x_ij = ((a_i * strength) * decay) * factor_j in f32, in that order; carried if a_i >=
// source_floor
//           and x_ij > transfer_floor
//           n_j = sum over i of round(x_ij * 2^24), an integer
//           a_j = max(a_j, min(1, n_j * 2^-24))
// Integers add up to the same bits in any order, so results are equal for any thread count and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

inline constexpr float kFixedOne = 16777216.0f;  // 2^24: a unit of energy in fixed point
inline constexpr int64_t kFixedUnit = 1 << 24;
// Energy saturates at 1, so no edge need carry more and no sum need grow beyond this. Both keep 32 bits
// enough.
inline constexpr float kLargestTransfer = 1.0f;
inline constexpr int32_t kSumLimit = 1 << 25;

AESG_HD inline float transfer(float energy, float strength, float decay, float factor) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(__fmul_rn(__fmul_rn(energy, strength), decay), factor);
#else
  return ((energy * strength) * decay) * factor;
#endif
}

// What one edge adds to n_j; 0 when it carries nothing. Ties round to even. NaN carries nothing.
AESG_HD inline int32_t fixed_transfer(float x, float transfer_floor) {
  if (!(x > transfer_floor)) return 0;
  const float limited = x < kLargestTransfer ? x : kLargestTransfer;
#if defined(__CUDA_ARCH__)
  return __float2int_rn(__fmul_rn(limited, kFixedOne));
#else
  return static_cast<int32_t>(std::lrintf(limited * kFixedOne));
#endif
}

// min(1, n * 2^-24), exact.
AESG_HD inline float fixed_energy(int64_t n) {
  return static_cast<float>(n < kFixedUnit ? n : kFixedUnit) * (1.0f / kFixedOne);
}

// Derivatives where any thread may come first:  t_js = sum over i of (slope_ij * t_is) in f32, added up in
// fixed point with the unit 1 / tangent_scale(a_s). That is enough: what seed s gives to j is a part of a_j,
// so a_s * t_js <= a_j, and what saturates has no derivative, so a_j < 1.

inline constexpr int kTangentBits = 60;

// A power of two from 1 to 2^60.
AESG_HD inline double tangent_scale(float seed_energy) {
  const int exponent = seed_energy < 1.0f ? ilogbf(seed_energy) : 0;
  return ldexp(1.0, exponent < -kTangentBits ? 0 : kTangentBits + exponent);
}

AESG_HD inline uint64_t fixed_tangent(float slope, float tangent, double scale) {
  constexpr double kMost = 2305843009213693952.0;  // 2^61, never reached but from energies below 2^-60
#if defined(__CUDA_ARCH__)
  const double scaled = static_cast<double>(__fmul_rn(slope, tangent)) * scale;
  return static_cast<uint64_t>(__double2ll_rn(scaled < kMost ? scaled : kMost));
#else
  const double scaled = static_cast<double>(slope * tangent) * scale;
  return static_cast<uint64_t>(std::llrint(scaled < kMost ? scaled : kMost));
#endif
}

AESG_HD inline float float_tangent(uint64_t sum, double scale) {
  return static_cast<float>(static_cast<double>(static_cast<int64_t>(sum)) / scale);
}

}  // namespace aesg
