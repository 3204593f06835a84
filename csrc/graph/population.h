// Birth and death of concepts, in bulk.
#pragma once

#include <cstdint>
#include <vector>

#include "csrc/base/norm_math.h"
#include "csrc/storage/store.h"

namespace aesg::graph {

struct Birth {
  uint64_t now;     // unix seconds
  float relevance;  // of the newborn, 1: just seen
  float stability;
  bool log = true;  // one CREATE event each (id2 = 0, val = 1), as 3.0.0 writes for sensory concepts
};

// Bears n concepts from `vectors` [n, D], row-major. Ids come from `ids` [n] or, when null, from the counter.
// Returns their slots. REQUIRES: finite vectors. Cost O(n D).
std::vector<int64_t> bear(storage::Store& store, const float* vectors, const uint64_t* ids, int64_t n,
                          const Birth& birth);

// Replaces the vector of one concept and the norm that follows from it.
void set_vector(storage::Store& store, int64_t slot, const float* vector, uint64_t now);

// Retires concepts: inactive at once, their outgoing edges released, a PRUNE event each. Edges into them
// carry nothing from now on; a sweep removes those and frees the slots. Inactive slots are passed over.
// Returns how many died.
int64_t retire(storage::Store& store, const int64_t* slots, int64_t n, uint64_t now);

}  // namespace aesg::graph
