// A vector without its part along one direction u of length 1, v - (v.u) u: one source for the graph
// (csrc/graph/common_part.cpp) and the ops on columns. Sums are in double and in order, and every operation
// rounds by itself (-ffp-contract=off on the host, --fmad=false on the device): the same bits everywhere.
#pragma once

#include "csrc/base/host_device.h"
#include "csrc/base/norm_math.h"

namespace aesg {

// What is left of a vector below this share of its length is rounding, and counts as nothing.
inline constexpr double kNothingLeft = 1e-6;

// Of a vector: its part along u, and its squared length.
struct Along {
  double part = 0, square = 0;
};

AESG_HD inline Along add_along(const Along& sum, float value, double u) {
  const double x = value;
  return {sum.part + x * u, sum.square + x * x};
}

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

}  // namespace aesg
