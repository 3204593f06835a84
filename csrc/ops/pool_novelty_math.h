// The arithmetic of pool_novelty_, one source for host and device. Similarities are those of seed_search.
#pragma once

#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg {

// The mean after the count-th value came.
AESG_HD inline float running_mean(float mean, float value, float count) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(mean, __fdiv_rn(__fsub_rn(value, mean), count));
#else
  return mean + (value - mean) / count;
#endif
}

// Which of two candidates of a full pool gives way: never the born before others, then the least joined, then
// the one that waited longest.
AESG_HD inline bool gives_way_before(uint8_t born_a, int32_t count_a, int64_t stamp_a, uint8_t born_b,
                                     int32_t count_b, int64_t stamp_b) {
  if (born_a != born_b) return born_a < born_b;
  return count_a != count_b ? count_a < count_b : stamp_a < stamp_b;
}

}  // namespace aesg
