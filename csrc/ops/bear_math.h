// What bear_ does for one concept and one edge, one source for host and device. The contract is the store's:
// csrc/graph/population.cpp, csrc/graph/adjacency.cpp and aesg/graph/birth.py.
#pragma once

#include <cstdint>

#include "csrc/base/norm_math.h"
#include "csrc/ops/columns.h"
#include "csrc/ops/edges.h"

namespace aesg {

struct Nodes {
  Column<float> vector;  // [N, D]
  Column<int64_t> id;    // [N], as all below; the bits of u64, 0: free slot
  Column<float> inv_norm;
  Column<uint32_t> use_frequency;
  Column<float> relevance;
  Column<uint32_t> age;
  Column<uint32_t> region_id;
  Column<uint8_t> is_active;
};

struct Bear {
  const float* packed;       // [n, D]
  const int64_t* count;      // [1] rows that are born, as the nearest in 0..n
  const int64_t* neighbors;  // [n, L], -1: none
  const float* cosines;      // [n, L]
  int64_t rows, dim, links;  // n, D, L
  Nodes nodes;
  Edges edges;
  int64_t* counters;  // [kCounterCount]
  float confidence;   // of new edges
  float relevance;    // of the newborn
  int64_t* slots;     // [n], all written

  AESG_HD int64_t wanted() const { return *count < 0 ? 0 : *count > rows ? rows : *count; }
};

inline constexpr int64_t kNotFree = -2;  // what is in the list of free slots though it cannot be

// The slot behind a free one in their list, -1: the last; kNotFree where a store would call it damaged.
AESG_HD inline int64_t next_free_slot(const Bear& job, int64_t slot) {
  const int64_t node_count = job.counters[kNodeCount];
  if (slot < 0 || slot >= node_count || slot >= job.edges.slots()) return kNotFree;
  const int64_t next = -int64_t{job.edges.first_block[slot]} - 2;
  const bool free = job.nodes.id[slot] == 0 && job.nodes.is_active[slot] == 0;
  return free && next >= -1 && next < node_count ? next : kNotFree;
}

// Whether a neighbour is a living concept. REQUIRES: nobody born in this call counts as active yet.
AESG_HD inline bool is_neighbor(const Bear& job, int64_t slot) {
  return slot >= 0 && slot < job.edges.slots() && job.nodes.is_active[slot] != 0;
}

// The weight of an edge between concepts of that cosine.
AESG_HD inline float weight_of(float cosine) { return cosine < 0.0f ? 0.0f : cosine > 1.0f ? 1.0f : cosine; }

// The columns of a newborn but for its vector and what depends on it, and first_block.
AESG_HD inline void fill_columns(const Bear& job, int64_t slot, int64_t id) {
  job.nodes.id[slot] = id;
  job.nodes.use_frequency[slot] = 0;
  job.nodes.relevance[slot] = job.relevance;
  job.nodes.age[slot] = 0;
  job.nodes.region_id[slot] = 0;
  job.nodes.is_active[slot] = 1;
}

}  // namespace aesg
