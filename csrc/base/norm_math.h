// The inverse length of a stored vector, one source for the store (csrc/graph/population.cpp) and the ops on
// columns. Every operation rounds by itself: -ffp-contract=off on the host, --fmad=false on the device.
#pragma once

#include <cfloat>
#include <cmath>

#include "csrc/base/host_device.h"

namespace aesg {

// Below it 1 / |v| leaves f32: such a vector counts as zero and is like nothing.
inline constexpr double kShortest = FLT_MIN;

// A sum of squares goes on by one value. In order and in double, so that it does not depend on vectorisation.
AESG_HD inline double add_square(double sum, float value) {
  const double x = value;
  return sum + x * x;
}

// 1 / |v| from the sum of squares of v; 0 for a vector shorter than kShortest.
AESG_HD inline float inverse_length(double squares) {
  const double norm = sqrt(squares);
  return norm >= kShortest ? static_cast<float>(1.0 / norm) : 0.0f;
}

}  // namespace aesg
