// What was abstracted from what.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/storage/store.h"

namespace aesg::graph {

// `slots` and, level by level, the living abstract concepts all of whose parents are among what goes: sorted,
// each once. Dead slots are passed over. Cost: the edges of what is visited.
std::vector<int64_t> with_orphans(storage::Store& store, const int64_t* slots, int64_t n);

// Which pairs [n, 2] of living concepts need no abstract concept: they have one in common, or one of them was
// abstracted from the other. Cost: the edges of both.
std::vector<uint8_t> share_abstraction(storage::Store& store, const int64_t* pairs, int64_t n);

}  // namespace aesg::graph
