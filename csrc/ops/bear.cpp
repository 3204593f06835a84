// bear_ as torch sees it: checks, the loop on the CPU, registration.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "csrc/ops/bear_math.h"
#include "csrc/ops/device.h"
#include "csrc/ops/edge_args.h"
#include "csrc/ops/tensor_args.h"

namespace aesg {
namespace {

struct NodeTensors {
  const Tensor &vector, &id, &inv_norm, &use_frequency, &relevance, &age, &region_id, &is_active;
};

Nodes nodes_of(const NodeTensors& given, int64_t dim, const Tensor& first_block, int64_t slots) {
  const Nodes made{column<float>(given.vector, "vector", dim),
                   column<int64_t>(given.id, "id", 0),
                   column<float>(given.inv_norm, "inv_norm", 0),
                   column<uint32_t>(given.use_frequency, "use_frequency", 0),
                   column<float>(given.relevance, "relevance", 0),
                   column<uint32_t>(given.age, "age", 0),
                   column<uint32_t>(given.region_id, "region_id", 0),
                   column<uint8_t>(given.is_active, "is_active", 0)};
  const auto fits = [&](const Tensor& t, const char* name, int64_t rows) {
    expect_same_device(t, name, first_block, "first_block");
    expect(rows == slots, kMemoryError, name, ": expected ", slots, " rows as in first_block, got ",
           shape_of{t});
  };
  fits(given.vector, "vector", made.vector.rows);
  fits(given.id, "id", made.id.rows);
  fits(given.inv_norm, "inv_norm", made.inv_norm.rows);
  fits(given.use_frequency, "use_frequency", made.use_frequency.rows);
  fits(given.relevance, "relevance", made.relevance.rows);
  fits(given.age, "age", made.age.rows);
  fits(given.region_id, "region_id", made.region_id.rows);
  fits(given.is_active, "is_active", made.is_active.rows);
  return made;
}

struct Arguments {
  Tensor packed, neighbors, cosines;  // contiguous
  Bear job;                           // its slots not yet
};

// All checks that hold on every device, before any work.
Arguments check(const Tensor& packed, const Tensor& count, const Tensor& neighbors, const Tensor& cosines,
                const NodeTensors& nodes, const EdgeTensors& edges, const Tensor& counters, double confidence,
                double initial_relevance) {
  expect_dense<float>(packed, "packed", 2, "[n, D]");
  expect_dense<int64_t>(count, "count", 1, "[1]");
  expect(count.size(0) == 1, kMemoryError, "count: expected shape [1], got ", shape_of{count});
  expect_dense<int64_t>(neighbors, "neighbors", 2, "[n, L]");
  expect_dense<float>(cosines, "cosines", 2, "[n, L]");
  expect(packed.size(1) >= 1, kMemoryError, "packed: expected D >= 1, got shape ", shape_of{packed});
  expect(neighbors.size(0) == packed.size(0), kMemoryError, "neighbors: expected ", packed.size(0),
         " rows as in packed, got ", shape_of{neighbors});
  expect(cosines.size(0) == neighbors.size(0) && cosines.size(1) == neighbors.size(1), kMemoryError,
         "cosines: expected the shape of neighbors, ", shape_of{neighbors}, ", got ", shape_of{cosines});
  for (const auto& [t, name] : {std::pair<const Tensor&, const char*>{packed, "packed"},
                                {count, "count"},
                                {neighbors, "neighbors"},
                                {cosines, "cosines"}})
    expect_same_device(t, name, edges.first_block, "first_block");
  expect(confidence >= 0 && confidence <= 1, kMemoryError, "confidence: expected 0..1, got ", confidence);
  expect(initial_relevance >= 0, kMemoryError, "relevance: expected a number >= 0, got ", initial_relevance);
  Arguments made{dense(packed), dense(neighbors), dense(cosines), {}};
  Bear& job = made.job;
  job.edges = edges_of(edges);
  job.packed = static_cast<const float*>(made.packed.data_ptr());
  job.count = static_cast<const int64_t*>(count.data_ptr());
  job.neighbors = static_cast<const int64_t*>(made.neighbors.data_ptr());
  job.cosines = static_cast<const float*>(made.cosines.data_ptr());
  job.rows = packed.size(0);
  job.dim = packed.size(1);
  job.links = neighbors.size(1);
  job.nodes = nodes_of(nodes, job.dim, edges.first_block, job.edges.slots());
  job.counters = counters_of(counters, edges.first_block, "first_block");
  job.confidence = static_cast<float>(confidence);
  job.relevance = static_cast<float>(initial_relevance);
  return made;
}

// The slots of the newborn, in order. Throws where there is no room or the list of free slots is damaged.
struct Room {
  std::vector<int64_t> slots;
  int64_t free_slot;   // the next free one
  int64_t node_count;  // with them
};

Room find_slots(const Bear& job, int64_t births) {
  Room room{{}, job.counters[kFreeSlot], job.counters[kNodeCount]};
  expect(room.node_count >= 0 && room.node_count <= job.edges.slots(), kMemoryError,
         "counters: expected a node_count in 0..", job.edges.slots(), ", got ", room.node_count);
  std::unordered_set<int64_t> taken;
  while (static_cast<int64_t>(room.slots.size()) < births && room.free_slot >= 0) {
    const int64_t next = next_free_slot(job, room.free_slot);
    expect(next != kNotFree && taken.insert(room.free_slot).second, kMemoryError,
           "first_block: expected a list of free slots, found slot ", room.free_slot, " in it");
    room.slots.push_back(room.free_slot);
    room.free_slot = next;
  }
  const int64_t appended = births - static_cast<int64_t>(room.slots.size());
  expect(appended <= job.edges.slots() - room.node_count, kMemoryError, "slots: expected room for ", appended,
         " more concepts, got ", job.edges.slots() - room.node_count);
  for (int64_t i = 0; i < appended; ++i) room.slots.push_back(room.node_count++);
  return room;
}

// Throws unless there are blocks for all edges.
void expect_blocks(const Bear& job, int64_t births) {
  int64_t wanted = 0;
  std::unordered_map<int64_t, int64_t> arrived;  // edges to a newborn, by source
  for (int64_t row = 0; row < births; ++row) {
    int64_t edges = 0;
    for (int64_t l = 0; l < job.links; ++l) {
      const int64_t neighbor = job.neighbors[row * job.links + l];
      if (!is_neighbor(job, neighbor)) continue;
      wanted += takes_block(edges++, 0);
      wanted += takes_block(arrived[neighbor]++, free_places(job.edges, neighbor));
    }
  }
  const int64_t used = job.counters[kBlockCount];
  expect(used >= 0 && used <= job.edges.blocks(), kMemoryError, "counters: expected a block_count in 0..",
         job.edges.blocks(), ", got ", used);
  int64_t free = 0;
  std::unordered_set<int64_t> taken;
  for (int64_t block = job.counters[kFreeBlock]; free < wanted && block >= 0; ++free) {
    expect(is_free_block(job.edges, used, block) && taken.insert(block).second, kMemoryError,
           "next_block: expected a list of free blocks, found block ", block, " in it");
    block = job.edges.next_block[block];
  }
  expect(wanted - free <= job.edges.blocks() - used, kMemoryError, "blocks: expected room for ",
         wanted - free, " more edge blocks, got ", job.edges.blocks() - used);
}

// Edges between the newborn and their neighbours, from the former or to them.
void link(const Bear& job, const std::vector<int64_t>& slots, bool back) {
  for (size_t row = 0; row < slots.size(); ++row)
    for (int64_t l = 0; l < job.links; ++l) {
      const int64_t at = static_cast<int64_t>(row) * job.links + l, neighbor = job.neighbors[at];
      if (!is_neighbor(job, neighbor)) continue;
      const int64_t source = back ? neighbor : slots[row], target = back ? slots[row] : neighbor;
      int32_t fresh = -1;
      if (free_places(job.edges, source) == 0) hand_out_blocks(job.edges, job.counters, 1, &fresh);
      job.counters[kEdgeCount] +=
          append_edge(job.edges, source, static_cast<int32_t>(target), EdgeKind::kSimilarity,
                      weight_of(job.cosines[at]), job.confidence, fresh);
    }
}

Tensor bear_cpu(const Tensor& packed, const Tensor& count, const Tensor& neighbors, const Tensor& cosines,
                const Tensor& vector, const Tensor& id, const Tensor& inv_norm, const Tensor& use_frequency,
                const Tensor& relevance, const Tensor& age, const Tensor& region_id, const Tensor& is_active,
                const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                const Tensor& sources, const Tensor& counters, double confidence, double initial_relevance) {
  const Arguments arguments = check(
      packed, count, neighbors, cosines,
      {vector, id, inv_norm, use_frequency, relevance, age, region_id, is_active},
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      counters, confidence, initial_relevance);
  const Bear& job = arguments.job;
  Tensor out = make_tensor(packed, {job.rows}, ScalarType::Long);
  auto* slots = static_cast<int64_t*>(out.data_ptr());
  const int64_t births = job.wanted();
  const Room room = find_slots(job, births);
  expect_blocks(job, births);

  for (const int64_t slot : room.slots) job.edges.first_block[slot] = -1;
  link(job, room.slots, false);
  link(job, room.slots, true);
  for (int64_t row = 0; row < births; ++row) {
    const int64_t slot = slots[row] = room.slots[static_cast<size_t>(row)];
    const float* from = job.packed + row * job.dim;
    std::copy_n(from, job.dim, job.nodes.vector.at(slot));
    double squares = 0;
    for (int64_t d = 0; d < job.dim; ++d) squares = add_square(squares, from[d]);
    job.nodes.inv_norm[slot] = inverse_length(squares);
    fill_columns(job, slot, job.counters[kNextId]++);
  }
  std::fill(slots + births, slots + job.rows, int64_t{-1});
  job.counters[kNodeCount] = room.node_count;
  job.counters[kActiveCount] += births;
  job.counters[kFreeSlot] = room.free_slot;
  return out;
}

#if defined(AESG_WITH_CUDA)
// Does not wait for the device: what has no room is left out, a damaged list of free slots or blocks ends.
Tensor bear_cuda(const Tensor& packed, const Tensor& count, const Tensor& neighbors, const Tensor& cosines,
                 const Tensor& vector, const Tensor& id, const Tensor& inv_norm, const Tensor& use_frequency,
                 const Tensor& relevance, const Tensor& age, const Tensor& region_id, const Tensor& is_active,
                 const Tensor& first_block, const Tensor& targets, const Tensor& strengths,
                 const Tensor& next_block, const Tensor& counts, const Tensor& weights,
                 const Tensor& confidences, const Tensor& use_counts, const Tensor& tags,
                 const Tensor& sources, const Tensor& counters, double confidence, double initial_relevance) {
  const Arguments arguments = check(
      packed, count, neighbors, cosines,
      {vector, id, inv_norm, use_frequency, relevance, age, region_id, is_active},
      {first_block, targets, strengths, next_block, counts, weights, confidences, use_counts, tags, sources},
      counters, confidence, initial_relevance);
  const OnDevice device(packed);
  Tensor out = make_tensor(packed, {arguments.job.rows}, ScalarType::Long);
  Bear job = arguments.job;
  job.slots = static_cast<int64_t*>(out.data_ptr());
  Tensor workspace = make_workspace(packed, gpu::bear_workspace(job));
  expect_launched(gpu::bear(job, workspace.data_ptr(), device.stream), "bear_");
  return out;
}
#endif

}  // namespace
}  // namespace aesg

#if defined(AESG_WITH_CUDA)
STABLE_TORCH_LIBRARY_IMPL(aesg, CUDA, m) { m.impl("bear_", TORCH_BOX(&aesg::bear_cuda)); }
#endif
STABLE_TORCH_LIBRARY_IMPL(aesg, CPU, m) { m.impl("bear_", TORCH_BOX(&aesg::bear_cpu)); }
