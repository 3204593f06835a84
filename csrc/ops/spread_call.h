// One call of spread_activation on plain pointers: what its binding and the direct one share.
#pragma once

#include <cstdint>

#include "csrc/ops/cpu/spread_activation.h"

namespace aesg {

struct SpreadCall {
  const int64_t* seeds;   // [batch, width]
  const float* energies;  // [batch, width]
  int64_t batch, width, k;
  cpu::SpreadGraph graph;
  cpu::SpreadRules rules;
};

// Writes [batch, k] of both, on all threads. False where a seed lies outside the graph, an energy is not
// finite or the edges are damaged; results are then not complete. REQUIRES: all else was checked.
bool try_spread(const SpreadCall& call, float* energies, int64_t* slots);

}  // namespace aesg
