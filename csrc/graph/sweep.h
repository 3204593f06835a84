// The sweep: fading of unused edges, removal of weak ones and of those into the dead, freeing of slots.
#pragma once

#include <cstdint>

#include "csrc/storage/store.h"

namespace aesg::graph {

struct SweepRules {
  float confidence_threshold;  // an edge goes below it
  float fade;                  // share of confidence an edge keeps that was not used since the last sweep
};

struct SweepReport {
  int64_t edges_removed = 0;
  int64_t slots_freed = 0;
};

// One pass over all concepts and their edges. Afterwards no edge leads into the dead and every dead slot is
// on the free list. Edges of abstraction neither fade nor go for weakness. Cost O(N + E).
SweepReport sweep(storage::Store& store, const SweepRules& rules);

// What forgetting demands: wipes the vectors of the dead, removes the edges into them and frees their slots.
// Cost O(N + E).
SweepReport bury(storage::Store& store);

}  // namespace aesg::graph
