// What the edges of many sources give, eight edges at a time: the arithmetic of spreading without its memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc/ops/columns.h"

namespace aesg::cpu {

struct SpreadRules {
  int64_t hops;  // T
  float decay;
  float facilitation;    // factor of edges into the region of the first seed
  float source_floor;    // sources below it carry nothing
  float transfer_floor;  // transfers not above it are lost
};

inline constexpr uint32_t kEdgesTogether = 8;

struct EdgePiece {  // some edges of a firing source: seven of a block, or eight of a list
  const int32_t* targets;
  const float* strengths;
  float now, before;  // energy of the source, and when it last fired, 0: never
  uint32_t firing;    // which one this is of its hop
  uint32_t edge;      // the first one's place in the list, or, with kInBlocks, in the chain
};
inline constexpr uint32_t kInBlocks = 1u << 31;

// What edges add to their targets, by columns. Room behind the last one for kEdgesTogether more is written
// to.
struct Gifts {
  int32_t* targets;
  int32_t* amounts;
  uint32_t* firings;
  uint32_t* edges;
};

struct GiveRules {
  const SpreadRules* rules;
  int32_t slots;                  // targets outside 0 to slots - 1 get nothing
  int32_t region;                 // 0: there is no dominant one
  Column<const int32_t> regions;  // read if there is one
};

// Writes what passes the floor; returns how many gifts. Sets *damaged where a target is neither a slot nor
// -1.
size_t give(const EdgePiece* pieces, size_t count, const GiveRules& how, const Gifts& out, bool* damaged);

}  // namespace aesg::cpu
