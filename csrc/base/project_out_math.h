// A vector without its part along one direction u of length 1, v - (v.u) u: one source for the graph
// (csrc/graph/common_part.cpp) and the ops on columns. Sums are in double, in kSums partial sums that are
// folded in a fixed order, and every operation rounds by itself (-ffp-contract=off on the host, --fmad=false
// on the device): the same bits everywhere.
#pragma once

#include <cstdint>

#include "csrc/base/host_device.h"
#include "csrc/base/norm_math.h"

namespace aesg {

// What is left of a vector below this share of its length is rounding, and counts as nothing.
inline constexpr double kNothingLeft = 1e-6;

inline constexpr int kSums = 8;  // value d of a vector belongs to sum d % kSums

AESG_HD inline double fold_sums(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// Of a vector: its part along u, and its squared length.
struct Along {
  double part, square;
};

// One value of what is left.
AESG_HD inline double rest_of(float value, double part, double u) { return value - part * u; }

// Of squared lengths. What is not finite stays something: it must not pass for a vector of nothing of its
// own.
AESG_HD inline bool nothing_left(double rest, double square) {
  return rest <= kNothingLeft * kNothingLeft * square;
}

// 1 / the length of what is left, 0 where that is nothing.
AESG_HD inline float inverse_rest(double rest, double square) {
  return nothing_left(rest, square) ? 0.0f : inverse_length(rest);
}

// -- a whole vector on the host ----------------------------------------------------------------------------

inline Along along(const double* u, const float* vector, int64_t dim) {
  double part[kSums] = {}, square[kSums] = {};
  const auto add = [&](int64_t d, int lane) {
    const double x = vector[d];
    part[lane] += x * u[d];
    square[lane] += x * x;
  };
  int64_t d = 0;
  for (; d + kSums <= dim; d += kSums)
    for (int lane = 0; lane < kSums; ++lane) add(d + lane, lane);
  for (int lane = 0; d < dim; ++d, ++lane) add(d, lane);
  return {fold_sums(part), fold_sums(square)};
}

// The squared length of what is left of a vector with that part along u.
inline double rest_square(const double* u, const float* vector, int64_t dim, double part) {
  double square[kSums] = {};
  const auto add = [&](int64_t d, int lane) {
    const double rest = rest_of(vector[d], part, u[d]);
    square[lane] += rest * rest;
  };
  int64_t d = 0;
  for (; d + kSums <= dim; d += kSums)
    for (int lane = 0; lane < kSums; ++lane) add(d + lane, lane);
  for (int lane = 0; d < dim; ++d, ++lane) add(d, lane);
  return fold_sums(square);
}

}  // namespace aesg
