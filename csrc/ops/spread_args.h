// Edge columns and the numbers of spreading, checked, as the kernels take them.
#pragma once

#include <cmath>
#include <optional>
#include <utility>

#include "csrc/ops/cpu/spread_activation.h"
#include "csrc/ops/device.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {

inline float spread_number(double value, const char* name) {
  expect(std::isfinite(value) && value >= 0, kNavigationError, name, ": expected a finite number >= 0, got ",
         value);
  return static_cast<float>(value);
}

inline cpu::SpreadRules spread_rules(int64_t hops, double decay, double facilitation, double source_floor,
                                     double transfer_floor) {
  expect(hops >= 0, kNavigationError, "hops: expected an integer >= 0, got ", hops);
  return {hops, spread_number(decay, "decay"), spread_number(facilitation, "facilitation"),
          spread_number(source_floor, "source_floor"), spread_number(transfer_floor, "transfer_floor")};
}

// All on the device of `with`.
inline cpu::SpreadGraph spread_graph(const Tensor& first_block, const Tensor& targets,
                                     const Tensor& strengths, const Tensor& next_block, const Tensor& active,
                                     const std::optional<Tensor>& regions, const Tensor& with,
                                     const char* with_name) {
  for (const auto& [tensor, name] : {std::pair{&first_block, "first_block"},
                                     {&targets, "targets"},
                                     {&strengths, "strengths"},
                                     {&next_block, "next_block"},
                                     {&active, "active"}})
    expect_same_device(*tensor, name, with, with_name);
  cpu::SpreadGraph graph;
  graph.first_block = column<const int32_t>(first_block, "first_block", 0);
  graph.active = column<const uint8_t>(active, "active", 0);
  graph.targets = column<const int32_t>(targets, "targets", cpu::kEdgesPerBlock, true);
  graph.strengths = column<const float>(strengths, "strengths", cpu::kEdgesPerBlock, true);
  graph.next_block = column<const int32_t>(next_block, "next_block", 0, true);
  const int64_t slots = graph.first_block.rows, blocks = graph.targets.rows;
  expect(slots <= INT32_MAX, kMemoryError, "first_block: expected at most ", INT32_MAX, " slots, got ",
         slots);
  expect(graph.active.rows == slots, kMemoryError, "active: expected ", slots,
         " rows as in first_block, got ", shape_of{active});
  expect(graph.strengths.rows == blocks, kMemoryError, "strengths: expected ", blocks,
         " blocks as in targets, got ", shape_of{strengths});
  expect(graph.next_block.rows == blocks, kMemoryError, "next_block: expected ", blocks,
         " blocks as in targets, got ", shape_of{next_block});
  graph.regions = optional_column<const int32_t>(regions, "regions", slots, first_block, "first_block");
  return graph;
}

#if defined(AESG_WITH_CUDA)
inline gpu::SpreadGraph on_device(const cpu::SpreadGraph& graph) {
  return {graph.first_block, graph.targets, graph.strengths, graph.next_block, graph.active, graph.regions};
}
inline gpu::SpreadRules on_device(const cpu::SpreadRules& rules) {
  return {rules.hops, rules.decay, rules.facilitation, rules.source_floor, rules.transfer_floor};
}
#endif

inline constexpr const char* kDamagedEdges =
    "edge blocks: expected targets and blocks inside the graph and chains that end, got damaged ones";

}  // namespace aesg
