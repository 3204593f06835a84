// What project_out and project_out_inv_norm_ work on; their arithmetic is csrc/base/project_out_math.h.
#pragma once

#include <cstdint>

#include "csrc/base/project_out_math.h"
#include "csrc/ops/columns.h"

namespace aesg {

struct ProjectOut {
  const float* vectors;     // [n, D]
  const double* direction;  // [D]
  int64_t count, dim;
  float* rests;  // [n, D], all written
};

struct ProjectOutInvNorm {
  const float* vectors;     // [n, D]
  const int64_t* slots;     // [n], distinct; outside 0..N-1: left out
  const double* direction;  // [D]
  int64_t count, dim;
  Column<float> inv_norm;  // [N], written
};

}  // namespace aesg
