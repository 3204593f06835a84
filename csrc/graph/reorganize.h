// Merging concepts that have become one, and splitting those that stand for two things.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "csrc/storage/store.h"

namespace aesg::graph {

// Pairs (kept, dropped) of living concepts joined by a similarity edge that is new or was used since the last
// sweep, with cosine >= `similarity` and like
// neighbourhoods: of the smaller one's other neighbours at least half are shared, or it has none. The more
// used is kept, the lower slot when equal. A concept is in one pair at most. `common` (dim doubles of length
// 1, or null): a direction that likeness leaves out, see csrc/graph/common_part.h. Same result for any number
// of threads. Cost O(E D).
std::vector<std::pair<int32_t, int32_t>> find_duplicates(storage::Store& store, float similarity, int threads,
                                                         const double* common = nullptr);

// Merges each dropped concept into its kept one: vector = mean weighted by use + 1, use summed, relevance the
// larger, edges united (the more confident of two wins), edges into the dropped led to the kept. The dropped
// are dead afterwards; one MERGE event a pair. REQUIRES: living, all different. Cost O(E) for the whole list.
void merge(storage::Store& store, const std::vector<std::pair<int32_t, int32_t>>& pairs, uint64_t now);

// Splits a concept in two by spherical 2-means over its living neighbours' directions. `slot` keeps the first
// cluster, a newborn takes the second with its edges; each moves half way to its cluster. Returns the
// newborn's slot, -1 when there are no two clusters. One SPLIT event. Cost O(degree D).
int64_t split(storage::Store& store, int64_t slot, float initial_confidence, uint64_t now);

// Living concepts with more than `degree` edges, in slot order.
std::vector<int64_t> find_crowded(storage::Store& store, int64_t degree);

}  // namespace aesg::graph
