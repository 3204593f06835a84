// consolidate_ on the CPU: one streaming pass over four columns.
#include "csrc/ops/cpu/consolidate.h"

#include "csrc/ops/cpu/simd.h"

namespace aesg::cpu {

AESG_CLONES void consolidate_rows(const ConsolidateRules& rules, int64_t rows,
                                  const uint8_t* __restrict active, const uint32_t* __restrict use_frequency,
                                  uint32_t* __restrict age, float* __restrict relevance,
                                  uint8_t* __restrict doomed) {
  const ConsolidateRules local = rules;
  for (int64_t r = 0; r < rows; ++r)
    doomed[r] = consolidate_one(local, active[r], use_frequency[r], age[r], relevance[r]);
}

}  // namespace aesg::cpu
