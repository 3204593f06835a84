// The arithmetic of activate_context, one source for host and device.
//
// A similarity counts as a seed when it reaches relative * max(best of the query, bar). After spreading, with
// c the similarity of the best seed: a member's energy is min(energy, c) if c > 0, and a seed that was pushed
// out becomes an entry of its own. Kept are the K first in the order "seeds, then energy"; they are given out
// in the order of energy, of equals seeds first. What is equal in all this keeps its place.
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

AESG_HD inline float exact_product(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

// The least similarity that counts; NaN, which nothing reaches, when `best` is NaN.
AESG_HD inline float least_similarity(float relative, float best, float bar) {
  return exact_product(relative, best < bar ? bar : best);
}

// What primes a stream and carries over into its next step.
AESG_HD inline float primed_energy(float energy, float share) { return exact_product(energy, share); }

AESG_HD inline float led_energy(float energy, float best_seed) {
  return best_seed > 0.0f && best_seed < energy ? best_seed : energy;
}

// d led_energy / d similarity of one seed, from d energy / d similarity: of equals, half of each.
AESG_HD inline float led_slope(float slope, bool of_best_seed, float energy, float best_seed) {
  if (!(best_seed > 0.0f) || energy < best_seed) return slope;
  const float kept = energy == best_seed ? 0.5f : 0.0f;
  return slope * kept + (of_best_seed ? 1.0f - kept : 0.0f);
}

// Which of two entries is kept rather than the other.
AESG_HD inline bool kept_before(bool leads_a, float value_a, bool leads_b, float value_b) {
  return leads_a != leads_b ? leads_a : value_a > value_b;
}

// Which of two kept entries is given out first.
AESG_HD inline bool shown_before(bool leads_a, float value_a, bool leads_b, float value_b) {
  return value_a != value_b ? value_a > value_b : leads_a && !leads_b;
}

}  // namespace aesg
