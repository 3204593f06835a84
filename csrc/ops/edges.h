// The edges of a graph as columns that learning changes: what csrc/graph/adjacency.h does on a store, here on
// host and device alike, bit for bit. docs/store_format.md tells what a block holds.
//
// Edges of one concept are a chain of blocks, newest first; only the head block may be partly filled. Nothing
// here trusts a chain or the list of free blocks: what a store would refuse ends it.
#pragma once

#include <cstdint>

#include "csrc/base/reinforce_math.h"
#include "csrc/ops/block_walk.h"
#include "csrc/ops/columns.h"
#include "csrc/storage/layout.h"

namespace aesg {

using storage::EdgeKind;
using storage::kBlockEdges;

struct Edges {
  Column<int32_t> first_block;  // [N]
  Column<int32_t> targets;      // [M, 7], -1: empty
  Column<float> strengths;      // [M, 7], weight * confidence
  Column<int32_t> next_block;   // [M], of the chain or of the list of free blocks, -1: end
  Column<int32_t> counts;       // [M], edges in the block
  Column<float> weights;        // [M, 7]
  Column<float> confidences;    // [M, 7]
  Column<uint32_t> use_counts;  // [M, 7]
  Column<uint8_t> tags;         // [M, 7], kind and bits, see csrc/storage/layout.h
  Column<int32_t> sources;      // [M], -1: free block

  AESG_HD int64_t slots() const { return first_block.rows; }
  AESG_HD int64_t blocks() const { return targets.rows; }
  AESG_HD bool has_block(int64_t block) const { return block >= 0 && block < blocks(); }
  AESG_HD EdgeKind kind(int64_t block, int index) const {
    return static_cast<EdgeKind>(tags.at(block)[index] & storage::kEdgeKindMask);
  }
  AESG_HD BlockWalk<int32_t> walk_from(int32_t head) const { return {next_block, head}; }
  // Edges in a block, 0..7 whatever is written there.
  AESG_HD int count(int64_t block) const {
    const int32_t count = counts[block];
    return count < 0 ? 0 : count > kBlockEdges ? kBlockEdges : count;
  }
};

// Numbers of a graph that learning changes, in the order of `aesg.ops.COUNTERS`: i64 [kCounterCount].
enum Counter {
  kNodeCount,    // slots in use, dead ones included
  kActiveCount,  // living concepts
  kNextId,       // identity of the next concept, the bits of u64
  kFreeSlot,     // head of the list of free slots, -1: none
  kBlockCount,   // blocks ever handed out
  kFreeBlock,    // head of the list of free blocks, -1: none
  kEdgeCount,
  kCounterCount,
};

// Place of one edge; block < 0: no such edge.
struct EdgePlace {
  int32_t block = -1;
  int index = 0;
  AESG_HD explicit operator bool() const { return block >= 0; }
};

// Calls visit(block, index) for every edge of `source`, until it returns false.
template <typename Visitor>
AESG_HD inline void for_each_edge(const Edges& edges, int64_t source, Visitor visit) {
  for (auto walk = edges.walk_from(edges.first_block[source]); walk.there(); walk.next()) {
    const int count = edges.count(walk.block);
    for (int index = 0; index < count; ++index)
      if (!visit(walk.block, index)) return;
  }
}

// The edge source -> target of that kind. Cost: the degree of `source`.
AESG_HD inline EdgePlace find_edge(const Edges& edges, int64_t source, int64_t target, EdgeKind kind) {
  EdgePlace found;
  for_each_edge(edges, source, [&](int32_t block, int index) {
    if (edges.targets.at(block)[index] != target || edges.kind(block, index) != kind) return true;
    found = {block, index};
    return false;
  });
  return found;
}

// Sets weight and confidence of an edge, and the strength that follows from them.
AESG_HD inline void set_edge(const Edges& edges, EdgePlace edge, float weight, float confidence) {
  edges.weights.at(edge.block)[edge.index] = weight;
  edges.confidences.at(edge.block)[edge.index] = confidence;
  edges.strengths.at(edge.block)[edge.index] = weight * confidence;
}

// The edge was used: its confidence moves towards 1 by `rate`, and until the next sweep it does not fade.
AESG_HD inline void strengthen(const Edges& edges, EdgePlace edge, float rate) {
  const float confidence = edges.confidences.at(edge.block)[edge.index];
  edges.use_counts.at(edge.block)[edge.index] += 1;
  edges.tags.at(edge.block)[edge.index] |= storage::kEdgeUsedBit;
  set_edge(edges, edge, edges.weights.at(edge.block)[edge.index], confidence_after_use(confidence, rate));
}

// A block as it is when it is handed out or given back.
AESG_HD inline void clear_block(const Edges& edges, int32_t block, int32_t next) {
  for (int i = 0; i < kBlockEdges; ++i) {
    edges.targets.at(block)[i] = -1;
    edges.strengths.at(block)[i] = 0.0f;
    edges.weights.at(block)[i] = 0.0f;
    edges.confidences.at(block)[i] = 0.0f;
    edges.use_counts.at(block)[i] = 0;
    edges.tags.at(block)[i] = 0;
  }
  edges.next_block[block] = next;
  edges.counts[block] = 0;
  edges.sources[block] = -1;
}

// Free places in the head block of `source`, 0 where there is none.
AESG_HD inline int free_places(const Edges& edges, int64_t source) {
  const int32_t head = edges.first_block[source];
  return edges.has_block(head) ? kBlockEdges - edges.count(head) : 0;
}

// Whether the edge that is the `rank`-th new one (from 0) of a source with that many free places takes a new
// block.
AESG_HD inline bool takes_block(int64_t rank, int free) {
  return rank >= free && (rank - free) % kBlockEdges == 0;
}

// Appends a new edge to `source`. A full head block gives way to `fresh`, one of `hand_out_blocks`; where
// that lies outside nothing happens. Does not count it (kEdgeCount). Returns whether it was appended.
// REQUIRES: there is no such edge.
AESG_HD inline bool append_edge(const Edges& edges, int64_t source, int32_t target, EdgeKind kind,
                                float weight, float confidence, int32_t fresh, bool up = false) {
  int32_t head = edges.first_block[source];
  if (free_places(edges, source) == 0) {
    if (!edges.has_block(fresh)) return false;
    clear_block(edges, fresh, head);
    edges.sources[fresh] = static_cast<int32_t>(source);
    edges.first_block[source] = fresh;
    head = fresh;
  }
  const int index = edges.count(head);
  edges.targets.at(head)[index] = target;
  edges.counts[head] = index + 1;
  edges.use_counts.at(head)[index] = 0;
  // Young edges do not fade yet.
  edges.tags.at(head)[index] = static_cast<uint8_t>(static_cast<uint8_t>(kind) | storage::kEdgeUsedBit |
                                                    (up ? storage::kEdgeUpBit : 0));
  set_edge(edges, {head, index}, weight, confidence);
  return true;
}

// What is written as the source of a block from when it leaves the list of free ones until it has one.
inline constexpr int32_t kHandedOut = INT32_MIN;

// Whether a store that has handed out `used` blocks would hand out one that it finds in its list of free
// ones.
AESG_HD inline bool is_free_block(const Edges& edges, int64_t used, int64_t block) {
  return edges.has_block(block) && block < used && edges.sources[block] == -1 && edges.counts[block] == 0;
}

// Takes up to `count` blocks from the list of free ones; returns how many. The list ends at what cannot be in
// it, such as a block that it held before: no block goes to two. One thread. O(count).
AESG_HD inline int64_t take_listed_blocks(const Edges& edges, int64_t* counters, int64_t count,
                                          int32_t* blocks) {
  const int64_t used = counters[kBlockCount];
  int64_t block = counters[kFreeBlock], found = 0;
  for (; found < count; ++found) {
    if (!is_free_block(edges, used, block)) {
      block = -1;
      break;
    }
    blocks[found] = static_cast<int32_t>(block);
    edges.sources[block] = kHandedOut;
    block = edges.next_block[block];
  }
  if (count > 0) counters[kFreeBlock] = edges.has_block(block) ? block : -1;
  return found;
}

// The next `count` blocks in the order in which a store hands them out: the list of free ones, then those
// behind the last. What lies outside 0..M-1 is -1. One thread. O(count).
AESG_HD inline void hand_out_blocks(const Edges& edges, int64_t* counters, int64_t count, int32_t* blocks) {
  int64_t& next = counters[kBlockCount];
  for (int64_t i = take_listed_blocks(edges, counters, count, blocks); i < count; ++i)
    blocks[i] = edges.has_block(next) ? static_cast<int32_t>(next++) : -1;
}

}  // namespace aesg
