#include "csrc/graph/reinforce.h"

#include "csrc/base/reinforce_math.h"
#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::NodeColumn;

namespace {

bool alive(Store& store, int64_t slot) {
  return slot >= 0 && slot < static_cast<int64_t>(store.counters().node_count) && is_active(store, slot);
}

// Confidence moves towards 1 by `rate`; the edge counts as used until the next sweep.
void strengthen(Store& store, EdgeRef edge, float rate) {
  storage::ColdBlock& cold = *store.cold(edge.block);
  const float c = cold.confidence[edge.index];
  cold.use_count[edge.index] += 1;
  cold.tag[edge.index] |= storage::kEdgeUsedBit;
  set_edge(store, edge, cold.weight[edge.index], confidence_after_use(c, rate));
}

}  // namespace

void use(Store& store, const int64_t* members, const float* energies, int64_t rows, int64_t width,
         float gain) {
  for (int64_t i = 0; i < rows * width; ++i) {
    const int64_t slot = members[i];
    if (!alive(store, slot)) continue;
    *store.at<uint32_t>(NodeColumn::kUseFrequency, slot) += 1;
    float& relevance = *store.at<float>(NodeColumn::kRelevance, slot);
    relevance = relevance_after_use(relevance, gain, energies[i]);
    store.mark(NodeColumn::kUseFrequency, slot);
    store.mark(NodeColumn::kRelevance, slot);
  }
}

void follow(Store& store, const int64_t* previous, const int64_t* current, int64_t n,
            const FollowRules& rules) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t p = previous[i], c = current[i];
    if (p == c || !alive(store, p) || !alive(store, c)) continue;
    const EdgeRef taken = find_edge(store, p, static_cast<int32_t>(c), EdgeKind::kSuccession);
    const float kept = 1.0f - (taken ? rules.rate : rules.yield);
    for_each_edge(store, p, [&](int32_t block, int index) {
      const storage::ColdBlock& cold = *store.cold(block);
      if (edge_kind(cold, index) != EdgeKind::kSuccession || store.hot(block)->target[index] == c) return;
      set_edge(store, {block, index}, cold.weight[index], cold.confidence[index] * kept);
    });
    if (taken) {
      strengthen(store, taken, rules.rate);
    } else {
      put_edge(store, p, static_cast<int32_t>(c), EdgeKind::kSuccession, 1.0f, rules.initial);
    }
  }
}

void coactivate(Store& store, const int64_t* members, int64_t rows, int64_t width, float rate) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t* row = members + r * width;
    for (int64_t i = 0; i < width; ++i) {
      if (!alive(store, row[i])) continue;
      for_each_edge(store, row[i], [&](int32_t block, int index) {
        if (edge_kind(*store.cold(block), index) == EdgeKind::kSuccession) return;
        const int32_t target = store.hot(block)->target[index];
        for (int64_t j = 0; j < width; ++j) {
          if (j != i && row[j] == target && is_active(store, target)) {
            strengthen(store, {block, index}, rate);
            return;
          }
        }
      });
    }
  }
}

}  // namespace aesg::graph
