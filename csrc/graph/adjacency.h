// Edges of one concept: a chain of blocks, newest first. Only the head block may be partly filled.
//
// Equation and parameters of every rule: docs/self_organisation.md. Nothing here touches disk.
#pragma once

#include <cstdint>

#include "csrc/storage/store.h"

namespace aesg::graph {

using storage::EdgeKind;
using storage::Store;

// Place of one edge. block < 0: no such edge.
struct EdgeRef {
  int32_t block = -1;
  int index = 0;
  explicit operator bool() const { return block >= 0; }
};

inline bool is_active(Store& store, int64_t slot) {
  return *store.at<uint8_t>(storage::NodeColumn::kIsActive, slot) != 0;
}
inline int32_t first_block(Store& store, int64_t slot) {
  return *store.at<int32_t>(storage::NodeColumn::kFirstBlock, slot);
}
inline EdgeKind edge_kind(const storage::ColdBlock& block, int index) {
  return static_cast<EdgeKind>(block.tag[index] & storage::kEdgeKindMask);
}
inline bool leads_up(const storage::ColdBlock& block, int index) {
  return edge_kind(block, index) == EdgeKind::kAbstraction && (block.tag[index] & storage::kEdgeUpBit) != 0;
}

// Calls visit(block, index) for every edge of `source`. The visitor must not add or remove edges.
template <typename Visitor>
void for_each_edge(Store& store, int64_t source, Visitor visit) {
  for (int32_t block = first_block(store, source); block >= 0; block = store.hot(block)->next) {
    const int count = store.hot(block)->count;
    for (int index = 0; index < count; ++index) visit(block, index);
  }
}

// The edge source -> target of that kind. Cost: the degree of `source`.
EdgeRef find_edge(Store& store, int64_t source, int32_t target, EdgeKind kind);

// Sets weight and confidence of an edge, and the strength that follows from them. Marks both blocks.
void set_edge(Store& store, EdgeRef edge, float weight, float confidence);

// Makes the edge, or sets weight and confidence of the one there is: a pair holds one edge of each kind.
// `up`: an abstraction edge whose target was abstracted from its source.
// REQUIRES: both slots active. Returns whether it is new.
bool put_edge(Store& store, int64_t source, int32_t target, EdgeKind kind, float weight, float confidence,
              bool up = false);

// Keeps the edges for which keep(hot, cold, index) holds, in their order, and frees the blocks that are left
// over. Returns how many edges went. Writes nothing when all stay.
template <typename Keep>
int64_t filter_edges(Store& store, int64_t source, Keep keep);

// Removes every edge from `source`. Returns how many there were.
int64_t release_edges(Store& store, int64_t source);

}  // namespace aesg::graph

#include "csrc/graph/adjacency_inl.h"
