// From torch tensors to csrc/ops/edges.h: the ten columns that every op which learns takes in this order.
#pragma once

#include "csrc/ops/edges.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {

struct EdgeTensors {
  const Tensor &first_block, &targets, &strengths, &next_block, &counts, &weights, &confidences, &use_counts,
      &tags, &sources;
};

inline Edges edges_of(const EdgeTensors& given) {
  Edges made{column<int32_t>(given.first_block, "first_block", 0),
             column<int32_t>(given.targets, "targets", kBlockEdges, true),
             column<float>(given.strengths, "strengths", kBlockEdges, true),
             column<int32_t>(given.next_block, "next_block", 0, true),
             column<int32_t>(given.counts, "counts", 0, true),
             column<float>(given.weights, "weights", kBlockEdges, true),
             column<float>(given.confidences, "confidences", kBlockEdges, true),
             column<uint32_t>(given.use_counts, "use_counts", kBlockEdges, true),
             column<uint8_t>(given.tags, "tags", kBlockEdges, true),
             column<int32_t>(given.sources, "sources", 0, true)};
  const auto fits = [&](const Tensor& t, const char* name, int64_t rows) {
    expect_same_device(t, name, given.first_block, "first_block");
    expect(rows == made.blocks(), kMemoryError, name, ": expected ", made.blocks(),
           " blocks as in targets, got ", shape_of{t});
  };
  fits(given.targets, "targets", made.targets.rows);
  fits(given.strengths, "strengths", made.strengths.rows);
  fits(given.next_block, "next_block", made.next_block.rows);
  fits(given.counts, "counts", made.counts.rows);
  fits(given.weights, "weights", made.weights.rows);
  fits(given.confidences, "confidences", made.confidences.rows);
  fits(given.use_counts, "use_counts", made.use_counts.rows);
  fits(given.tags, "tags", made.tags.rows);
  fits(given.sources, "sources", made.sources.rows);
  expect(made.blocks() <= INT32_MAX && made.slots() <= INT32_MAX, kMemoryError, "edges: expected at most ",
         INT32_MAX, " slots and blocks, got ", made.slots(), " and ", made.blocks());
  return made;
}

// i64 [kCounterCount], contiguous, on the device of the edges.
inline int64_t* counters_of(const Tensor& t, const Tensor& like, const char* like_name) {
  expect_dense<int64_t>(t, "counters", 1, "[7]");
  expect(t.size(0) == kCounterCount && t.is_contiguous(), kMemoryError, "counters: expected ", kCounterCount,
         " contiguous values, got shape ", shape_of{t});
  expect_same_device(t, "counters", like, like_name);
  return static_cast<int64_t*>(t.data_ptr());
}

}  // namespace aesg
