// The invariants of a graph, tested.
#pragma once

#include <string>
#include <vector>

#include "csrc/storage/store.h"

namespace aesg::graph {

// What is wrong with the graph, one line a finding (at most 100), none when it is sound: chains acyclic and
// of this source, edges only between slots in use, none from the dead, no pair with two edges of a kind,
// strength = weight * confidence, counts equal to the counters, ids unique and below next_id, norms right,
// relevance finite and not negative, free slots on the free list. Cost O(N D + E).
std::vector<std::string> check(storage::Store& store);

}  // namespace aesg::graph
