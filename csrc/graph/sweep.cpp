#include "csrc/graph/sweep.h"

#include <algorithm>

#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::ColdBlock;
using storage::HotBlock;
using storage::NodeColumn;

namespace {

bool is_provenance(const ColdBlock& cold, int index) {
  return edge_kind(cold, index) == EdgeKind::kAbstraction;
}

// An edge used since the last sweep only loses its mark; the others lose confidence. Edges of abstraction
// tell where a concept came from, which forgetting must know: they do not fade.
void fade_edges(Store& store, int64_t slot, float fade) {
  for_each_edge(store, slot, [&](int32_t block, int index) {
    ColdBlock& cold = *store.cold(block);
    if (cold.tag[index] & storage::kEdgeUsedBit) {
      cold.tag[index] &= static_cast<uint8_t>(~storage::kEdgeUsedBit);
      store.mark_cold(block);
    } else if (fade < 1.0f && !is_provenance(cold, index)) {
      set_edge(store, {block, index}, cold.weight[index], cold.confidence[index] * fade);
    }
  });
}

int64_t remove_edges(Store& store, int64_t slot, float confidence_threshold) {
  return filter_edges(store, slot, [&](const HotBlock& hot, const ColdBlock& cold, int index) {
    return is_active(store, hot.target[index]) &&
           (cold.confidence[index] >= confidence_threshold || is_provenance(cold, index));
  });
}

int64_t free_dead_slots(Store& store) {
  int64_t freed = 0;
  // Highest slot first: the free list then hands out the lowest first.
  for (int64_t slot = static_cast<int64_t>(store.counters().node_count) - 1; slot >= 0; --slot) {
    if (is_active(store, slot) || *store.at<uint64_t>(NodeColumn::kId, slot) == 0) continue;
    store.free_slot(slot);
    ++freed;
  }
  return freed;
}

template <typename VisitSlot>
SweepReport pass(Store& store, float confidence_threshold, VisitSlot visit) {
  SweepReport report;
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    if (!is_active(store, slot) || first_block(store, slot) < 0) continue;
    visit(slot);
    report.edges_removed += remove_edges(store, slot, confidence_threshold);
  }
  report.slots_freed = free_dead_slots(store);
  return report;
}

}  // namespace

SweepReport sweep(Store& store, const SweepRules& rules) {
  return pass(store, rules.confidence_threshold, [&](int64_t slot) { fade_edges(store, slot, rules.fade); });
}

SweepReport bury(Store& store) {
  const int64_t dim = store.layout().dim(), count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    if (is_active(store, slot)) continue;
    float* vector = store.at<float>(NodeColumn::kVector, slot);
    float* inv_norm = store.at<float>(NodeColumn::kInvNorm, slot);
    const auto wiped = [](float value) { return value == 0.0f; };
    if (*inv_norm == 0.0f && std::all_of(vector, vector + dim, wiped)) continue;
    std::fill(vector, vector + dim, 0.0f);
    *inv_norm = 0.0f;
    store.mark(NodeColumn::kVector, slot);
    store.mark(NodeColumn::kInvNorm, slot);
  }
  return pass(store, 0.0f, [](int64_t) {});
}

}  // namespace aesg::graph
