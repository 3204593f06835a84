// EdgeLists: the long chains of edge blocks that one call met twice, each copied to one piece of memory.
//
// Blocks of a chain lie anywhere, and the same concepts fire again and again: in later hops, and in the other
// queries of a batch. From the second firing on a long chain is read where it was copied to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "csrc/ops/columns.h"
#include "csrc/ops/cpu/spread_give.h"

namespace aesg::cpu {

inline constexpr int kEdgesPerBlock = 7;  // as csrc/storage/layout.h

struct SpreadGraph {
  Column<const int32_t> first_block;  // [N], -1: none
  Column<const int32_t> targets;      // [M, 7], -1: none
  Column<const float> strengths;      // [M, 7]
  Column<const int32_t> next_block;   // [M], -1: the chain ends
  Column<const uint8_t> active;       // [N]
  Column<const int32_t> regions;      // [N] or null, 0: no region

  bool has_block(int32_t block) const {
    return static_cast<uint32_t>(block) < static_cast<uint32_t>(next_block.rows);
  }
  // Brings the chains that begin at these blocks near: many are walked at a time, since a block is known only
  // when the one before it has come.
  void fetch_chains(const int32_t* blocks, size_t count) const;
  // The region of the first seed, 0: none.
  int32_t dominant_region(const int64_t* seeds, int64_t seed_count) const {
    return regions && seed_count > 0 && seeds[0] >= 0 ? regions[seeds[0]] : 0;
  }
};

// The edges of one concept, dead targets included, in the order of the chain, filled up to a multiple of
// kEdgesTogether with edges of strength 0 to slot 0. Valid until the next list is made.
struct EdgeList {
  const int32_t* targets;
  const float* strengths;
  uint32_t size;
};

class EdgeLists {
 public:
  // Forgets all lists: to be called when the graph is another, or may have changed. O(1) but for the first
  // call that meets so many slots.
  void restart(const SpreadGraph& graph);

  // Whether making another list might need more memory than is kept; then restart, or go on and take it.
  bool is_full() const { return used_ > kMostEdges; }

  // Whether this slot was met before; it is from now on. Most chains are met once in a call, and copying
  // costs as much as firing.
  bool meet(int32_t slot) {
    if (places_[slot].call == call_) return true;
    places_[slot] = {call_, 0, kNotCopied};
    return false;
  }
  bool is_known(int32_t slot) const {
    return places_[slot].call == call_ && places_[slot].size != kNotCopied;
  }

  // The list of a slot, made now unless it is known. Sets *damaged where the chain leaves the graph.
  EdgeList get(int32_t slot, bool* damaged) {
    if (!is_known(slot)) make(slot, damaged);
    const Place& place = places_[slot];
    return {targets_.data() + place.begin, strengths_.data() + place.begin, place.size};
  }

  // Asks for what is_known() and get() will read first.
  void fetch_place(int32_t slot) const { __builtin_prefetch(&places_[slot]); }
  void fetch_list(int32_t slot) const {  // REQUIRES: is_known(slot)
    __builtin_prefetch(targets_.data() + places_[slot].begin);
    __builtin_prefetch(strengths_.data() + places_[slot].begin);
  }

 private:
  static constexpr uint32_t kMostEdges = 4u << 20;  // 32 MiB
  static constexpr uint32_t kNotCopied = UINT32_MAX;

  struct Place {
    uint32_t call;  // the list is known, or was met, if this is the current one
    uint32_t begin, size;
  };

  void make(int32_t slot, bool* damaged);
  uint32_t copy_some(const int32_t* targets, const float* strengths, uint32_t at, bool* damaged);

  SpreadGraph graph_;
  uint32_t call_ = 0;
  uint32_t used_ = 0;             // edges kept
  std::vector<Place> places_;     // [N]
  std::vector<int32_t> targets_;  // lists one after the other
  std::vector<float> strengths_;
};

}  // namespace aesg::cpu
