// Template bodies of adjacency.h.
#pragma once

#include <vector>

namespace aesg::graph {

template <typename Keep>
int64_t filter_edges(Store& store, int64_t source, Keep keep) {
  struct Edge {
    int32_t target;
    float strength, weight, confidence;
    uint32_t use_count;
    uint8_t tag;
  };
  thread_local std::vector<Edge> kept;
  thread_local std::vector<int32_t> chain;
  kept.clear();
  chain.clear();
  int64_t before = 0;
  for (int32_t block = first_block(store, source); block >= 0; block = store.hot(block)->next) {
    const storage::HotBlock& hot = *store.hot(block);
    const storage::ColdBlock& cold = *store.cold(block);
    chain.push_back(block);
    before += hot.count;
    for (int i = 0; i < hot.count; ++i) {
      if (!keep(hot, cold, i)) continue;
      kept.push_back({hot.target[i], hot.strength[i], cold.weight[i], cold.confidence[i], cold.use_count[i],
                      cold.tag[i]});
    }
  }
  const int64_t after = static_cast<int64_t>(kept.size());
  if (after == before) return 0;

  // The last blocks of the chain stay full; what is left over is given back from the head.
  const size_t needed = (kept.size() + storage::kBlockEdges - 1) / storage::kBlockEdges;
  const size_t spare = chain.size() - needed;
  *store.at<int32_t>(storage::NodeColumn::kFirstBlock, source) = needed ? chain[spare] : -1;
  store.mark(storage::NodeColumn::kFirstBlock, source);
  size_t next = 0;
  for (size_t b = spare; b < chain.size(); ++b) {
    storage::HotBlock& hot = *store.hot(chain[b]);
    storage::ColdBlock& cold = *store.cold(chain[b]);
    const size_t remaining = kept.size() - next;
    const size_t behind = (chain.size() - b - 1) * storage::kBlockEdges;
    const int count = static_cast<int>(remaining - behind);
    for (int i = 0; i < storage::kBlockEdges; ++i) {
      const Edge edge = i < count ? kept[next++] : Edge{-1, 0, 0, 0, 0, 0};
      hot.target[i] = edge.target;
      hot.strength[i] = edge.strength;
      cold.weight[i] = edge.weight;
      cold.confidence[i] = edge.confidence;
      cold.use_count[i] = edge.use_count;
      cold.tag[i] = edge.tag;
    }
    hot.count = count;
    store.mark_hot(chain[b]);
    store.mark_cold(chain[b]);
  }
  for (size_t b = 0; b < spare; ++b) store.free_block(chain[b]);
  store.counters().edge_count -= static_cast<uint64_t>(before - after);
  return before - after;
}

}  // namespace aesg::graph
