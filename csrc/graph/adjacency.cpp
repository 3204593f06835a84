#include "csrc/graph/adjacency.h"

namespace aesg::graph {

using storage::ColdBlock;
using storage::HotBlock;
using storage::kBlockEdges;
using storage::NodeColumn;

EdgeRef find_edge(Store& store, int64_t source, int32_t target, EdgeKind kind) {
  for (int32_t block = first_block(store, source); block >= 0;) {
    const HotBlock& hot = *store.hot(block);
    for (int i = 0; i < hot.count; ++i) {
      if (hot.target[i] == target && edge_kind(*store.cold(block), i) == kind) return {block, i};
    }
    block = hot.next;
  }
  return {};
}

void set_edge(Store& store, EdgeRef edge, float weight, float confidence) {
  ColdBlock& cold = *store.cold(edge.block);
  cold.weight[edge.index] = weight;
  cold.confidence[edge.index] = confidence;
  store.hot(edge.block)->strength[edge.index] = weight * confidence;
  store.mark_hot(edge.block);
  store.mark_cold(edge.block);
}

bool put_edge(Store& store, int64_t source, int32_t target, EdgeKind kind, float weight, float confidence,
              bool up) {
  if (EdgeRef edge = find_edge(store, source, target, kind)) {
    if (up) store.cold(edge.block)->tag[edge.index] |= storage::kEdgeUpBit;
    set_edge(store, edge, weight, confidence);
    return false;
  }
  int32_t head = first_block(store, source);
  if (head < 0 || store.hot(head)->count == kBlockEdges) {
    const int32_t fresh = store.allocate_block();
    store.hot(fresh)->next = head;
    store.cold(fresh)->source = static_cast<int32_t>(source);
    *store.at<int32_t>(NodeColumn::kFirstBlock, source) = fresh;
    store.mark(NodeColumn::kFirstBlock, source);
    head = fresh;
  }
  HotBlock& hot = *store.hot(head);
  const EdgeRef edge{head, hot.count};
  hot.target[edge.index] = target;
  hot.count += 1;
  ColdBlock& cold = *store.cold(head);
  cold.use_count[edge.index] = 0;
  // Young edges do not fade yet.
  cold.tag[edge.index] = static_cast<uint8_t>(kind) | storage::kEdgeUsedBit | (up ? storage::kEdgeUpBit : 0);
  set_edge(store, edge, weight, confidence);
  store.counters().edge_count += 1;
  return true;
}

int64_t release_edges(Store& store, int64_t source) {
  return filter_edges(store, source, [](const HotBlock&, const ColdBlock&, int) { return false; });
}

}  // namespace aesg::graph
