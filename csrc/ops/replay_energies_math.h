// The arithmetic of replay_energies backward, one source for host and device. With g_s = sum over k, in
// order, of d loss / d energy_k * jacobian_ks, and i(x) = 1 / |x|:
//
//   d loss / d q = (sum over s, in order, of g_s i(v_s) v_s  -  (sum over s of g_s cos_s) i(q) q) i(q)
//
// Every step is rounded to f32; lengths are summed in f64 (seed_search_math.h).
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"
#include "csrc/ops/read_members_math.h"
#include "csrc/ops/seed_search_math.h"

namespace aesg {

// g_s: gradients [K], and jacobian [K, S] from column s on.
AESG_HD inline float seed_gradient(const float* gradients, const float* jacobian, int64_t members,
                                   int64_t seed_count) {
  float sum = 0.0f;
  for (int64_t k = 0; k < members; ++k) sum = add_product(sum, gradients[k], jacobian[k * seed_count]);
  return sum;
}

AESG_HD inline float inverse_of(const float* row, int64_t dim) {
  return inverse_norm(sum_of_squares(row, dim));
}

}  // namespace aesg
