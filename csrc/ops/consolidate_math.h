// The arithmetic of consolidate_, one source for host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "csrc/ops/columns.h"

namespace aesg {

struct ConsolidateRules {
  float relevance_decay;         // an active concept keeps this share of its relevance
  uint32_t min_age;              // doomed only when older than this
  float relevance_threshold;     // and less relevant than this
  uint32_t frequency_threshold;  // and used less often than this
};

// One concept: ages it and says whether it is doomed (1) or not (0). Without any branch, even a hidden one:
// loops over it must vectorise.
AESG_HD inline uint8_t consolidate_one(const ConsolidateRules& rules, uint8_t active, uint32_t use_frequency,
                                       uint32_t& age, float& relevance) {
  const uint32_t lives = active != 0, mask = 0u - lives;
  const uint32_t older = age + lives;
#if defined(__CUDA_ARCH__)
  const float faded = __fmul_rn(relevance, rules.relevance_decay);
#else
  const float faded = relevance * rules.relevance_decay;
#endif
  uint32_t before, after;
  memcpy(&before, &relevance, sizeof before);
  memcpy(&after, &faded, sizeof after);
  after = (after & mask) | (before & ~mask);
  memcpy(&relevance, &after, sizeof after);
  age = older;
  const uint32_t doomed = (older > rules.min_age) & (faded < rules.relevance_threshold) &
                          (use_frequency < rules.frequency_threshold);
  return static_cast<uint8_t>(lives & doomed);
}

}  // namespace aesg
