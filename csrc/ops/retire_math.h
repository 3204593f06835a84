// What retire_ does, one source for host and device: csrc/graph/population.h, `retire`, but for its events.
#pragma once

#include <cstdint>

#include "csrc/ops/edges.h"

namespace aesg {

struct Retire {
  Edges edges;
  Column<uint8_t> active;        // [N]
  int64_t* counters;             // [kCounterCount]
  Column<const uint8_t> doomed;  // [N]

  AESG_HD bool dies(int64_t slot) const { return doomed[slot] != 0 && active[slot] != 0; }
};

// The edges of one concept, and the block that ends their chain. -1: it has none to release.
struct Chain {
  int64_t edges = 0;
  int32_t tail = -1;
};

// The chain ends at a block of another concept: no block can be given back twice.
AESG_HD inline Chain chain_of(const Edges& edges, int64_t slot) {
  Chain found;
  for (auto walk = edges.walk_from(edges.first_block[slot]);
       walk.there() && edges.sources[walk.block] == slot; walk.next()) {
    found.edges += edges.count(walk.block);
    found.tail = walk.block;
  }
  // As in a store, whoever has no edge gives nothing back.
  return found.edges == 0 ? Chain{} : found;
}

// Gives the blocks of a chain back, from its head on; each then leads to the one before, the first to `free`.
// What was given back has no source: a ring ends.
AESG_HD inline void release_chain(const Edges& edges, int64_t slot, int32_t free) {
  for (int32_t block = edges.first_block[slot]; edges.has_block(block) && edges.sources[block] == slot;) {
    const int32_t next = edges.next_block[block];
    clear_block(edges, block, free);
    free = block;
    block = next;
  }
  edges.first_block[slot] = -1;
}

}  // namespace aesg
