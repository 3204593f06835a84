#include "csrc/graph/sweep.h"

#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::ColdBlock;
using storage::HotBlock;
using storage::NodeColumn;

SweepReport sweep(Store& store, const SweepRules& rules) {
  SweepReport report;
  const int64_t count = static_cast<int64_t>(store.counters().node_count);
  for (int64_t slot = 0; slot < count; ++slot) {
    if (!is_active(store, slot)) continue;
    for_each_edge(store, slot, [&](int32_t block, int index) {
      ColdBlock& cold = *store.cold(block);
      if (cold.tag[index] & storage::kEdgeUsedBit) {
        cold.tag[index] &= static_cast<uint8_t>(~storage::kEdgeUsedBit);
        store.mark_cold(block);
      } else if (rules.fade < 1.0f) {
        set_edge(store, {block, index}, cold.weight[index], cold.confidence[index] * rules.fade);
      }
    });
    report.edges_removed +=
        filter_edges(store, slot, [&](const HotBlock& hot, const ColdBlock& cold, int index) {
          return is_active(store, hot.target[index]) && cold.confidence[index] >= rules.confidence_threshold;
        });
  }
  // Highest slot first: the free list then hands out the lowest first.
  for (int64_t slot = count - 1; slot >= 0; --slot) {
    if (is_active(store, slot) || *store.at<uint64_t>(NodeColumn::kId, slot) == 0) continue;
    store.free_slot(slot);
    ++report.slots_freed;
  }
  return report;
}

}  // namespace aesg::graph
