// What use does to a graph: the digest of the logs that retrieval leaves behind. Log order is digest order,
// so the same log gives the same graph, bit for bit.
#pragma once

#include <cstdint>

#include "csrc/storage/store.h"

namespace aesg::graph {

// Context members [rows, width], -1 where a row has fewer. For each living member with energy e in [0, 1]:
// use_frequency += 1, relevance += gain * e * (1 - relevance).
void use(storage::Store& store, const int64_t* members, const float* energies, int64_t rows, int64_t width,
         float gain);

struct FollowRules {
  float initial;  // confidence of a new edge
  float rate;     // share that moves to the successor seen, when its edge exists
  float yield;    // share that the other successors give up for a new edge
};

// One concept followed another: pairs (previous[i], current[i]); a negative entry or equal ones are no event.
// The edge previous -> current is strengthened, c += rate * (1 - c), the other succession edges of `previous`
// keep (1 - rate) of theirs; or it is made (weight 1, confidence `initial`) and the others keep (1 - yield).
// So c is a running estimate of P(next | current) in which the newest leads from the start.
void follow(storage::Store& store, const int64_t* previous, const int64_t* current, int64_t n,
            const FollowRules& rules);

// Concepts that were primary together, [rows, width], -1 padded. Every edge among the members of a row, of
// whatever kind but succession: use_count += 1, c += rate * (1 - c).
void coactivate(storage::Store& store, const int64_t* members, int64_t rows, int64_t width, float rate);

}  // namespace aesg::graph
