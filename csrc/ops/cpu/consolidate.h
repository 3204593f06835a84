// CPU kernel of consolidate_ on plain pointers.
#pragma once

#include <cstdint>

#include "csrc/ops/consolidate_math.h"

namespace aesg::cpu {

// One contiguous run of `rows` concepts, in place. Vectorised for the machine it runs on.
void consolidate_rows(const ConsolidateRules& rules, int64_t rows, const uint8_t* active,
                      const uint32_t* use_frequency, uint32_t* age, float* relevance, uint8_t* doomed);

}  // namespace aesg::cpu
