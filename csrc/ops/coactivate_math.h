// What coactivate_ does, one source for host and device.
//
// How an edge is strengthened depends on nothing but the edge, and always goes by the same rate: what becomes
// of it follows from how often it is, in whatever order. So pairs (source, target) are counted, by sorting
// them, and each is looked up once.
#pragma once

#include <cstdint>

#include "csrc/ops/edges.h"

namespace aesg {

struct Primaries {
  const int64_t* slots;  // [R, W]; dead, negative and outside: none
  int64_t rows, width;
};

AESG_HD inline int64_t pair_count(const Primaries& primaries) {
  return primaries.rows * primaries.width * (primaries.width > 0 ? primaries.width - 1 : 0);
}

// The n-th pair of a place of a row with another place, source * 2^32 + target; -1: none. A place strengthens
// an edge once, however many others of its row hold the target.
AESG_HD inline int64_t pair_at(const Primaries& primaries, int64_t n) {
  const int64_t others = primaries.width - 1, place = n / others;
  const int64_t* row = primaries.slots + place / primaries.width * primaries.width;
  const int64_t i = place % primaries.width, other = n % others, j = other < i ? other : other + 1;
  const int64_t source = row[i], target = row[j];
  if (source < 0 || source > INT32_MAX || target < 0 || target > INT32_MAX) return -1;
  for (int64_t earlier = 0; earlier < j; ++earlier)
    if (earlier != i && row[earlier] == target) return -1;
  return source << 32 | target;
}

struct Coactivate {
  Edges edges;
  Column<const uint8_t> active;  // [N]
  const int64_t* pairs;          // [count], sorted
  int64_t count;
  float rate;
};

// How many equal pairs follow one another from `first` on. O(log of them).
AESG_HD inline int64_t run_length(const Coactivate& job, int64_t first) {
  const int64_t pair = job.pairs[first];
  int64_t same = 0, step = 1;  // first + same is equal, first + step not yet known to be
  while (first + step < job.count && job.pairs[first + step] == pair) {
    same = step;
    step *= 2;
  }
  int64_t differs = first + step < job.count ? step : job.count - first;
  while (differs - same > 1) {
    const int64_t middle = same + (differs - same) / 2;
    if (job.pairs[first + middle] == pair) {
      same = middle;
    } else {
      differs = middle;
    }
  }
  return differs;
}

// As `times` calls of strengthen(), and quicker: confidence rests where a step no longer changes it.
AESG_HD inline void strengthen_often(const Edges& edges, EdgePlace edge, float rate, int64_t times) {
  float confidence = edges.confidences.at(edge.block)[edge.index];
  for (int64_t i = 0; i < times; ++i) {
    const float before = confidence;
    confidence = confidence_after_use(confidence, rate);
    if (confidence == before) break;
  }
  edges.use_counts.at(edge.block)[edge.index] += static_cast<uint32_t>(times);
  edges.tags.at(edge.block)[edge.index] |= storage::kEdgeUsedBit;
  edges.confidences.at(edge.block)[edge.index] = confidence;
  edges.strengths.at(edge.block)[edge.index] = edges.weights.at(edge.block)[edge.index] * confidence;
}

// If a run of equal pairs starts at `first`: strengthens its edges as often as it is long.
AESG_HD inline void take_run(const Coactivate& job, int64_t first) {
  const int64_t pair = job.pairs[first];
  if (pair < 0 || (first > 0 && job.pairs[first - 1] == pair)) return;
  const int64_t source = pair >> 32, target = pair & UINT32_MAX, slots = job.edges.slots();
  if (source >= slots || target >= slots || job.active[source] == 0 || job.active[target] == 0) return;
  int64_t times = 0;
  for_each_edge(job.edges, source, [&](int32_t block, int index) {
    if (job.edges.targets.at(block)[index] != target) return true;
    if (job.edges.kind(block, index) == EdgeKind::kSuccession) return true;
    if (times == 0) times = run_length(job, first);
    strengthen_often(job.edges, {block, index}, job.rate, times);
    return true;
  });
}

}  // namespace aesg
